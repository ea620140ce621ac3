package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// eachNamed calls fn with every thread of the kernel whose name begins so.
func eachNamed(prefix string, fn func(pid int) error) error {
	found := false
	names, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, file := range names {
		name, _ := os.ReadFile(file)
		if !strings.HasPrefix(string(name), prefix) {
			continue
		}
		pid, _ := strconv.Atoi(strings.Split(file, "/")[2])
		if err := fn(pid); err != nil {
			return err
		}
		found = true
	}
	if !found {
		return fmt.Errorf("the kernel has no thread %s…", prefix)
	}
	return nil
}

// realtime has a thread run whenever it can: a nice value is not enough, because whoever else runs may end his slice of some milliseconds.
func realtime(pid int) error {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}
	if err := unix.SchedSetAttr(pid, &attr, 0); err != nil {
		return fmt.Errorf("have thread %d run before others: %w", pid, err)
	}
	return nil
}

// prompt has a thread that needs little run soon after it wakes, on a processor that has nothing else to do where there is one: a real-time thread takes
// that on which it ran before, from whoever is there.
func prompt(pid int) error {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: -20, Runtime: uint64(100 * time.Microsecond)}
	if err := errors.Join(unix.SchedSetAttr(pid, &attr, 0), unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)); err != nil {
		return fmt.Errorf("have thread %d run soon: %w", pid, err)
	}
	return nil
}

// ordinary has a thread share the processor again.
func ordinary(pid int) error {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}
	if err := errors.Join(unix.SchedSetAttr(pid, &attr, 0), unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0)); err != nil { // 0: as it was
		return fmt.Errorf("have thread %d run beside others: %w", pid, err)
	}
	return nil
}

// takeCPU has whoever receives on the last CPU wait: a thread that goes before it spins there. The thread must not end with that, because
// processes that were started from it would, too.
func takeCPU(length time.Duration) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var home unix.CPUSet
	before := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 2}
	if err := errors.Join(unix.SchedGetaffinity(0, &home), pin(0, lastCPU()), unix.SchedSetAttr(0, &before, 0)); err != nil {
		return fmt.Errorf("take the last CPU: %w", err)
	}
	for end := time.Now().Add(length); time.Now().Before(end); {
	}
	back := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}
	return errors.Join(unix.SchedSetAttr(0, &back, 0), unix.SchedSetaffinity(0, &home))
}

// pin keeps a thread, 0 for the calling one, on a CPU.
func pin(pid, cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(pid, &set); err != nil {
		return fmt.Errorf("keep thread %d on CPU %d: %w", pid, cpu, err)
	}
	return nil
}

// stepAside keeps this process off the last CPU, which is the forwarder's, until back is called.
func stepAside() (back func() error, err error) {
	if err := eachThread("self", func(tid int) error { return allow(tid, max(lastCPU(), 1)) }); err != nil {
		return nil, err
	}
	return func() error { return eachThread("self", release) }, nil
}

// eachThread calls fn with every thread of a process; those that come later inherit from one of them.
func eachThread(process string, fn func(tid int) error) error {
	threads, err := os.ReadDir(filepath.Join("/proc", process, "task"))
	if err != nil {
		return fmt.Errorf("list the threads of process %s: %w", process, err)
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := fn(tid); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// release lets a thread run anywhere again.
func release(pid int) error { return allow(pid, runtime.NumCPU()) }

// allow lets a thread run on the first few CPUs.
func allow(pid, cpus int) error {
	var set unix.CPUSet
	for cpu := range cpus {
		set.Set(cpu)
	}
	if err := unix.SchedSetaffinity(pid, &set); err != nil {
		return fmt.Errorf("let thread %d run on %d CPUs: %w", pid, cpus, err)
	}
	return nil
}
