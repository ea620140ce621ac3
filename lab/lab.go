// Package lab builds small networks on one machine and measures what happens in them: namespaces joined by veth
// cables and bridges, real daemons inside, packets counted one by one. The demo and the multi-host tests share it,
// so that what the demo prints is measured by the same code that the tests trust.
//
// Everything a Lab creates carries the process id in its name, lives in namespaces and one temporary folder, and
// goes away with Close, whether the test passed, failed, panicked or was interrupted. What a killed run could not
// clean up, the next New sweeps away, since it can see that the process is gone.
//
// Methods report trouble by failing the test they were given (TB) and are meant for its goroutine; what may be
// used from elsewhere says so.
package lab

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// TB is the part of testing.TB that a lab needs; the demo brings its own.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Failed() bool
	Cleanup(func())
}

// Lab is one network under test and everything that runs in it.
type Lab struct {
	TB
	Dir string // private to this lab: captures, configurations, logs

	prefix    string
	mu        sync.Mutex
	undo      []func()
	processes []*Process
}

// namePrefix starts the name of every namespace and folder of a lab, followed by the process id.
const namePrefix = "roam-"

var (
	labs      atomic.Uint32
	sweepOnce sync.Once
	open      sync.Map // *Lab -> struct{}: what a signal has to close
)

// New starts an empty lab that is closed when t ends.
func New(t TB) *Lab {
	t.Helper()
	sweepOnce.Do(func() {
		sweep()
		closeOnSignal()
	})
	l := &Lab{TB: t, prefix: fmt.Sprintf("%s%d-%d-", namePrefix, os.Getpid(), labs.Add(1))}
	dir, err := os.MkdirTemp("", l.prefix)
	if err != nil {
		t.Fatalf("make the lab's folder: %v", err)
	}
	l.Dir = dir
	open.Store(l, struct{}{})
	t.Cleanup(l.Close)
	return l
}

// Defer has undo run when the lab closes, last in first out.
func (l *Lab) Defer(undo func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.undo = append(l.undo, undo)
}

// Close ends every process, deletes every namespace and the folder. Safe to call twice and from any goroutine.
func (l *Lab) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.Dir == "" {
		return
	}
	if l.Failed() {
		for _, p := range l.processes {
			l.Logf("--- %s: %s", p, p.Tail(40))
		}
	}
	for i := len(l.undo) - 1; i >= 0; i-- {
		l.undo[i]()
	}
	l.undo = nil
	if err := os.RemoveAll(l.Dir); err != nil {
		l.Logf("remove the lab's folder: %v", err)
	}
	l.Dir = ""
	open.Delete(l)
}

// Until waits for check to return nil, asking again after a few milliseconds first and ever more rarely then. For
// states that nothing announces.
func (l *Lab) Until(limit time.Duration, what string, check func() error) {
	l.Helper()
	deadline := time.Now().Add(limit)
	for pause := 5 * time.Millisecond; ; pause = min(pause*5/4, 100*time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			l.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		time.Sleep(pause)
	}
}

// must fails the test with what was being done.
func (l *Lab) must(err error, format string, args ...any) {
	l.Helper()
	if err != nil {
		l.Fatalf("%s: %v", fmt.Sprintf(format, args...), err)
	}
}

func closeOnSignal() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		<-signals
		open.Range(func(l, _ any) bool {
			l.(*Lab).Close()
			return true
		})
		os.Exit(130)
	}()
}

// Processes lists the command lines of this lab's processes that still run.
func (l *Lab) Processes() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var running []string
	for _, p := range l.processes {
		if p.Running() {
			running = append(running, p.String())
		}
	}
	return running
}

// Leftovers lists what labs of process pid left on this machine (pid 0: of any process): namespaces, mounts and
// folders. Empty after every Close.
func Leftovers(pid int) []string {
	prefix := namePrefix
	if pid != 0 {
		prefix += strconv.Itoa(pid) + "-"
	}
	var found []string
	for _, pattern := range []string{netnsDir + "/" + prefix + "[0-9]*", filepath.Join(os.TempDir(), prefix+"[0-9]*")} {
		names, _ := filepath.Glob(pattern)
		found = append(found, names...)
	}
	return append(found, mounts(filepath.Join(os.TempDir(), prefix))...)
}

// mounts lists the mount points whose path starts with prefix.
func mounts(prefix string) []string {
	table, _ := os.ReadFile("/proc/self/mounts")
	var found []string
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], prefix) {
			found = append(found, fields[1])
		}
	}
	return found
}

// sweep removes what processes that no longer exist left behind. Their children died with them (see Process).
func sweep() {
	for _, path := range Leftovers(0) {
		name := strings.TrimPrefix(path, os.TempDir()+"/")
		name = strings.TrimPrefix(filepath.Base(strings.Split(name, "/")[0]), namePrefix)
		if strings.HasPrefix(path, netnsDir) {
			name = strings.TrimPrefix(filepath.Base(path), namePrefix)
		}
		pid, err := strconv.Atoi(strings.SplitN(name, "-", 2)[0])
		if err != nil || unix.Kill(pid, 0) != unix.ESRCH {
			continue
		}
		if strings.HasPrefix(path, netnsDir) {
			_ = netns.DeleteNamed(filepath.Base(path))
			continue
		}
		for _, mount := range mounts(path) {
			_ = unix.Unmount(mount, unix.MNT_DETACH)
		}
		_ = os.RemoveAll(path)
	}
}

// Root returns the folder of the module, where go.mod lies: the parent of this file's.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(file))
}

// BPFFS mounts a BPF file system of the lab's own and returns its folder. What is pinned there outlives any process
// and ends with the lab, and labs may run side by side.
func (l *Lab) BPFFS(name string) string {
	l.Helper()
	dir := filepath.Join(l.Dir, name)
	l.must(os.MkdirAll(dir, 0o700), "make folder")
	l.must(unix.Mount("bpf", dir, "bpf", 0, ""), "mount a BPF file system")
	l.Defer(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			l.Logf("unmount %s: %v", dir, err)
		}
	})
	return dir
}
