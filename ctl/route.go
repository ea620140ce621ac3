package main

import (
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"roam/loader/api"
	"roam/loader/route"
)

func routeCommand() *cli.Command {
	return noun("route", "what is known, and what is injected",
		command("add", "inject a route, in place of an earlier one for the prefix", "PREFIX", routeAdd,
			&cli.StringSliceFlag{Name: "via", Usage: "to `LOCATOR`: an address, then perhaps ,encap=E ,priority=N ,weight=N ,router_mac=M (repeatable)"},
			&cli.StringFlag{Name: "site", Usage: "to the locators of the configured `SITE`"},
			&cli.StringFlag{Name: "mac", Usage: "the host's `MAC` address"},
			&cli.BoolFlag{Name: "pinned", Usage: "the route never moves by itself"},
			tenantFlag()),
		command("del", "withdraw an injected route", "PREFIX", routeDel, tenantFlag()),
		command("flush", "withdraw every injected route", "", routeFlush),
		command("list", "what every source says; * marks what won", "", routeList,
			tenantFlag(),
			&cli.StringFlag{Name: "source", Usage: "of `SOURCE` only"},
			&cli.StringFlag{Name: "site", Usage: "to `SITE` only"},
			&cli.StringFlag{Name: "within", Usage: "equal to or inside `PREFIX` only"},
			&cli.BoolFlag{Name: "best", Usage: "what won only"}),
		command("get", "which routes cover an address, and which won", "ADDRESS", routeGet, tenantFlag()),
		command("watch", "what wins, and every change of it, until interrupted; JSON comes as lines", "", routeWatch,
			tenantFlag(),
			&cli.StringFlag{Name: "source", Usage: "won by `SOURCE` only"},
			&cli.StringFlag{Name: "within", Usage: "equal to or inside `PREFIX` only"}),
		command("import", "inject the routes of a file, - for standard input: all or nothing", "FILE", routeImport,
			formatFlag(), &cli.BoolFlag{Name: "progress", Usage: "show progress also where standard error is no terminal"},
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "inject and withdraw line by line as the list grows, also over restarts of the daemon; a wrong line is named"},
			&cli.StringFlag{Name: "at-end", Value: "keep", Usage: "with --follow: `keep or withdraw` what the list has put when it ends"}),
		command("export", "write the injected routes as import takes them", "", routeExport, formatFlag(), tenantFlag()),
	)
}

func formatFlag() cli.Flag {
	return &cli.StringFlag{Name: "format", Usage: "`FORMAT` of the list, csv or jsonl"}
}

func prefixArgument(c *cli.Context) (netip.Prefix, error) {
	p, err := api.ParsePrefix(c.Args().First())
	if err != nil {
		return p, usage("", "%v", err)
	}
	return p, nil
}

func routeAdd(c *cli.Context) error {
	p, err := prefixArgument(c)
	if err != nil {
		return err
	}
	n := api.NewRoute{
		Prefix: p.String(), Tenant: c.String("tenant"), Site: c.String("site"), MAC: c.String("mac"), Pinned: c.Bool("pinned"),
	}
	switch given := len(c.StringSlice("via")); {
	case given == 0 && n.Site == "":
		return usage("give --via LOCATOR, or --site NAME", "%s points nowhere", p)
	case given > 0 && n.Site != "":
		return usage("give one of them", "both --via and --site say where %s points to", p)
	}
	for _, text := range c.StringSlice("via") {
		l, err := parseLocator(text)
		if err != nil {
			return usage("write it like 192.0.2.2,encap=vxlan,priority=1,weight=100", "locator %q: %v", text, err)
		}
		n.Via = append(n.Via, l)
	}
	if _, err := route.ParseMAC(n.MAC); err != nil {
		return usage("", "%v", err)
	}
	if err := client(c).Add(c.Context, n); err != nil {
		return err
	}
	return done(c, "added %s", p)
}

