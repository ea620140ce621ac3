package main

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/urfave/cli/v2"

	"roam/loader/api"
)

func hostCommand() *cli.Command {
	return noun("host", "where each host lives",
		command("list", "every known host", "", hostList, tenantFlag()),
		command("show", "one host", "ADDRESS", hostShow, tenantFlag()),
		moveCommand(),
		command("clear", "free a host that is frozen because it moved too often", "ADDRESS", hostClear, tenantFlag()),
	)
}

// moveCommand takes one address, or a plan in its place.
func moveCommand() *cli.Command {
	one := command("move", "say where a host lives from now on; destination first, then the site it left", "ADDRESS", hostMove,
		tenantFlag(), &cli.StringFlag{Name: "to", Usage: "to `SITE`, a configured one or the daemon's own"},
		&cli.StringFlag{Name: "plan", Usage: "the hosts of a plan in `FILE`, YAML or .csv, in waves; without --yes only says what would happen"},
		&cli.StringSliceFlag{Name: "ask", Usage: "also ask the gateway of a site what it says of the moves there, as `SITE=SOCKET` (repeatable)"},
		&cli.BoolFlag{Name: "yes", Usage: "carry the plan out"},
		&cli.BoolFlag{Name: "undo", Usage: "take back whatever was moved by the plan, the last first; without --yes only says what would happen"},
		&cli.StringFlag{Name: "journal", Usage: "keep in `FILE` what hosts were before, in place of PLAN.SITE.undo"},
		&cli.IntFlag{Name: "wave", Usage: "move at most `N` hosts of a plan at once", Value: 100},
		&cli.DurationFlag{Name: "wait", Usage: "take a wave back that is not right after `TIME`", Value: 10 * time.Second})
	alone := one.Action
	one.Action = func(c *cli.Context) error {
		if c.String("plan") == "" {
			for _, name := range []string{"undo", "ask", "journal"} {
				if c.IsSet(name) {
					return usage("name it with --plan FILE; a host alone is moved back by --to SITE", "--%s is of a plan", name)
				}
			}
			return alone(c)
		}
		if c.NArg() > 0 || c.String("to") != "" || c.String("tenant") != "" {
			return usage("the plan names hosts, tenants and sites: "+planHint, "--plan takes no ADDRESS, --to or --tenant beside it")
		}
		if c.Bool("undo") {
			return undoMoves(c)
		}
		return planMoves(c)
	}
	return one
}

func hostList(c *cli.Context) error {
	out := newList(c, "ADDRESS", "TENANT", "STATE", "SITE", "VIA", "MAC", "SOURCE", "AGE")
	return out.end(client(c).Hosts(c.Context, c.String("tenant"), func(line []byte) error {
		return out.add(line, func() ([]any, error) {
			h, target, err := out.decode(line)
			return []any{h.Address, h.Tenant, h.State, h.Site, target, h.MAC, h.Source, age(h.AgeSeconds)}, err
		})
	}))
}

func hostShow(c *cli.Context) error {
	a, err := addressArgument(c, 0)
	if err != nil {
		return err
	}
	h, err := client(c).Host(c.Context, a, c.String("tenant"))
	if err != nil {
		return err
	}
	return show(c, h, func(w io.Writer) {
		for _, line := range [...]struct {
			name  string
			value any
		}{
			{"address", h.Address},
			{"tenant", h.Tenant},
			{"state", h.State + until(h.Until)},
			{"site", h.Site},
			{"here", yes(h.Here)},
			{"via", via(h.Via, h.Local, false)},
			{"mac", h.MAC},
			{"source", h.Source},
			{"sequence", h.Sequence},
			{"pinned", yes(h.Pinned)},
			{"designated", cmp.Or(h.Designated, "-")},
			{"since", age(h.AgeSeconds) + " ago"},
		} {
			row(w, line.name, line.value)
		}
		for _, e := range h.History {
			row(w, e.Time.Local().Format(time.DateTime), sentence(e))
		}
	})
}

// until says when a frozen host recovers.
func until(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format(" until " + time.DateTime)
}

func sentence(e api.Event) string {
	if e.Why == "" {
		return e.What
	}
	return e.What + ": " + e.Why
}

func hostClear(c *cli.Context) error {
	a, err := addressArgument(c, 0)
	if err != nil {
		return err
	}
	if err := client(c).Clear(c.Context, api.Clear{Address: a, Tenant: c.String("tenant")}); err != nil {
		return err
	}
	return done(c, "%s is free to move", a)
}

func hostMove(c *cli.Context) error {
	a, err := addressArgument(c, 0)
	if err != nil {
		return err
	}
	if c.String("to") == "" {
		return usage("usage: roamctl host move ADDRESS --to SITE", "no site is named to move to")
	}
	err = client(c).Move(c.Context, api.Move{Address: a, Tenant: c.String("tenant"), To: c.String("to")})
	if err != nil {
		return err
	}
	return done(c, "%s lives at %s", a, c.String("to"))
}

// addressArgument reads an address from the command line.
func addressArgument(c *cli.Context, i int) (netip.Addr, error) {
	a, err := netip.ParseAddr(c.Args().Get(i))
	if err != nil || a.Zone() != "" {
		return a, usage("write one such as 10.1.0.7 or 2001:db8:1::7", "%q is no address", c.Args().Get(i))
	}
	return a.Unmap(), nil
}

// done confirms a change, in words or as JSON.
func done(c *cli.Context, format string, args ...any) error {
	sentence := fmt.Sprintf(format, args...)
	return show(c, map[string]string{"done": sentence}, func(w io.Writer) { fmt.Fprintln(w, sentence) })
}
