package main

import (
	"bytes"
	"cmp"
	"context"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"roam/loader/affinity"
	"roam/loader/api"
	"roam/loader/config"
	"roam/loader/route"
	"roam/maps"
)

// hush takes out of the configuration of a gateway in shadow mode all that speaks: sessions, which are those of the router that it stands
// beside, probes, elections, advertisements, hooks.
func hush(c *config.Config) {
	if !c.Datapath.Shadow {
		return
	}
	c.Sources.BGP, c.Underlay.BFD, c.Underlay.Probe, c.Hooks = nil, nil, nil, config.Hooks{}
	for i := range c.Tenants {
		for j := range c.Tenants[i].Segments {
			g := &c.Tenants[i].Segments[j].Gateway
			g.Election, g.Advertise = nil, false
		}
	}
}

// reportLines bounds each list of a report: nobody reads more, and who computes with it asks for other groups.
const reportLines = 1000

// Shadow reports what the data path noted in shadow mode.
func (o observer) Shadow(ctx context.Context, group int) (api.ShadowReport, error) {
	d := o.d
	if !d.config.Load().Datapath.Shadow {
		return api.ShadowReport{}, &api.Error{
			Message: "this gateway is not in shadow mode: it notes nothing of the kind",
			Hint:    "roamd --shadow, or datapath.shadow: true, beside the router that forwards now", Status: http.StatusConflict,
		}
	}
	hosts, pairs, err := d.gateway.ReadShadow()
	if err != nil {
		return api.ShadowReport{}, err
	}
	r := api.ShadowReport{Seconds: time.Since(d.started).Seconds(), MTU: d.narrowest(), Cut: api.ShadowCut{Full: api.List[string]{}}}
	for what, full := range map[string]bool{"hosts": len(hosts) >= maps.ShadowHosts, "pairs": len(pairs) >= maps.ShadowPairs} {
		if full {
			r.Cut.Full = append(r.Cut.Full, what)
		}
	}
	slices.Sort(r.Cut.Full)
	_, counts, err := d.rib.Counts(ctx)
	for _, c := range counts {
		r.Here += uint64(c.Here)
	}
	hosts = named(hosts)
	r.Seen = uint64(len(hosts))
	r.Obstacles, r.Cut.Obstacles = d.obstacles(hosts, r.MTU)
	d.groups(&r, pairs, group)
	return r, err
}

// narrowest is what fits into every tunnel whose way is known.
func (d *daemon) narrowest() (mtu int) {
	for _, l := range d.gateway.Locators() {
		if l.MTU > 0 && (mtu == 0 || l.MTU < mtu) {
			mtu = l.MTU
		}
	}
	return mtu
}

// named adds what stations sent without an address, as DHCP clients do, to the first host with their MAC.
func named(all []maps.ShadowHost) []maps.ShadowHost {
	slices.SortFunc(all, func(a, b maps.ShadowHost) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), bytes.Compare(a.MAC[:], b.MAC[:]), -cmp.Compare(valid(a.Addr), valid(b.Addr)), a.Addr.Compare(b.Addr))
	})
	var list []maps.ShadowHost
	first := 0 // with this MAC
	for _, h := range all {
		if len(list) == 0 || list[first].MAC != h.MAC || list[first].Tenant != h.Tenant {
			first = len(list)
		}
		if h.Addr.IsValid() || first == len(list) {
			list = append(list, h)
			continue
		}
		to := &list[first]
		to.Packets, to.Bytes, to.Largest = to.Packets+h.Packets, to.Bytes+h.Bytes, max(to.Largest, h.Largest)
		to.Multicast, to.Broadcast, to.DHCP = to.Multicast+h.Multicast, to.Broadcast+h.Broadcast, to.DHCP+h.DHCP
		to.TTLOne, to.TTLMax, to.VirtualMAC = to.TTLOne+h.TTLOne, to.TTLMax+h.TTLMax, to.VirtualMAC+h.VirtualMAC
	}
	return list
}

func valid(a netip.Addr) int {
	if a.IsValid() {
		return 1
	}
	return 0
}

// obstacles lists the hosts that send what does not survive, and how many more there are.
func (d *daemon) obstacles(hosts []maps.ShadowHost, mtu int) (list api.List[api.ShadowHost], more uint64) {
	list = api.List[api.ShadowHost]{}
	ports := d.gateway.SlotNames()
	for i := range hosts {
		h := &hosts[i]
		sends := signsOf(h, mtu)
		if len(sends) == 0 {
			continue
		}
		list = append(list, api.ShadowHost{
			Address: h.Addr, MAC: route.MAC(h.MAC).String(), Tenant: d.spaceName(h.Tenant), Port: ports[h.Port],
			Packets: h.Packets, Largest: h.Largest, Sends: sends,
		})
	}
	slices.SortStableFunc(list, func(a, b api.ShadowHost) int {
		return cmp.Or(cmp.Compare(b.Packets, a.Packets), a.Address.Compare(b.Address))
	})
	n := min(len(list), reportLines)
	return list[:n], uint64(len(list) - n)
}

func signsOf(h *maps.ShadowHost, mtu int) (list api.List[api.ShadowSign]) {
	for _, s := range []api.ShadowSign{
		{Kind: "multicast", Packets: h.Multicast},
		{Kind: "broadcast", Packets: h.Broadcast},
		{Kind: "dhcp", Packets: h.DHCP},
		{Kind: "ttl_1", Packets: h.TTLOne},
		{Kind: "ttl_255", Packets: h.TTLMax},
		{Kind: "virtual_mac", Packets: h.VirtualMAC},
	} {
		if s.Packets > 0 {
			list = append(list, s)
		}
	}
	if mtu > 0 && h.Largest > uint32(mtu) {
		list = append(list, api.ShadowSign{Kind: "too_big"})
	}
	return list
}

func (d *daemon) groups(r *api.ShadowReport, pairs []maps.ShadowPair, size int) {
	list := make([]affinity.Pair, 0, len(pairs))
	for _, p := range pairs {
		a, b := affinity.Host{Tenant: p.Tenant, Addr: p.A}, affinity.Host{Tenant: p.Tenant, Addr: p.B}
		list = append(list, affinity.Pair{A: a, B: b, Packets: p.Packets, Bytes: p.Bytes})
	}
	groups, cut := affinity.Groups(list, size)
	r.Cut.Pairs = uint64(len(cut))
	for _, p := range cut {
		r.Cut.Bytes += p.Bytes
	}
	n := min(len(groups), reportLines)
	r.Cut.Groups = uint64(len(groups) - n)
	r.Groups = api.List[api.ShadowGroup]{}
	for _, g := range groups[:n] {
		out := api.ShadowGroup{Tenant: d.spaceName(g.Hosts[0].Tenant), Packets: g.Packets, Bytes: g.Bytes}
		for _, h := range g.Hosts {
			out.Hosts = append(out.Hosts, h.Addr)
		}
		r.Groups = append(r.Groups, out)
	}
}

// spaceName is the name of the tenant that has a space of the tables.
func (d *daemon) spaceName(space uint16) string {
	return names{d}.TenantName(d.gateway.TenantOf(space))
}
