package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/urfave/cli/v2"

	"roam/loader/api"
)

func countersCommand() *cli.Command {
	return command("counters", "what happened to packets, by port and reason", "", func(c *cli.Context) error {
		counters, err := ask(c, func(d *api.Client) (api.Counters, error) { return d.Counters(c.Context) }, pins.Counters)
		if err != nil {
			return err
		}
		return show(c, counters, func(w io.Writer) { countersTable(w, &counters, c.Bool("all")) })
	}, &cli.BoolFlag{Name: "all", Usage: "with those that are zero"})
}

func countersTable(w io.Writer, n *api.Counters, all bool) {
	reasons := slices.DeleteFunc(slices.Clone(n.Reasons), func(r api.ReasonCount) bool { return !all && r.Packets == 0 })
	slices.SortStableFunc(reasons, func(a, b api.ReasonCount) int { return cmp.Compare(a.Port, b.Port) })
	if n.Shadow {
		fmt.Fprintln(w, "in shadow mode: what would have happened")
		fmt.Fprintln(w)
	}
	row(w, "PORT", "VERDICT", "REASON", "PACKETS", "BYTES")
	for _, r := range reasons {
		row(w, r.Port, r.Verdict, r.Reason, r.Packets, r.Bytes)
	}
	fmt.Fprintln(w)
	row(w, "LOCATOR", "PACKETS", "BYTES")
	for _, l := range n.Locators {
		if all || l.Packets > 0 {
			row(w, l.Locator, l.Packets, l.Bytes)
		}
	}
	if len(n.Refused) == 0 {
		return
	}
	fmt.Fprintln(w)
	row(w, "PORT", "REFUSED BY THE DRIVER")
	for _, r := range n.Refused {
		row(w, r.Port, r.Packets)
	}
}
