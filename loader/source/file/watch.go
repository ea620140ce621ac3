package file

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// watcher tells when a file may have changed as a whole. It watches folders, because editors replace files: that of
// the file, that of what it links to, and while one is missing the nearest that exists.
//
// inotify is used directly: portable wrappers report writes, but not that the writer is done, and a file read
// between the two is half a file.
type watcher struct {
	path    string
	target  atomic.Pointer[string] // what path leads to; "" while that is missing
	file    *os.File               // the inotify descriptor
	changed chan struct{}
	failed  chan error
}

// whole are the events after which a name stands for a whole file, or for none.
const whole = unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_CREATE |
	unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// watch starts to watch the file at path, which need not exist.
func watch(path string) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	w := &watcher{
		path: path, file: os.NewFile(uintptr(fd), "inotify"),
		changed: make(chan struct{}, 1), failed: make(chan error, 1),
	}
	if err := w.aim(); err != nil {
		w.close()
		return nil, err
	}
	go w.run()
	return w, nil
}

// close ends the watch; run then ends by itself.
func (w *watcher) close() { w.file.Close() }

// aim watches the folders that matter now. Watching one twice is harmless.
func (w *watcher) aim() error {
	target := resolve(w.path)
	w.target.Store(&target)
	for _, path := range [...]string{w.path, target} {
		if path == "" {
			continue
		}
		if err := w.add(filepath.Dir(path)); err != nil {
			return err
		}
	}
	return nil
}

func resolve(path string) string {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return ""
	}
	return target
}

// add watches a folder, or the nearest above it that exists.
func (w *watcher) add(folder string) error {
	for {
		err := w.control(func(fd int) error {
			_, err := unix.InotifyAddWatch(fd, folder, whole)
			return err
		})
		above := filepath.Dir(folder)
		if !errors.Is(err, fs.ErrNotExist) || above == folder {
			return os.NewSyscallError("inotify_add_watch", err)
		}
		folder = above
	}
}

// control calls f with the descriptor, which stays in the hands of the runtime's poller.
func (w *watcher) control(f func(fd int) error) error {
	raw, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	if err := raw.Control(func(fd uintptr) { result = f(int(fd)) }); err != nil {
		return err
	}
	return result
}

// run turns events into one pending signal, however many there are.
func (w *watcher) run() {
	buf := make([]byte, 64<<10)
	for {
		n, err := w.file.Read(buf)
		if err != nil {
			if !errors.Is(err, os.ErrClosed) {
				w.failed <- err
			}
			return
		}
		if !w.relevant(buf[:n]) {
			continue
		}
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

// relevant tells whether any of these events may mean a whole file.
func (w *watcher) relevant(events []byte) bool {
	for len(events) >= unix.SizeofInotifyEvent {
		mask := binary.NativeEndian.Uint32(events[4:])
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[12:]))
		if size > len(events) {
			return true
		}
		name := strings.TrimRight(string(events[unix.SizeofInotifyEvent:size]), "\x00")
		events = events[size:]
		if w.matters(name, mask) {
			return true
		}
	}
	return false
}

// matters judges one event. A file that was just created is one that somebody is still writing, unless it is a
// link; and what happens to other names matters when it makes the path lead elsewhere.
func (w *watcher) matters(name string, mask uint32) bool {
	target := *w.target.Load()
	switch {
	case name == "" || mask&unix.IN_ISDIR != 0:
		return true // of a watched folder itself, or lost events; or a folder on the way
	case name == filepath.Base(w.path) || name == filepath.Base(target):
		return mask&unix.IN_CREATE == 0 || isLink(w.path)
	}
	return resolve(w.path) != target
}

func isLink(path string) bool {
	info, err := os.Lstat(path)
	if err != nil {
		return true
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return info.Mode()&fs.ModeSymlink != 0 || ok && stat.Nlink > 1
}
