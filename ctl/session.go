package main

import (
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

func sessionCommand() *cli.Command {
	return noun("session", "the neighbours of routing protocols",
		command("list", "every session, and how it fares", "", func(c *cli.Context) error {
			sessions, err := client(c).Sessions(c.Context)
			if err != nil {
				return err
			}
			return show(c, sessions, func(w io.Writer) {
				row(w, "PROTOCOL", "NEIGHBOR", "ASN", "STATE", "SINCE", "FAMILIES", "RECEIVED", "TAKEN", "FLAPS", "WHY")
				for _, s := range sessions {
					row(w, s.Protocol, s.Neighbor, s.ASN, s.State, age(s.AgeSeconds), strings.Join(s.Families, ","),
						s.Received, s.Taken, s.Flaps, s.Why)
				}
			})
		}))
}
