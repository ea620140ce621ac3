package lab_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// TestSnoopingSwitch: lan1 snoops MLD and gives a neighbour solicitation to ports with a listener only. The gateway listens for the hosts of the other
// site, in both versions, and no longer for one that came home. Without that, which the switch is made to believe, nobody reaches them.
func TestSnoopingSwitch(t *testing.T) {
	s := lab.NewSites(t, bins, lab.Options{})
	gw1, h11, h21 := s.GW[lab.DC1], s.H("h11"), s.H("h21")
	s.Switch.Sysctl("net.ipv6.conf.lan1.disable_ipv6", "0") // a querier has an address
	s.Switch.IP("link set lan1 type bridge mcast_snooping 1 mcast_querier 1 mcast_mld_version 2 mcast_query_interval 300 " +
		"mcast_query_response_interval 100 mcast_startup_query_interval 100 mcast_last_member_interval 20")
	capture := s.Switch.Capture("gw1-lan", "ip6")
	s.Up()

	const group = "ff02::1:ff00:21" // of h21
	listed := func(what string) bool {
		return regexp.MustCompile(what).MatchString(s.Switch.Run("bridge", "-d", "mdb", "show", "dev", "lan1"))
	}
	until := func(what string, want bool) {
		t.Helper()
		s.Until(20*time.Second, fmt.Sprintf("%q is listed: %t", what, want), func() error {
			if listed(what) != want {
				return fmt.Errorf("%s", s.Switch.Run("bridge", "-d", "mdb", "show", "dev", "lan1"))
			}
			return nil
		})
	}
	asks := func() error {
		h11.Run("ip", "-6", "neigh", "flush", "dev", "eth0")
		out, err := h11.Try("ping", "-n", "-c", "1", "-W", "1", h21.IP6.String())
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	}

	const router, entry = `router ports on lan1:.* gw1-lan`, `port gw1-lan grp ` + group + ` `
	until(router, true)
	s.Switch.Run("bridge", "link", "set", "dev", "gw1-lan", "mcast_router", "0") // as a switch that does not know RFC 4286
	until(router, false)
	until(`port gw1-lan grp ff02::1:ff00:1 `, true) // the hosts' router
	for _, version := range []string{"2", "1"} {
		s.Switch.IP("link set lan1 type bridge mcast_mld_version " + version)
		s.Until(20*time.Second, "gw1 hears the querier", func() error {
			if out := gw1.MustCtl("doctor"); !strings.Contains(out, "4 groups, asked for by fe80::") || !strings.Contains(out, "in MLDv"+version) {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
		s.Until(30*time.Second, "nobody finds h21 where the switch knows no listener", func() error {
			until(entry, true)
			s.Switch.Run("bridge", "mdb", "del", "dev", "lan1", "port", "gw1-lan", "grp", group)
			if asks() == nil {
				return fmt.Errorf("h11 does: the switch does not snoop yet, or has asked meanwhile")
			}
			return nil
		})
		until(entry, true)
		s.Until(10*time.Second, "h11 finds h21 by MLDv"+version, asks)
	}

	s.Move(h21, lab.DC1)
	until(entry, false)
	s.Until(10*time.Second, "h11 finds h21 at home", asks)
	s.Move(h21, lab.DC2)
	until(entry, true)
	s.Until(10*time.Second, "h11 finds h21 elsewhere", asks)

	all := gw1.Config.Subnets
	for _, c := range []struct {
		subnets []string
		want    bool
	}{{[]string{all[0], "2001:db8:1::/123"}, false}, {all, true}} { // to ::1f
		gw1.Config.Subnets = c.subnets
		gw1.WriteConfig()
		gw1.MustCtl("reload")
		until(entry, c.want)
	}
	capture.Stop()
	if faults := capture.Faults(); len(faults) > 0 {
		t.Errorf("%d faults, the first: %s", len(faults), faults[0])
	}
}