// parseLocator reads ADDRESS[,encap=E][,priority=N][,weight=N][,router_mac=M].
func parseLocator(text string) (api.Locator, error) {
	l := api.Locator{Encap: route.VXLAN.String(), Priority: route.DefaultPriority, Weight: route.DefaultWeight}
	address, options, _ := strings.Cut(text, ",")
	var err error
	if l.Address, err = netip.ParseAddr(address); err != nil {
		return l, fmt.Errorf("%q is no address", address)
	}
	for option := range strings.SplitSeq(options, ",") {
		name, value, _ := strings.Cut(option, "=")
		switch {
		case options == "":
		case value == "":
			err = fmt.Errorf("%q is not NAME=VALUE", option)
		case name == "encap":
			l.Encap = value
		case name == "priority":
			l.Priority, err = parseByte(value)
		case name == "weight":
			l.Weight, err = parseByte(value)
		case name == "router_mac":
			l.RouterMAC = value
		default:
			err = fmt.Errorf("%q is unknown: use encap, priority, weight or router_mac", name)
		}
		if err != nil {
			return l, err
		}
	}
	_, err = l.Route()
	return l, err
}

func parseByte(s string) (uint8, error) {
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("%q is no number from 0 to 255", s)
	}
	return uint8(n), nil
}

func routeDel(c *cli.Context) error {
	p, err := prefixArgument(c)
	if err != nil {
		return err
	}
	if err := client(c).Remove(c.Context, p, c.String("tenant")); err != nil {
		return err
	}
	return done(c, "withdrew %s", p)
}

func routeFlush(c *cli.Context) error {
	n, err := client(c).Flush(c.Context)
	if err != nil {
		return err
	}
	return done(c, "withdrew %d routes", n.Removed)
}

func routeList(c *cli.Context) error {
	query := api.RoutesQuery{Tenant: c.String("tenant"), Source: c.String("source"), Site: c.String("site"), Best: c.Bool("best")}
	if within := c.String("within"); within != "" {
		var err error
		if query.Within, err = api.ParsePrefix(within); err != nil {
			return usage("", "--within: %v", err)
		}
	}
	out := newList(c, routeHeader...)
	return out.end(client(c).Routes(c.Context, query, func(line []byte) error {
		return out.add(line, func() ([]any, error) {
			r, target, err := out.decode(line)
			return routeCells(r.Best, r.Prefix, r.Tenant, target, r.Source, r.Pinned, r.Site, r.Sequence, r.AgeSeconds), err
		})
	}))
}

var routeHeader = []any{"BEST", "PREFIX", "TENANT", "VIA", "SOURCE", "SITE", "SEQUENCE", "AGE"}

func routeCells(best bool, prefix, tenant, target, source string, pinned bool, site string, sequence uint32, seconds float64) []any {
	mark := " "
	if best {
		mark = "*"
	}
	if pinned {
		source += ",pinned"
	}
	return []any{mark, prefix, tenant, target, source, site, sequence, age(seconds)}
}

func routeGet(c *cli.Context) error {
	a, err := addressArgument(c, 0)
	if err != nil {
		return err
	}
	found, err := client(c).Lookup(c.Context, a, c.String("tenant"))
	if err != nil {
		return err
	}
	if len(found.Routes) == 0 && !asJSON(c) {
		return &api.Error{
			Message: fmt.Sprintf("no route covers %s in tenant %s", a, found.Tenant),
			Hint:    "roamctl route list shows what is known; the kernel's own routes decide",
		}
	}
	return show(c, found, func(w io.Writer) {
		row(w, append(routeHeader[:len(routeHeader):len(routeHeader)], "PREFERENCE")...)
		for _, r := range found.Routes {
			target := via(r.Via, r.Local, r.Reject)
			cells := routeCells(r.Best, r.Prefix.String(), r.Tenant, target, r.Source, r.Pinned, r.Site, r.Sequence, r.AgeSeconds)
			row(w, append(cells, r.Preference)...)
		}
		if why := found.Routes[0].Why; why != "" {
			fmt.Fprintf(w, "\n%s\n", why)
		}
	})
}
