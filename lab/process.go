package lab

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is a long-running program of the lab. Its output is kept, and shown when the test fails. It dies with the
// thread that started it, so that not even a killed test leaves one behind. Safe for concurrent use.
type Process struct {
	name string
	cmd  *exec.Cmd
	out  *output
	done chan struct{} // closed when it has ended and err is set
	err  error
}

// Start runs a program in the namespace until it ends by itself, is stopped, or the lab closes.
func (n *Namespace) Start(name string, args ...string) *Process {
	n.lab.Helper()
	p := &Process{
		name: n.Name + ": " + strings.Join(append([]string{name}, args...), " "),
		cmd:  n.Command(context.Background(), name, args...),
		out:  newOutput(),
		done: make(chan struct{}),
	}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.cmd.WaitDelay = time.Second
	n.lab.must(p.cmd.Start(), "start %s", p)
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
		p.out.wake()
	}()
	n.lab.mu.Lock()
	n.lab.processes = append(n.lab.processes, p)
	n.lab.undo = append(n.lab.undo, p.Kill)
	n.lab.mu.Unlock()
	return p
}

func (p *Process) String() string { return p.name }

// PID is the process id: nsenter becomes the program, so the id is the program's own.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Running reports whether the process has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Signal sends a signal to a process that still runs.
func (p *Process) Signal(sig syscall.Signal) {
	if p.Running() {
		_ = p.cmd.Process.Signal(sig)
	}
}

// Kill ends the process at once (SIGKILL) and waits for it.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.done
}

// Stop asks the process to end, kills it if it does not within five seconds, and returns how it ended.
func (p *Process) Stop(sig syscall.Signal) error {
	p.Signal(sig)
	if err := p.Wait(5 * time.Second); p.Running() {
		p.Kill()
		return err
	}
	return p.err
}

// Wait waits for the process to end by itself and returns how it did.
func (p *Process) Wait(limit time.Duration) error {
	select {
	case <-p.done:
		return p.err
	case <-time.After(limit):
		return fmt.Errorf("%s: still running after %v", p, limit)
	}
}

// Said waits until the output contains text.
func (p *Process) Said(text string, limit time.Duration) error {
	deadline := time.After(limit)
	for {
		changed := p.out.changed()
		if strings.Contains(p.Output(), text) {
			return nil
		}
		if !p.Running() {
			return fmt.Errorf("%s ended (%v) before it said %q:\n%s", p, p.err, text, p.Tail(20))
		}
		select {
		case <-changed:
		case <-deadline:
			return fmt.Errorf("%s did not say %q within %v:\n%s", p, text, limit, p.Tail(20))
		}
	}
}

// Output is everything printed so far, on both streams.
func (p *Process) Output() string { return p.out.String() }

// Tail is the last lines of the output.
func (p *Process) Tail(lines int) string {
	all := strings.Split(strings.TrimRight(p.Output(), "\n"), "\n")
	return "\n" + strings.Join(all[max(0, len(all)-lines):], "\n")
}

// output is a growing text that can be waited on.
type output struct {
	mu     sync.Mutex
	text   bytes.Buffer
	notify chan struct{} // closed and replaced at each change
}

func newOutput() *output { return &output{notify: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	o.text.Write(p)
	o.mu.Unlock()
	o.wake()
	return len(p), nil
}

func (o *output) wake() {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.notify)
	o.notify = make(chan struct{})
}

func (o *output) changed() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.notify
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
