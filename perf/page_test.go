package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestPageKeepsWhatIsWrittenByHand(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	write := func(text string) {
		if err := os.WriteFile(page, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("before\n<!-- bench: goals -->\nold\n<!-- bench: end -->\nbetween\n<!-- bench: control -->\n<!-- bench: end -->\nafter\n")
	r := measured()
	for range 2 { // a second time changes nothing
		if err := r.writePage(page); err != nil {
			t.Fatal(err)
		}
	}
	raw, _ := os.ReadFile(page)
	text := string(raw)
	for _, want := range []string{"before\n<!-- bench: goals -->\n\n| figure |", "<!-- bench: end -->\nbetween\n<!-- bench: control -->", "\nafter\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "old") || strings.Count(text, "| figure |") != 1 {
		t.Errorf("old pieces stay:\n%s", text)
	}
	write("<!-- bench: weather -->\n<!-- bench: end -->\n")
	if err := r.writePage(page); err == nil || !strings.Contains(err.Error(), `"weather"`) {
		t.Errorf("a piece that nobody makes: %v", err)
	}
}

// The page of the project has only pieces that a run can make.
func TestPageOfTheProject(t *testing.T) {
	text, err := os.ReadFile("../docs/performance.md")
	if err != nil {
		t.Fatal(err)
	}
	page := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(page, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := measured().writePage(page); err != nil {
		t.Error(err)
	}
	if n := strings.Count(string(text), "<!-- bench: end -->"); n != len(generated.FindAll(text, -1)) || n < 5 {
		t.Errorf("%d pieces end, %d are whole", n, len(generated.FindAll(text, -1)))
	}
}

func TestLinesAreBenchmarks(t *testing.T) {
	line := regexp.MustCompile(`^Benchmark\S+ 1 [0-9.e+-]+ \S+$`)
	n := 0
	for l := range strings.Lines(measured().lines()) {
		if !strings.HasPrefix(l, "Benchmark") {
			continue
		}
		if n++; !line.MatchString(strings.TrimSpace(l)) {
			t.Errorf("no benchmark line: %q", l)
		}
	}
	if n != 4*3+3*3 {
		t.Errorf("%d lines", n)
	}
}
