package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/cilium/ebpf"

	"roam/maps"
	"roam/maps/bench"
)

// bed is everything test runs need: gateways of each size, and the rows over them.
type bed struct {
	out     uint32 // the interface that packets leave by
	rows    []*row
	closers []func() error
}

func (b *bed) close() error {
	var err error
	for i := len(b.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, b.closers[i]())
	}
	return err
}

// sourcesAt is the size of the tables with rows of random sources too.
const sourcesAt = 1 << 20

// newBed builds gateways of the given sizes. It is called in a namespace.
func newBed(p plan) (*bed, error) {
	out, err := net.InterfaceByName("out0")
	if err != nil {
		return nil, fmt.Errorf("find the way out: %w", err)
	}
	b := &bed{out: uint32(out.Index)}
	for _, hosts := range p.sizes {
		progress("building gateways with %s hosts", size(hosts))
		if err := b.addEncap(hosts, p); err != nil {
			return nil, errors.Join(err, b.close())
		}
		if err := b.addDecap(hosts, p); err != nil {
			return nil, errors.Join(err, b.close())
		}
	}
	if err := b.addFills(p.fillOf); err != nil {
		return nil, errors.Join(err, b.close())
	}
	for _, r := range b.rows {
		if err := r.check(); err != nil {
			return nil, errors.Join(err, b.close())
		}
	}
	return b, nil
}

func (b *bed) gateway(c crowd, in, out side) (*gateway, error) {
	g, err := newGateway(c, in, out)
	if err != nil {
		return nil, fmt.Errorf("build a gateway of %s hosts: %w", size(c.hosts), err)
	}
	b.closers = append(b.closers, g.close)
	return g, nil
}

func (b *bed) walker(g *gateway, s bench.Structure, peers map[string]*ebpf.Map, packet shape) (*walker, error) {
	w, err := g.load(s, peers, packet, maps.DefaultTune, false)
	if err == nil {
		b.closers = append(b.closers, w.close)
	}
	return w, err
}

// add enters a hot row and, where there is more than one host, a random one.
func (b *bed) add(r row, drawn int) {
	r.Hosts, r.Fill = r.gateway.hosts, r.gateway.fill()
	hot := r
	hot.Drawn = 1
	b.rows = append(b.rows, &hot)
	if drawn > 1 {
		r.Drawn = drawn
		b.rows = append(b.rows, &r)
	}
}

func (b *bed) addEncap(hosts int, p plan) error {
	g, err := b.gateway(crowd{hosts: hosts}, side{loopback, maps.RoleAccess}, side{b.out, maps.RoleUnderlay})
	if err != nil {
		return err
	}
	structures := []bench.Structure{bench.Table, bench.Hash}
	if hosts <= p.trieUpTo {
		structures = append(structures, bench.Trie)
	}
	for _, structure := range structures {
		var peers map[string]*ebpf.Map
		if structure != bench.Table {
			if peers, err = g.newPeers(structure, hosts <= p.hash6To); err != nil {
				return err
			}
			b.closers = append(b.closers, func() error { return closeAll(peers) })
		}
		for _, inner := range []int{4, 6} {
			if inner == 6 && structure != bench.Table && peers[bench.Peer6] == nil {
				continue
			}
			w, err := b.walker(g, structure, peers, shape{v6: inner == 6})
			if err != nil {
				return err
			}
			b.addEncapRows(g, w, structure, inner)
		}
	}
	if hosts == p.seriesAt {
		if err := b.addEncapSeries(g); err != nil {
			return err
		}
	}
	switch hosts {
	case 1:
		return b.addTraced(g)
	case optionHosts:
		return b.addOptions(row{
			What: "encap", gateway: g, want: xdpRedirect, reason: "fwd_encap",
		}, netip.Addr{})
	}
	return nil
}

func (b *bed) addEncapRows(g *gateway, w *walker, s bench.Structure, inner int) {
	r := row{
		What: "encap", Structure: s, Inner: inner, Outer: 4,
		gateway: g, walker: w, program: w.Walk, want: xdpRedirect, reason: "fwd_encap",
	}
	b.add(r, g.hosts)
	if s != bench.Table {
		return
	}
	r.Outer, r.settings = 6, underlay{v6: true}
	b.add(r, g.hosts)
	r.Checksum, r.settings.checksum = true, true
	b.add(r, g.hosts)
	if g.hosts == sourcesAt {
		r.Outer, r.Checksum, r.settings = 4, false, underlay{}
		r.Hosts, r.Fill, r.Drawn, r.Sources = g.hosts, g.fill(), g.hosts, g.hosts
		b.rows = append(b.rows, &r)
	}
	if g.hosts == 1 && inner == 4 {
		b.rows = append(b.rows,
			&row{What: "no-op XDP_TX, no wrapper", Hosts: 1, Drawn: 1, gateway: g, walker: w, program: w.Noop, want: xdpTX},
			&row{What: "eight calls that come back at once", Hosts: 1, Drawn: 1, gateway: g, walker: w, program: w.Calls, want: xdpTX},
			&row{What: "bare redirect", Hosts: 1, Drawn: 1, gateway: g, walker: w, program: w.Redirect, want: xdpRedirect})
	}
}

func (b *bed) addDecap(hosts int, p plan) error {
	c := crowd{hosts: hosts, local: min(hosts, locals)}
	if hosts == sourcesAt {
		c.senders = c.local
	}
	g, err := b.gateway(c, side{loopback, maps.RoleUnderlay}, side{b.out, maps.RoleAccess})
	if err != nil {
		return err
	}
	for _, inner := range []int{4, 6} {
		for _, outer := range []netip.Addr{own4, own6} {
			w, err := b.walker(g, bench.Table, nil, shape{v6: inner == 6, outer: outer})
			if err != nil {
				return err
			}
			r := row{
				What: "decap", Structure: bench.Table, Inner: inner, Outer: 4,
				gateway: g, walker: w, program: w.Walk, want: xdpRedirect, reason: "fwd_deliver",
			}
			if outer.Is6() {
				r.Outer = 6
			}
			b.add(r, g.local)
			if hosts == sourcesAt {
				r.Hosts, r.Fill, r.Drawn, r.Sources = g.hosts, g.fill(), g.local, g.senders
				b.rows = append(b.rows, &r)
			}
		}
	}
	if hosts == p.seriesAt {
		if err := b.addDecapsulations(g); err != nil {
			return err
		}
	}
	if hosts == optionHosts {
		return b.addOptions(row{
			What: "decap", gateway: g, want: xdpRedirect, reason: "fwd_deliver",
		}, own4)
	}
	return nil
}
