package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"
)

// runScreen shows rates until its reader has seen enough.
func runScreen(ctx context.Context, keys io.Reader, to *os.File, every time.Duration, look func() (sample, error)) error {
	first, err := look()
	if err != nil {
		return err // said in words, not on a screen that goes at once
	}
	s := screen{before: first, every: every, look: look}
	_, err = tea.NewProgram(s, tea.WithContext(ctx), tea.WithInput(keys), tea.WithOutput(to)).Run()
	if errors.Is(err, tea.ErrInterrupted) || errors.Is(err, tea.ErrProgramKilled) && ctx.Err() != nil {
		return nil
	}
	return err
}

// screen is the model of bubbletea: a sample, what came of the next one, and the room that there is.
type screen struct {
	width, height int
	before        sample
	shown         *rates // nil until there are two samples
	err           error  // the daemon does not answer at the moment
	every         time.Duration
	look          func() (sample, error)
}

type looked struct {
	sample
	err error
}

// Init implements tea.Model.
func (s screen) Init() tea.Cmd { return s.next() }

func (s screen) next() tea.Cmd {
	return tea.Tick(s.every, func(time.Time) tea.Msg {
		now, err := s.look()
		return looked{now, err}
	})
}

// Update implements tea.Model.
func (s screen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		s.width, s.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		switch msg.String() {
		case "q", "esc", "ctrl+c":
			return s, tea.Quit
		}
	case looked:
		if s.err = msg.err; s.err == nil {
			r := ratesOf(s.before, msg.sample)
			s.shown, s.before = &r, msg.sample
		}
		return s, s.next()
	}
	return s, nil
}

// View implements tea.Model.
func (s screen) View() tea.View {
	v := tea.NewView(strings.Join(s.fit(), "\n"))
	v.AltScreen = true
	return v
}

var (
	headStyle = lipgloss.NewStyle().Bold(true)
	badStyle  = lipgloss.NewStyle().Foreground(lipgloss.Red)
	dimStyle  = lipgloss.NewStyle().Faint(true)
)

// fit cuts what there is to show to the room that there is, and says what it left out.
func (s screen) fit() []string {
	lines := []string{"measuring …"}
	if s.shown != nil {
		lines = s.shown.lines()
	}
	last := "q quits"
	if s.err != nil {
		last = fmt.Sprintf("%v: trying again; what is shown is old", s.err)
	}
	if room := s.height - 1; s.height > 0 && len(lines) > room {
		lines = lines[:max(room, 0)]
		last = "enlarge the window for more; " + last
	}
	for i, line := range lines {
		if s.width > 0 {
			line = ansi.Truncate(line, s.width, "…")
		}
		lines[i] = style(line, i == 0)
	}
	if s.width > 0 {
		last = ansi.Truncate(last, s.width, "…")
	}
	return append(lines, dimStyle.Render(last))
}

func style(line string, first bool) string {
	switch {
	case strings.HasPrefix(line, "drop_"):
		return badStyle.Render(line)
	case first, strings.HasPrefix(line, "PORT "), strings.HasPrefix(line, "LOCATOR "), strings.HasPrefix(line, "REASON "), line == "WARNINGS":
		return headStyle.Render(line)
	}
	return line
}
