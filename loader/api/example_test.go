package api_test

import (
	"bufio"
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"roam/loader/api/apitest"
)

// The program of docs/examples does what it says, with a daemon on the other side of a real socket.
func TestExample(t *testing.T) {
	program := filepath.Join(t.TempDir(), "routes")
	if out, err := exec.Command("go", "build", "-o", program, "roam/docs/examples/routes").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	d := &apitest.Daemon{}
	socket, _ := serve(t, d)
	follow := exec.CommandContext(t.Context(), program, socket, "watch")
	out, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = follow.Process.Kill()
		_ = follow.Wait()
	}()
	said := bufio.NewScanner(out)
	expectLine := func(want string) {
		t.Helper()
		if !said.Scan() || strings.Join(strings.Fields(said.Text()), " ") != want {
			t.Fatalf("watch says %q, want %q", said.Text(), want)
		}
	}
	expectLine("begin : 0 routes")
	expectLine("synced : 0 routes")

	feed := exec.CommandContext(t.Context(), program, socket, "put")
	feed.Stdin = strings.NewReader(`{"prefix":"10.1.0.7","via":["192.0.2.2"]}
{"prefix":"10.1.0.300","via":["192.0.2.2"]}
{"prefix":"10.1.0.8","via":["192.0.2.2"]}
`)
	var log bytes.Buffer
	feed.Stderr = &log
	if err := feed.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	for _, want := range []string{`line 2 is refused: "10.1.0.300" is no prefix`, "3 lines: 2 added, 0 removed, 1 refused"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("put does not say %q:\n%s", want, &log)
		}
	}
	expectLine("set 10.1.0.7/32 api: 1 routes")
	expectLine("set 10.1.0.8/32 api: 2 routes")
	feed = exec.CommandContext(t.Context(), program, socket, "put")
	feed.Stdin = strings.NewReader(`{"prefix":"10.1.0.7","withdraw":true}` + "\n")
	if err := feed.Run(); err != nil {
		t.Fatal(err)
	}
	expectLine("gone 10.1.0.7/32 : 1 routes")
}
