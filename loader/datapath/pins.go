// Package datapath keeps the forwarding plane in the kernel: it loads the program over its maps, attaches it to the
// ports, and pins all of it, so that forwarding outlives the process.
//
// What is pinned lies in one folder of a BPF file system:
//
//	gen3/         a generation: every map and the program, each under its own name
//	live          a relative symbolic link to the generation in force
//	links/7       the attachment to the interface with index 7
//	settings      what was changed in the kernel's settings, to be undone by Remove
//
// An upgrade to another program, and a growth of the host tables, are the same transaction: the next generation is built
// beside the one in force, the links are updated in place one by one (each update commits that port's traffic), and
// renaming live commits the bookkeeping. Maps may be pinned in several generations at once. Until the first link changes,
// a failure removes what was built; from then until the rename is the critical section, in which a failure puts the
// old program back and a crash leaves links on both programs. Both are right at any moment, since they share their
// tables, or, during a growth, since the writer writes both. Whoever opens the folder next goes on from the
// newest generation that a link runs, so that an interrupted transaction is finished, or has never happened.
//
// The BPF file system sets the form: it takes no name with a dot and no regular file, refuses to rename onto a folder
// that holds anything, and cannot exchange two names on every kernel we run on. A rename of a symbolic link it does
// everywhere, atomically.
package datapath

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	liveName     = "live"
	nextName     = "next" // becomes live by a rename
	linksName    = "links"
	settingsName = "settings"
)

// ErrLocked says that another process works on the same pins.
var ErrLocked = errors.New("another process uses these pins")

// pins is the folder with everything that is pinned, locked for this process.
type pins struct {
	dir  string
	lock *os.File // the folder itself: a BPF file system has no regular files to lock
}

// openPins makes the folder if need be, on a BPF file system that it mounts if need be, and locks it.
func openPins(dir string, log *slog.Logger) (*pins, error) {
	if !filepath.IsAbs(dir) || filepath.Clean(dir) == "/" {
		return nil, fmt.Errorf("pin folder %q: name a folder by its absolute path, such as /sys/fs/bpf/roam", dir)
	}
	dir = filepath.Clean(dir)
	if err := makeFolder(dir, log); err != nil {
		return nil, err
	}
	p := &pins{dir: dir}
	if err := p.acquire(); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *pins) path(name ...string) string { return filepath.Join(append([]string{p.dir}, name...)...) }

// lockPatience is how long a start waits for its predecessor: a process that was killed holds its lock until the kernel
// has freed its memory, and nobody else can tell when that is.
const lockPatience = 2 * time.Second

// acquire locks the folder. A second process gets an error that names the first; the lock ends with the process.
func (p *pins) acquire() error {
	f, err := os.Open(p.dir)
	if err != nil {
		return fmt.Errorf("open the pin folder: %w", err)
	}
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(10 * time.Millisecond) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			break
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("lock %s: %w%s: stop it first, or give this one a pin folder of its own", p.dir, ErrLocked, holder(f))
	} else if err != nil {
		err = fmt.Errorf("lock %s: %w", p.dir, err)
	}
	if err != nil {
		_ = f.Close()
		return err
	}
	p.lock = f
	return nil
}

// close gives up the lock; what is pinned stays.
func (p *pins) close() error { return p.lock.Close() }

// holder names the process that has locked f, as far as it can be seen from here.
func holder(f *os.File) string {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return ""
	}
	table, err := os.Open("/proc/locks")
	if err != nil {
		return ""
	}
	defer table.Close()
	inode := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for lines := bufio.NewScanner(table); lines.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 123 00:1b:42 0 EOF
		if w := strings.Fields(lines.Text()); len(w) > 5 && w[1] == "FLOCK" && w[5] == inode {
			return " (process " + w[4] + ")"
		}
	}
	return ""
}

// makeFolder makes dir on a BPF file system. Where there is none it mounts one at dir, or at dir's parent where nothing can be
// made in that (sysfs keeps an empty /sys/fs/bpf for it).
func makeFolder(dir string, log *slog.Logger) error {
	there, err := onBPFFS(dir)
	if err != nil {
		return fmt.Errorf("make pin folder %s: %w", dir, err)
	}
	if !there {
		at := dir
		if os.MkdirAll(dir, 0o700) != nil {
			at = filepath.Dir(dir)
		}
		err := unix.Mount("bpf", at, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700")
		if err != nil {
			return fmt.Errorf("mount a BPF file system at %s: %w", at, err)
		}
		log.Warn("mounted a BPF file system because there was none: in a mount namespace of its own (ip netns exec, "+
			"a service with private mounts) what is pinned ends with this process", "at", at)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make pin folder %s: %w", dir, err)
	}
	return nil
}

// onBPFFS tells whether dir lies, or would lie, on a BPF file system.
func onBPFFS(dir string) (bool, error) {
	for {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		if err == nil {
			return st.Type == unix.BPF_FS_MAGIC, nil
		}
		if errors.Is(err, unix.EPERM) {
			return false, fmt.Errorf("look at %s: %w: a BPF file system takes no name with a dot", dir, err)
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == "/" {
			return false, fmt.Errorf("look at %s: %w", dir, err)
		}
		dir = filepath.Dir(dir)
	}
}

// list returns the numbers that follow prefix among the names in a folder; other names are none of ours.
func (p *pins) list(folder, prefix string) ([]int, error) {
	entries, err := os.ReadDir(p.path(folder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list what is pinned: %w", err)
	}
	var numbers []int
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), prefix)
		if n, err := strconv.Atoi(digits); ok && err == nil && n > 0 && strconv.Itoa(n) == digits {
			numbers = append(numbers, n)
		}
	}
	return numbers, nil
}
