package main

import (
	"fmt"
	"os"
	"strings"
)

// page prints what happens and keeps account of claims. It is the lab's idea of a test (lab.TB): what cannot be done
// ends the page by a panic that show recovers, after everything was cleaned up.
type page struct {
	failed bool
	undo   []func()
}

// stopped is the panic of a page that cannot go on.
type stopped struct{}

// title begins a part.
func (p *page) title(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	fmt.Printf("\n%s\n%s\n", text, strings.Repeat("=", len(text)))
}

// say prints a line under a heading; lines of text are indented to it.
func (p *page) say(heading, format string, args ...any) {
	text := strings.ReplaceAll(strings.TrimRight(fmt.Sprintf(format, args...), "\n"), "\n", "\n               ")
	fmt.Printf("  %-12s %s\n", heading, text)
}

// claim prints a line that must be true.
func (p *page) claim(holds bool, heading, format string, args ...any) {
	verdict := "  [ok]"
	if !holds {
		verdict = "  [FAILED]"
		p.failed = true
	}
	p.say(heading, "%s%s", fmt.Sprintf(format, args...), verdict)
}

func (p *page) close() {
	for i := len(p.undo) - 1; i >= 0; i-- {
		p.undo[i]()
	}
	p.undo = nil
}

// Helper, Logf, Fatalf, Failed and Cleanup make a page a lab.TB.
func (p *page) Helper() {}

// Logf prints trouble that does not end the demo.
func (p *page) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// Fatalf prints trouble and ends the page.
func (p *page) Fatalf(format string, args ...any) {
	p.failed = true
	fmt.Printf("  FAILED       %s\n", fmt.Sprintf(format, args...))
	panic(stopped{})
}

// Failed reports whether a claim did not hold.
func (p *page) Failed() bool { return p.failed }

// Cleanup has f run when the page is closed.
func (p *page) Cleanup(f func()) { p.undo = append(p.undo, f) }
