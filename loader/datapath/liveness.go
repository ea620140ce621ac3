package datapath

import (
	"maps"
	"net/netip"
)

// SetSilent names all locators that do not answer though the underlay knows a way, and why that is believed. Sets of several locators
// avoid them within a refresh, whatever the number of their hosts; what has no other locator goes on using them, for the
// far data path may well live. An identical call is harmless.
func (g *Gateway) SetSilent(why map[netip.Addr]string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.silent = maps.Clone(why)
	g.underlay.kick()
}

// doubt has sets avoid the silent locators. The caller balances.
func (g *Gateway) doubt() {
	doubted := map[uint16]bool{}
	for _, target := range g.table.nexthops.Variants() {
		if _, silent := g.silent[g.table.locators.Key(target.Variant).Address]; silent {
			doubted[target.Variant] = true
		}
	}
	g.table.nexthops.Doubt(doubted)
}
