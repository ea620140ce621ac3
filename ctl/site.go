package main

import (
	"io"

	"github.com/urfave/cli/v2"
)

func siteCommand() *cli.Command {
	return noun("site", "the sites and their locators",
		command("list", "every site with its locators, how they fare, and their load", "", func(c *cli.Context) error {
			sites, err := client(c).Sites(c.Context)
			if err != nil {
				return err
			}
			return show(c, sites, func(w io.Writer) {
				row(w, "SITE", "OWN", "HOSTS", "LOCATOR", "ENCAP", "PRIORITY", "WEIGHT", "STATE", "MTU", "PACKETS", "BYTES")
				for _, s := range sites {
					for _, l := range s.Locators {
						row(w, s.Name, yes(s.Own), s.Hosts, l.Address, l.Encap, l.Priority, l.Weight, l.State, l.MTU, l.Packets, l.Bytes)
					}
				}
			})
		}))
}
