package hook

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// execute runs the program: the change on its standard input, no arguments, the daemon's environment, "/" as its folder. It and
// what it started are killed when its time is over, or when the daemon ends or dies.
func (k *Hook) execute(ctx context.Context, c Change) error {
	input, err := json.Marshal(c)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, k.Timeout)
	defer cancel()
	said := &tail{most: 512}
	cmd := exec.CommandContext(limited, k.Program)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = "/", bytes.NewReader(append(input, '\n')), said, said
	cmd.Env = slices.DeleteFunc(os.Environ(), func(s string) bool {
		return strings.HasPrefix(s, "NOTIFY_SOCKET=") // readiness is ours to tell
	})
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // a grandchild that left the group may hold the pipes
	runtime.LockOSThread()      // the kernel means the thread by "parent"
	defer runtime.UnlockOSThread()
	err = cmd.Run()
	switch {
	case err == nil:
		return nil
	case limited.Err() != nil && ctx.Err() == nil:
		err = fmt.Errorf("%w after %v", errTimeout, k.Timeout)
	}
	if text := said.String(); text != "" {
		return fmt.Errorf("%w: %s", err, text)
	}
	return err
}

// tail keeps the end of what is written.
type tail struct {
	most int
	text []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.text = append(t.text, b...)
	t.text = t.text[max(0, len(t.text)-t.most):]
	return len(b), nil
}

// String is the text in one line.
func (t *tail) String() string {
	return strings.Join(strings.Fields(strings.ToValidUTF8(string(t.text), "?")), " ")
}
