package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"roam/loader/api"
)

func siteCommand() *cli.Command {
	return noun("site", "the sites and their locators",
		command("list", "every site with its locators, how they fare, and their load", "", func(c *cli.Context) error {
			sites, err := client(c).Sites(c.Context)
			if err != nil {
				return err
			}
			return show(c, sites, func(w io.Writer) {
				row(w, "SITE", "OWN", "HOSTS", "LOCATOR", "ENCAP", "PRIORITY", "WEIGHT", "STATE", "MTU", "PROBE", "RTT", "PACKETS", "BYTES")
				for _, s := range sites {
					for _, l := range s.Locators {
						row(w, s.Name, yes(s.Own), s.Hosts, locator(&l), l.Encap, l.Priority, l.Weight, l.State, mtu(&l), l.Probe, millis(l.RoundTrip), l.Packets, l.Bytes)
					}
				}
			})
		}))
}

// locator shows both addresses of one behind NAT.
func locator(l *api.SiteLocator) string {
	if l.Inside.IsValid() {
		return fmt.Sprintf("%s (%s inside)", l.Address, l.Inside)
	}
	return l.Address.String()
}

// mtu marks one that was found, as not every size that should pass does.
func mtu(l *api.SiteLocator) string {
	if l.MTUHole {
		return fmt.Sprintf("%d (hole)", l.MTU)
	}
	return fmt.Sprint(l.MTU)
}

// millis is a time as ping prints it, "" for none.
func millis(seconds float64) string {
	if seconds == 0 {
		return ""
	}
	return fmt.Sprintf("%.3fms", 1000*seconds)
}
