package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"roam/loader/api"
	"roam/loader/event"
)

func eventsCommand() *cli.Command {
	return command("events", "what happened: moves, claims, locators, ports, sources, reloads", "", func(c *cli.Context) error {
		kinds := c.StringSlice("kind")
		for _, k := range kinds {
			if !slices.Contains(event.Kinds, event.Kind(k)) {
				return usage("known are: "+kindNames(), "%q is no kind of event", k)
			}
		}
		if c.Bool("follow") {
			err := client(c).Events(c.Context, 0, true, func(e api.Event) error { return follow(c, kinds, e) })
			if errors.Is(err, context.Canceled) {
				return nil // that is how it is meant to end
			}
			return err
		}
		l := newList(c, "TIME", "KIND", "WHAT", "WHY", "DO")
		return l.end(client(c).Events(c.Context, 0, false, func(e api.Event) error {
			if !chosen(kinds, e) {
				return nil
			}
			line, err := json.Marshal(e)
			if err != nil {
				return err
			}
			return l.add(line, func() ([]any, error) { return []any{clock(e), e.Kind, e.What, e.Why, e.Do}, nil })
		}))
	},
		&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with what happens from now on; JSON comes as lines then"},
		&cli.StringSliceFlag{Name: "kind", Usage: "only events of this `KIND`, such as move; may be repeated"})
}

func kindNames() string {
	var names []string
	for _, k := range event.Kinds {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

func chosen(kinds []string, e api.Event) bool {
	return len(kinds) == 0 || slices.Contains(kinds, string(e.Kind))
}

// clock is when an event happened, on the clock of who reads it.
func clock(e api.Event) string { return e.Time.Local().Format("2006-01-02 15:04:05.000") }

// follow writes one event of a story that has no end: nothing can be aligned with what is yet to come.
func follow(c *cli.Context, kinds []string, e api.Event) error {
	if !chosen(kinds, e) {
		return nil
	}
	if asJSON(c) {
		return json.NewEncoder(c.App.Writer).Encode(e)
	}
	var line strings.Builder
	fmt.Fprintf(&line, "%s  %s", clock(e), e.What)
	if e.Why != "" {
		fmt.Fprintf(&line, ": %s", e.Why)
	}
	if e.Do != "" {
		fmt.Fprintf(&line, " (do: %s)", e.Do)
	}
	_, err := io.WriteString(c.App.Writer, line.String()+"\n")
	return err
}
