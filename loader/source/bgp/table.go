package bgp

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"

	"roam/loader/route"
)

// table holds every path that a neighbour announced and that could be a claim, found by what a withdrawal names, by
// host and by MAC. Paths lie in one slab without pointers: a million of them cost the garbage collector nothing.
//
// A path is stale while its session is down, and after that until it is announced again. Among the paths of a host
// those that are not stale count, among these the sticky ones, then those of the highest sequence, then the one with
// the lowest locator; paths of the same gateway, site or Ethernet segment are merged with it.
//
// Its user serialises the calls.
type table struct {
	slab  []path // 0 is nobody's
	free  uint32 // the first of a list that goes on in nextHost
	byID  map[pathID]uint32
	hosts map[hostKey]uint32 // the first of a list that goes on in nextHost
	macs  map[station]uint32 // the first of a list that goes on in nextMAC

	origins  []origin // interned and kept: as many as gateways there are
	originOf map[origin]uint32
	vias     []*route.Via // by origin
	interner route.Interner

	fresh func(peer uint16, epoch uint32) bool // that path's session is up and this is its epoch
}

// pathID is what tells one path from another, and all that a withdrawal brings. Labels, next hop and communities are not
// part of it.
type pathID struct {
	addr [16]byte
	rd   [8]byte
	tag  uint32
	path uint32 // that the neighbour gave it, where it announces several to one prefix (RFC 7911)
	peer uint16
	mac  route.MAC
	kind kind
	bits uint8 // of addr; IPv4 counts as ::ffff:0:0/96
}

type kind uint8

const (
	kindMAC    kind = iota // EVPN type 2 without an address
	kindMACIP              // EVPN type 2
	kindPrefix             // EVPN type 5
	kindUnicast
)

type path struct {
	pathID
	tenant   route.TenantID
	origin   uint32
	sequence uint32
	epoch    uint32 // of the session that brought it
	sticky   bool

	nextHost, nextMAC uint32
}

// origin is where paths lead, and what else they have in common.
type origin struct {
	locator route.Locator
	site    string    // by name, "" where nobody knows
	soo     community // site of origin, zero for none
	segment [10]byte  // Ethernet segment, zero for none
}

// same reports whether two origins are one place for a host to be at.
func (o *origin) same(p *origin) bool {
	return o.locator.Address == p.locator.Address ||
		o.soo != community{} && o.soo == p.soo || o.segment != [10]byte{} && o.segment == p.segment
}

type station struct {
	tenant route.TenantID
	mac    route.MAC
}

// maxLocators is what one route may spread over.
const maxLocators = 64

func newTable(fresh func(peer uint16, epoch uint32) bool) *table {
	return &table{
		slab: make([]path, 1), byID: make(map[pathID]uint32), hosts: make(map[hostKey]uint32),
		macs: make(map[station]uint32), originOf: make(map[origin]uint32), fresh: fresh,
	}
}

func (t *table) len() int { return len(t.byID) }

// hostKey is a route.Key without a pointer.
type hostKey struct {
	addr   [16]byte
	tenant route.TenantID
	bits   uint8 // IPv4 counts as ::ffff:0:0/96
}

func keyOf(k route.Key) hostKey {
	addr, bits := flatten(k.Prefix)
	return hostKey{addr: addr, tenant: k.Tenant, bits: bits}
}

func flatten(p netip.Prefix) (addr [16]byte, bits uint8) {
	return p.Addr().As16(), uint8(p.Bits() + 128 - p.Addr().BitLen())
}

func (k hostKey) route() route.Key {
	a, bits := netip.AddrFrom16(k.addr), int(k.bits)
	if a.Is4In6() && bits >= 96 { // an IPv4-mapped IPv6 prefix is never held
		a, bits = a.Unmap(), bits-96
	}
	return route.Key{Tenant: k.tenant, Prefix: netip.PrefixFrom(a, bits)}
}

// key is the host or prefix that a path is about; false for a path that is only about a MAC.
func (p *path) key() (hostKey, bool) {
	return hostKey{addr: p.addr, tenant: p.tenant, bits: p.bits}, p.kind != kindMAC
}

func (t *table) origin(o origin) uint32 {
	i, ok := t.originOf[o]
	if !ok {
		i = uint32(len(t.origins))
		t.origins, t.vias = append(t.origins, o), append(t.vias, t.interner.Via([]route.Locator{o.locator}))
		t.originOf[o] = i
	}
	return i
}

// put enters a path in place of the earlier one with its id, and returns the keys whose claim may have changed.
func (t *table) put(p path, touched map[hostKey]struct{}) {
	if at, ok := t.byID[p.pathID]; ok {
		old := &t.slab[at]
		if old.tenant == p.tenant {
			p.nextHost, p.nextMAC = old.nextHost, old.nextMAC
			*old = p
			touch(old, touched)
			return
		}
		t.remove(p.pathID, touched)
	}
	at := t.free
	if at != 0 {
		t.free = t.slab[at].nextHost
	} else {
		at = uint32(len(t.slab))
		t.slab = append(t.slab, path{})
	}
	if key, ok := p.key(); ok {
		p.nextHost = t.hosts[key]
		t.hosts[key] = at
	}
	if !p.mac.IsZero() {
		s := station{p.tenant, p.mac}
		p.nextMAC = t.macs[s]
		t.macs[s] = at
	}
	t.slab[at] = p
	t.byID[p.pathID] = at
	touch(&p, touched)
}

