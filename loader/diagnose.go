package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"roam/docs"
	"roam/loader/api"
)

// watchReasons is how long doctor watches the counters: what rises meanwhile happens now.
const watchReasons = time.Second

// dropping says for each reason by which packets are dropped now what it means and what to do. The advice is the manual's.
func (d *daemon) dropping(ctx context.Context) ([]api.Check, error) {
	before, err := d.drops()
	if err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(watchReasons):
	}
	after, err := d.drops()
	if err != nil {
		return nil, err
	}
	return rising(before, after), nil
}

// portReason is what a count belongs to.
type portReason struct{ port, reason string }

// drops counts dropped packets.
func (d *daemon) drops() (map[portReason]uint64, error) {
	packets, err := d.packets()
	counts := map[portReason]uint64{}
	for _, p := range packets {
		if strings.HasPrefix(p.Reason, "drop_") {
			counts[portReason{p.Port, p.Reason}] += p.Packets
		}
	}
	for port, n := range d.gateway.Refused() {
		counts[portReason{port, refused}] = n
	}
	return counts, err
}

// refused is the one way to lose packets that is no reason: the driver's, after the program has returned.
const refused = "refused"

func rising(before, after map[portReason]uint64) []api.Check {
	var list []api.Check
	advice := docs.Reasons()
	advice[refused] = "see what else doctor says of this port: a veth end needs GRO or an XDP program at the other end, some drivers a program on " +
		"the port or more queues, and the MTU must fit"
	for _, key := range slices.SortedFunc(maps.Keys(after), func(a, b portReason) int { return strings.Compare(a.port+a.reason, b.port+b.reason) }) {
		if n := after[key] - before[key]; after[key] > before[key] {
			list = append(list, api.Check{
				Name: key.reason, Subject: key.port, Level: api.LevelWarn, Advice: advice[key.reason],
				Found: fmt.Sprintf("%d packets were dropped within %v: %s", n, watchReasons,
					cmp.Or(sentences[key.reason], "the driver refused what was sent to this port")),
			})
		}
	}
	return list
}
