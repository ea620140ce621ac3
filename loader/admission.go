package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"roam/loader/api"
	"roam/loader/config"
	"roam/loader/route"
)

// CheckMoves implements api.Operator: what this gateway's configuration, ports and underlay say of moves, without making them. The gateway of the
// destination is the one that knows: what others find in their own configuration, which should be the same, they only warn of.
func (o operator) CheckMoves(moves []api.MoveCheck) (list api.List[api.MoveChecked]) {
	k := admission{config: o.d.config.Load(), up: map[netip.Addr]bool{}, closed: map[string]string{}}
	for _, l := range o.d.gateway.Locators() {
		k.up[l.Address] = l.Up
	}
	for _, p := range o.d.gateway.Ports() {
		if p.Err != nil {
			k.closed[p.String()] = p.Err.Error()
		}
	}
	for i := range moves {
		list = append(list, k.check(&moves[i]))
	}
	return list
}

// admission is what moves are checked against.
type admission struct {
	config *config.Config
	up     map[netip.Addr]bool // locators
	closed map[string]string   // ports that are not in service, and why
}

func (k *admission) check(m *api.MoveCheck) (r api.MoveChecked) {
	t, ok := k.config.TenantNamed(m.Tenant)
	mac, err := route.ParseMAC(m.MAC)
	if !ok || err != nil {
		return r // the server has looked
	}
	here := m.To == k.config.Site
	p, _ := t.PolicyOf(m.Address)
	r.Egress = spellPolicy(p)
	switch why := refuses(t, m.Address, mac); {
	case why != "" && here:
		r.Refused = why
	case why != "":
		r.Warnings = append(r.Warnings, "by this gateway's configuration it could not live there: "+why)
	case here:
		r.Refused = cmp.Or(k.shut(t, m.Address), k.severed(p))
	}
	r.Warnings = append(r.Warnings, turns(p, t, k.config.Site, m.To)...)
	return r
}

// shut says why the port of an address's segment takes nobody.
func (k *admission) shut(t *config.Tenant, a netip.Addr) string {
	s := segmentWith(t, a)
	port := accessRef(*s).String()
	if why, closed := k.closed[port]; closed {
		return fmt.Sprintf("port %s of segment %s is not in service: %s", port, s.Name, why)
	}
	return ""
}

// severed says which way of a policy leads nowhere from here: its packets are dropped, not sent by another exit.
func (k *admission) severed(p config.Policy) string {
	for _, w := range p.Ways {
		reached := func(l route.Locator) bool { return k.up[l.Address] }
		if w.Via != "" && w.Via != k.config.Site && !slices.ContainsFunc(k.config.Locators(w.Via), reached) {
			return fmt.Sprintf("its egress policy sends what it exchanges with %s by %s, which is out of reach from here: it would be dropped", w.Prefix, w.Via)
		}
	}
	return ""
}

func segmentWith(t *config.Tenant, a netip.Addr) *config.Segment {
	for i := range t.Segments {
		if slices.ContainsFunc(t.Segments[i].Subnets, func(p netip.Prefix) bool { return p.Contains(a) }) {
			return &t.Segments[i]
		}
	}
	return nil
}

// refuses says why no segment of a tenant takes an address, with a MAC if it is known, for a host: the same rules as when it shows itself. "": one does.
func refuses(t *config.Tenant, a netip.Addr, mac route.MAC) string {
	s := segmentWith(t, a)
	if s == nil {
		return "no segment of tenant " + t.Name + " has it in its subnets"
	}
	g := &s.Gateway
	switch {
	case slices.Contains(g.Addresses, a), slices.Contains(g.OwnAddresses, a), slices.Contains(g.Routers, a):
		return fmt.Sprintf("it is an address of a gateway or router of segment %s", s.Name)
	case len(s.Mobility.Allow) > 0 && !slices.ContainsFunc(s.Mobility.Allow, func(p netip.Prefix) bool { return p.Contains(a) }):
		return fmt.Sprintf("mobility.allow of segment %s does not list it", s.Name)
	case mac.IsZero():
	case mac[0]&1 != 0, mac == g.MAC, slices.Contains(g.ForeignMACs, mac):
		return fmt.Sprintf("its MAC %s is no host's on segment %s: a gateway's, or a group's", mac, s.Name)
	}
	return ""
}

// turns says what a move does to the flows of a host that has a policy: those that leave where it is change their exit under way, those that leave here
// need one.
func turns(p config.Policy, t *config.Tenant, own, to string) (list []string) {
	for _, w := range p.Ways {
		switch {
		case w.Subnet:
		case w.Via == "":
			list = append(list, fmt.Sprintf("what it exchanges with %s leaves by %s from then on: a firewall that has its connections elsewhere sees one direction, or none", w.Prefix, to))
		case w.Via == own && len(t.Uplinks) == 0:
			list = append(list, fmt.Sprintf("its egress policy sends what it exchanges with %s by this site, where its tenant has no uplink: the kernel's routes have to lead there", w.Prefix))
		}
	}
	return list
}

// spellPolicy writes a policy so that those of two gateways can be compared, "" for none.
func spellPolicy(p config.Policy) string {
	var ways []string
	for _, w := range p.Ways {
		switch {
		case w.Subnet:
		case w.Via == "":
			ways = append(ways, w.Prefix.String()+" where it is")
		default:
			ways = append(ways, w.Prefix.String()+" by "+w.Via)
		}
	}
	return strings.Join(ways, ", ")
}
