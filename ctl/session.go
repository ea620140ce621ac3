package main

import (
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

func sessionCommand() *cli.Command {
	return noun("session", "the neighbours of routing protocols, and the locators that are watched",
		command("list", "every session, and how it fares", "", func(c *cli.Context) error {
			sessions, err := client(c).Sessions(c.Context)
			if err != nil {
				return err
			}
			return show(c, sessions, func(w io.Writer) {
				row(w, "PROTOCOL", "NEIGHBOR", "LOCAL", "ASN", "STATE", "SINCE", "FAMILIES", "RECEIVED", "TAKEN", "FLAPS", "WHY")
				for _, s := range sessions {
					row(w, s.Protocol, s.Neighbor, unlessZero(s.Local), unlessZero(s.ASN), s.State, age(s.AgeSeconds), strings.Join(s.Families, ","),
						s.Received, s.Taken, s.Flaps, s.Why)
				}
			})
		}))
}

// unlessZero leaves the cell empty where a value says nothing.
func unlessZero[T comparable](v T) any {
	var zero T
	if v == zero {
		return ""
	}
	return v
}
