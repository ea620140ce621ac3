package lab_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"roam/lab"
)

var shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

// TestDocumentedCommands runs every command that README and the operations manual show, in a lab where two sites are up: the
// configuration's path is the gateway's own, everything else is as written. The build targets are run by CI itself, and
// are only looked up in the Makefile here.
func TestDocumentedCommands(t *testing.T) {
	s := up(t, lab.Options{})
	g := s.GW[lab.DC1]
	for _, file := range []string{"README.md", "docs/operations.md", "docs/bgp.md"} {
		text, err := os.ReadFile(filepath.Join(lab.Root(), file))
		if err != nil {
			t.Fatal(err)
		}
		blocks := shellBlock.FindAllSubmatch(text, -1)
		if len(blocks) == 0 {
			t.Errorf("%s shows no command", file)
		}
		for _, block := range blocks {
			for line := range strings.Lines(string(block[1])) {
				command, _, _ := strings.Cut(line, "#")
				if command = strings.TrimSpace(command); command != "" {
					documented(t, g, file, command)
				}
			}
		}
	}
}

func documented(t *testing.T, g *lab.Gateway, file, command string) {
	t.Helper()
	words := strings.Fields(strings.NewReplacer("/etc/roam/roamd.yaml", g.ConfigFile(), "/etc/roam/moves.yaml", planFile(t)).Replace(command))
	switch {
	case words[0] == "make":
		makefile, err := os.ReadFile(filepath.Join(lab.Root(), "Makefile"))
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(words[1]) + `:`).Match(makefile) {
			t.Errorf("%s: %s: no such target", file, command)
		}
	case words[0] == "roamctl":
		if _, err := g.Ctl(words[1:]...); err != nil {
			t.Errorf("%s: %s: %v", file, command, err)
		}
	case words[0] == "roamd" && len(words) == 3: // in the foreground: it runs already
	case words[0] == "roamd" && strings.Contains(command, "--detach"):
		g.Stop()
		if out, err := g.Try(g.Bins.Daemon, words[1:]...); err != nil {
			t.Errorf("%s: %s: %v\n%s", file, command, err, out)
		}
		g.Start()
		g.AwaitReady()
	case words[0] == "roamd" && strings.Contains(command, "--shadow"): // until the next that takes it out
		g.Stop()
		if out, err := g.Try(g.Bins.Daemon, "--config", g.ConfigFile(), "--detach"); err != nil {
			t.Errorf("%s: %s: %v\n%s", file, command, err, out)
		}
		g.Daemon = g.Namespace.Start(g.Bins.Daemon, words[1:]...)
		g.AwaitReady()
	case words[0] == "roamd":
		if out, err := g.Try(g.Bins.Daemon, words[1:]...); err != nil {
			t.Errorf("%s: %s: %v\n%s", file, command, err, out)
		}
	default:
		t.Errorf("%s: nothing runs %q", file, command)
	}
}

// planFile is a plan of hosts that live where they are to.
func planFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "moves.yaml")
	if err := os.WriteFile(file, []byte("- {hosts: [10.1.0.22], to: dc2}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

var yamlBlock = regexp.MustCompile("(?s)```yaml\n(site: .*?)```")

// TestDocumentedConfigurations has the daemon check every whole configuration that a document shows.
func TestDocumentedConfigurations(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(lab.Root(), "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, block := range yamlBlock.FindAllSubmatch(text, -1) {
			config := filepath.Join(t.TempDir(), "roamd.yaml")
			if err := os.WriteFile(config, block[1], 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(bins.Daemon, "--check", "--config", config).CombinedOutput(); err != nil {
				t.Errorf("%s, configuration %d: %v\n%s", filepath.Base(file), i+1, err, out)
			}
			checked++
		}
	}
	if checked == 0 {
		t.Error("no document shows a configuration")
	}
}