func touch(p *path, touched map[hostKey]struct{}) {
	if key, ok := p.key(); ok {
		touched[key] = struct{}{}
	}
}

// remove forgets a path, if it is there.
func (t *table) remove(id pathID, touched map[hostKey]struct{}) {
	at, ok := t.byID[id]
	if !ok {
		return
	}
	p := t.slab[at]
	touch(&p, touched)
	delete(t.byID, id)
	if key, ok := p.key(); ok {
		unlink(t, t.hosts, key, at, func(p *path) *uint32 { return &p.nextHost })
	}
	if !p.mac.IsZero() {
		unlink(t, t.macs, station{p.tenant, p.mac}, at, func(p *path) *uint32 { return &p.nextMAC })
	}
	t.slab[at] = path{nextHost: t.free}
	t.free = at
}

// unlink takes a path out of a list; the lists are as long as there are neighbours and gateways that name one host.
func unlink[K comparable](t *table, heads map[K]uint32, key K, at uint32, next func(*path) *uint32) {
	after := *next(&t.slab[at])
	switch before := heads[key]; {
	case before == at && after == 0:
		delete(heads, key)
	case before == at:
		heads[key] = after
	default:
		for *next(&t.slab[before]) != at {
			before = *next(&t.slab[before])
		}
		*next(&t.slab[before]) = after
	}
}

// each calls f for every path.
func (t *table) each(f func(*path)) {
	for i := range t.slab {
		if t.slab[i].bits != 0 || t.slab[i].kind != 0 || !t.slab[i].mac.IsZero() {
			f(&t.slab[i])
		}
	}
}

// claim is what all paths to a key come to; false where there is none.
func (t *table) claim(key hostKey) (route.Claim, bool) {
	best := t.best(key)
	if best == nil {
		return route.Claim{}, false
	}
	from := &t.origins[best.origin]
	c := route.Claim{
		Key: key.route(), Via: t.vias[best.origin], Site: from.site, MAC: best.mac, Sequence: best.sequence, Pinned: best.sticky,
	}
	if t.slab[t.hosts[key]].nextHost == 0 {
		return c, true
	}
	var locators []route.Locator
	for at := t.hosts[key]; at != 0; at = t.slab[at].nextHost {
		p := &t.slab[at]
		l := t.origins[p.origin].locator
		if !t.equal(p, best) || !from.same(&t.origins[p.origin]) ||
			slices.ContainsFunc(locators, func(have route.Locator) bool { return have.Address == l.Address }) {
			continue
		}
		locators = append(locators, l)
	}
	locators = locators[:min(len(locators), maxLocators)]
	slices.SortFunc(locators, func(a, b route.Locator) int { return a.Address.Compare(b.Address) })
	c.Via = t.interner.Via(locators)
	return c, true
}

func (t *table) best(key hostKey) *path {
	var best *path
	for at := t.hosts[key]; at != 0; at = t.slab[at].nextHost {
		if p := &t.slab[at]; best == nil || t.compare(p, best) > 0 {
			best = p
		}
	}
	return best
}

// equal reports whether two paths rank alike but for their locators.
func (t *table) equal(p, q *path) bool {
	return p.sequence == q.sequence && p.sticky == q.sticky && t.fresh(p.peer, p.epoch) == t.fresh(q.peer, q.epoch)
}

func (t *table) compare(p, q *path) int {
	return cmp.Or(
		compareBool(t.fresh(p.peer, p.epoch), t.fresh(q.peer, q.epoch)),
		compareBool(p.sticky, q.sticky),
		cmp.Compare(p.sequence, q.sequence),
		t.origins[q.origin].locator.Address.Compare(t.origins[p.origin].locator.Address),
		compareBool(!p.mac.IsZero(), !q.mac.IsZero()), // one gateway announces it as EVPN and as unicast
		bytes.Compare(p.mac[:], q.mac[:]),
	)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// maxAddresses is how many addresses of a MAC are listed.
const maxAddresses = 64

func (t *table) addresses(s station) (list []netip.Addr) {
	for at := t.macs[s]; at != 0 && len(list) < maxAddresses; at = t.slab[at].nextMAC {
		key, ok := t.slab[at].key()
		if k := key.route(); ok && k.Host() && !slices.Contains(list, k.Prefix.Addr()) {
			list = append(list, k.Prefix.Addr())
		}
	}
	return list
}

// highest is the path with the highest sequence that a MAC is announced with, or nil.
func (t *table) highest(s station) *path {
	var best *path
	for at := t.macs[s]; at != 0; at = t.slab[at].nextMAC {
		if p := &t.slab[at]; best == nil || p.sequence > best.sequence {
			best = p
		}
	}
	return best
}
