package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"roam/loader/api"
)

// routeWatch prints what wins, and every change of it. Nothing can be aligned with what is yet to come, so lines are words.
func routeWatch(c *cli.Context) error {
	query := api.RoutesQuery{Tenant: c.String("tenant"), Source: c.String("source")}
	if within := c.String("within"); within != "" {
		var err error
		if query.Within, err = api.ParsePrefix(within); err != nil {
			return usage("", "--within: %v", err)
		}
	}
	err := client(c).Watch(c.Context, query, func(line []byte, change api.RouteChange) error {
		if asJSON(c) {
			_, err := fmt.Fprintf(c.App.Writer, "%s\n", line)
			return err
		}
		_, err := fmt.Fprintln(c.App.Writer, changeText(change))
		return err
	})
	switch {
	case errors.Is(err, context.Canceled):
		return nil // that is how it is meant to end
	case err == nil:
		return errors.New("the daemon has ended")
	}
	return err
}

func changeText(r api.RouteChange) string {
	switch {
	case r.Action == api.WatchBegin && r.Missed > 0:
		return fmt.Sprintf("begin  %d changes came faster than they were read", r.Missed)
	case r.Action == api.WatchBegin, r.Action == api.WatchSynced:
		return r.Action
	case r.Action == api.WatchGone:
		return fmt.Sprintf("gone   %s  %s", r.Prefix, r.Tenant)
	}
	text := fmt.Sprintf("set    %s  %s  %s  by %s", r.Prefix, r.Tenant, via(r.Via, r.Local, r.Reject), r.Source)
	if r.Site != "" {
		text += "  at " + r.Site
	}
	if r.Sequence != 0 {
		text += fmt.Sprintf("  sequence %d", r.Sequence)
	}
	if r.Pinned {
		text += "  pinned"
	}
	return text
}
