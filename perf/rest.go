package main

import (
	"fmt"
	"time"

	"roam/lab"
	"roam/loader/tidy"
)

// rest waits until processes have done what they were given, their tidying up included: what they cost then is what they cost for years, and
// what changes then is not measured in the wake of something else.
func rest(pids ...int) error {
	const window, busy, limit = time.Second, 50 * time.Millisecond, time.Minute
	time.Sleep(tidy.After) // the same for peers
	var before time.Duration
	for end := time.Now().Add(limit); ; time.Sleep(window) {
		var spent time.Duration
		for _, pid := range pids {
			s, err := lab.CPU(pid)
			if err != nil {
				return fmt.Errorf("wait for rest: %w", err)
			}
			spent += s
		}
		if before > 0 && spent-before < busy {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("processes %v are still at work after %v", pids, limit)
		}
		before = spent
	}
}
