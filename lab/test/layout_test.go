package lab_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// TestForeignLayoutIsRefused starts a daemon that was built for another layout of the tables over tables that are in
// use: it must say so and touch nothing, and the right daemon must find everything in place.
func TestForeignLayoutIsRefused(t *testing.T) {
	s := up(t, lab.Options{})
	h11, h21 := s.H("h11"), s.H("h21")
	reach(t, s, [2]*lab.Host{h11, h21}, [2]*lab.Host{h21, h11})
	list := flows(s, h11, h21, 2000)
	g := s.GW[lab.DC1]
	g.Stop()
	right := g.Bins
	g.Bins = otherLayout(t)
	g.Start()
	if err := g.Daemon.Wait(10 * time.Second); err == nil || g.Daemon.Running() {
		t.Errorf("a daemon of another layout: %v%s", err, g.Daemon.Tail(20))
	}
	if said := g.Daemon.Output(); !strings.Contains(said, "version") && !strings.Contains(said, "layout") {
		t.Errorf("a daemon of another layout said only: %s", said)
	} else {
		t.Logf("refused: %s", said)
	}
	progress(list, 200)
	g.Bins = right
	g.Start()
	g.AwaitReady()
	progress(list, 200)
	lossless(t, s, list, 62, "a daemon of another layout")
}

// otherLayout builds the programs as if bpf/abi.h had another version.
func otherLayout(t *testing.T) lab.Binaries {
	t.Helper()
	source := filepath.Join(lab.Root(), "maps", "types.go")
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	const version = "uint32(datapathAbiABI_VERSION)"
	if !strings.Contains(string(text), version) {
		t.Fatalf("%s no longer defines the layout's version as %s: adapt this test", source, version)
	}
	dir := t.TempDir()
	replaced := filepath.Join(dir, "types.go")
	if err := os.WriteFile(replaced, []byte(strings.Replace(string(text), version, version+" + 1", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	overlay, _ := json.Marshal(map[string]any{"Replace": map[string]string{source: replaced}})
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	bins, err := lab.Build(dir, "other", "-overlay", file)
	if err != nil {
		t.Fatal(err)
	}
	return bins
}
