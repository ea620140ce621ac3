package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"roam/loader/api"
)

func statusCommand() *cli.Command {
	return command("status", "how the daemon fares: ports, tables, sources, warnings", "", func(c *cli.Context) error {
		s, err := ask(c, func(d *api.Client) (api.Status, error) { return d.Status(c.Context) }, pins.Status)
		if err != nil {
			return err
		}
		return show(c, s, func(w io.Writer) { statusTables(w, &s) })
	})
}

func statusTables(w io.Writer, s *api.Status) {
	fmt.Fprintf(w, "roamd %s at site %s%s, process %d, up %s\n", s.Version, s.Site, inShadow(s.Shadow), s.PID, age(s.UptimeSeconds))
	fmt.Fprintln(w)
	row(w, "PORT", "VLAN", "ROLES", "MODE", "MTU", "STATE")
	for _, p := range s.Ports {
		state := "attached"
		if p.Error != "" {
			state = p.Error
		}
		row(w, p.Interface, p.VLAN, strings.Join(p.Roles, ","), p.Mode, p.MTU, state)
	}
	fmt.Fprintln(w)
	row(w, "TABLE", "ENTRIES", "CAPACITY", "FULL")
	for _, t := range s.Tables {
		full := "-"
		if t.Capacity > 0 {
			full = fmt.Sprintf("%.1f%%", 100*float64(t.Entries)/float64(t.Capacity))
		}
		row(w, t.Name, t.Entries, t.Capacity, full)
	}
	fmt.Fprintln(w)
	row(w, "SOURCE", "UP", "SYNCED", "ROUTES", "CHANGES", "ERROR")
	for _, o := range s.Sources {
		row(w, o.Name, yes(o.Up), yes(o.Synced), o.Routes, o.Changes, o.Error)
	}
	fmt.Fprintln(w)
	row(w, "TENANT", "ID", "VNI", "SEGMENTS")
	for _, t := range s.Tenants {
		row(w, t.Name, t.ID, t.VNI, strings.Join(t.Segments, ","))
	}
	if len(s.Segments) > 0 {
		fmt.Fprintln(w)
		segmentTable(w, s.Segments)
	}
	if len(s.Warnings) > 0 {
		fmt.Fprintln(w)
		fmt.Fprintln(w, "WARNINGS")
		for _, warning := range s.Warnings {
			fmt.Fprintln(w, "  "+warning)
		}
	}
}

// segmentTable says who answers on each segment, of the gateways that are heard there.
func segmentTable(w io.Writer, segments []api.Segment) {
	row(w, "SEGMENT", "STATE", "SINCE", "DESIGNATED", "RANK", "OTHERS")
	for _, s := range segments {
		who, rank, others := "-", "-", 0
		for _, g := range s.Gateways {
			if g.Own {
				rank = g.Rank
			} else {
				others++
			}
			switch {
			case g.Designated && g.Own:
				who = "this gateway"
			case g.Designated && g.Address.IsValid():
				who = g.Address.String()
			case g.Designated:
				who = g.MAC
			}
		}
		row(w, s.Name, s.State, age(s.SinceSeconds), who, rank, others)
	}
}

// inShadow says that all that is told did not happen.
func inShadow(shadow bool) string {
	if shadow {
		return ", in shadow mode: it does nothing"
	}
	return ""
}
