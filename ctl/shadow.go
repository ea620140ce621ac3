package main

import (
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/urfave/cli/v2"

	"roam/loader/api"
)

func shadowCommand() *cli.Command {
	return noun("shadow", "what a gateway in shadow mode has seen",
		command("report", "what would not survive a routed move, and who should move together", "", shadowReport,
			&cli.IntFlag{Name: "group", Value: api.DefaultGroup, Usage: "move at most so many hosts (`N`) together"}))
}

func shadowReport(c *cli.Context) error {
	r, err := client(c).Shadow(c.Context, c.Int("group"))
	if err != nil {
		return err
	}
	return show(c, r, func(w io.Writer) { shadowTables(w, &r) })
}

func shadowTables(w io.Writer, r *api.ShadowReport) {
	fmt.Fprintf(w, "shadow: %d hosts seen in %s, %d learned; nothing was sent, answered or changed\n", r.Seen, age(r.Seconds), r.Here)
	fmt.Fprintln(w)
	row(w, "HOST", "TENANT", "MAC", "PORT", "PACKETS", "LARGEST", "WHAT DOES NOT SURVIVE A ROUTED MOVE")
	for i := range r.Obstacles {
		h := &r.Obstacles[i]
		address := ""
		if h.Address.IsValid() {
			address = h.Address.String()
		}
		row(w, address, h.Tenant, h.MAC, h.Port, h.Packets, h.Largest, signs(h.Sends, r.MTU))
	}
	fmt.Fprintln(w)
	row(w, "GROUP", "TENANT", "HOSTS", "PACKETS", "BYTES", "MEMBERS")
	for i := range r.Groups {
		g := &r.Groups[i]
		row(w, i+1, g.Tenant, len(g.Hosts), g.Packets, g.Bytes, members(g.Hosts))
	}
	for _, line := range left(&r.Cut) {
		fmt.Fprintf(w, "\n%s\n", line)
	}
}

func signs(list []api.ShadowSign, mtu int) string {
	var words []string
	for _, s := range list {
		if s.Kind == "too_big" {
			words = append(words, fmt.Sprintf("too_big for %d", mtu))
			continue
		}
		words = append(words, fmt.Sprintf("%s %d", s.Kind, s.Packets))
	}
	return strings.Join(words, ", ")
}

func members(list []netip.Addr) string {
	var words []string
	for _, a := range list {
		words = append(words, a.String())
	}
	return strings.Join(words, " ")
}

// left says what the report does not show.
func left(c *api.ShadowCut) (lines []string) {
	if c.Pairs > 0 {
		lines = append(lines, fmt.Sprintf("%d pairs of hosts with %d bytes are in different groups: larger ones (--group) leave less", c.Pairs, c.Bytes))
	}
	if c.Obstacles+c.Groups > 0 {
		lines = append(lines, fmt.Sprintf("left out: %d hosts and %d groups, less busy than these", c.Obstacles, c.Groups))
	}
	for _, what := range c.Full {
		lines = append(lines, fmt.Sprintf("the table of %s is full: those of longest ago are forgotten", what))
	}
	return lines
}
