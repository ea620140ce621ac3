package host

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"roam/loader/route"
)

// model is a source without a kernel: its clock stands still, its neighbour table is a map, and what becomes of each input is seen at
// once. It is one segment, and another site that announces what a test says.
type model struct {
	tb
	*Source
	clock time.Time
	table map[entry]route.MAC // the kernel's
	asked []entry             // to be resolved

	questions []answer        // put to stations
	alive     map[answer]bool // stations that answer
	mute      bool            // nobody can be asked
	moved     []netip.Addr    // to the other site, as neighbours are told

	seen    map[station]bool // as the data path is told
	notices []Notice
	claims  map[route.Key]route.Claim
	away    map[route.Key]route.Decision // what the other site announces, if it wins
	apart   bool                         // the other site is a model too, and hears of nothing by itself
}

const modelLink = 7

// tb is what a model asks of a test, be it a plain one or one of random walks.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
}

func newModel(t tb, seg Segment) *model {
	m := &model{
		tb: t, clock: time.Unix(1e9, 0), table: make(map[entry]route.MAC), claims: make(map[route.Key]route.Claim),
		away: make(map[route.Key]route.Decision), alive: make(map[answer]bool), seen: make(map[station]bool),
	}
	m.start(seg, "")
	return m
}

// start makes a daemon, the first one or the next.
func (m *model) start(seg Segment, state string) {
	m.Source = New(Options{
		Segments: []Segment{seg}, Site: "dc1", Sequence: m.sequence, Holder: func(key route.Key) route.MAC { return m.away[key].MAC }, State: state, Names: m,
		MACs:  func(segment int, mac route.MAC, present bool) { m.seen[station{segment, mac}] = present },
		Tell:  func(n Notice) { m.notices = append(m.notices, n) },
		Moved: func(_ int, addr netip.Addr) { m.moved = append(m.moved, addr) },
	})
	m.now = func() time.Time { return m.clock }
	m.out = m
	m.ports = map[int]*port{modelLink: {Segment: seg, local: route.Local{Link: modelLink}}}
	m.remember()
}

func (m *model) TenantID(name string) (route.TenantID, bool) { return 1, name == "one" }
func (m *model) TenantName(route.TenantID) string            { return "one" }

func (m *model) sequence(key route.Key, _ route.MAC) (sequence uint32, elsewhere, ok bool) {
	d, ok := m.away[key]
	return d.Sequence, ok, ok
}

func (m *model) resolve(e entry) error {
	m.asked = append(m.asked, e)
	return nil
}

func (m *model) forget(e entry) error {
	if _, ok := m.table[e]; ok {
		delete(m.table, e)
		m.event(e, route.MAC{}, netlink.NUD_FAILED)
	}
	return nil
}

func (m *model) set(e entry, mac route.MAC) error {
	m.table[e] = mac
	m.event(e, mac, netlink.NUD_PROBE)
	return nil
}

// ask puts a question to a station, which answers if it has the address.
func (m *model) ask(_ *port, e entry, holder route.MAC) error {
	m.questions = append(m.questions, answer{e, holder})
	if m.mute {
		return errNoOwnAddress
	}
	return nil
}

// answers has the stations that were asked answer, those that have what they were asked for.
func (m *model) answers() {
	asked := m.questions
	m.questions = nil
	for _, q := range asked {
		list := []answer{q}
		if q.mac == broadcast {
			list = slices.SortedFunc(maps.Keys(m.alive), func(a, b answer) int { return slices.Compare(a.mac[:], b.mac[:]) })
		}
		for _, a := range list {
			if m.alive[a] && a.entry == q.entry {
				m.take(m.hear(heard{answer: a, at: m.clock}))
			}
		}
	}
}

// found is the kernel's news of a neighbour.
func (m *model) found(addr string, mac route.MAC) {
	e := entry{modelLink, netip.MustParseAddr(addr)}
	m.table[e] = mac
	m.event(e, mac, netlink.NUD_REACHABLE)
}

// gone is the kernel's news that a neighbour does not answer.
func (m *model) gone(addr string) { _ = m.forget(entry{modelLink, netip.MustParseAddr(addr)}) }

func (m *model) event(e entry, mac route.MAC, state int) {
	n := netlink.Neigh{LinkIndex: e.link, Family: family(e.addr), IP: net.IP(e.addr.AsSlice()), State: state}
	if !mac.IsZero() {
		n.HardwareAddr = mac[:]
	}
	changed := make(map[entry]struct{})
	m.see(n, true, changed)
	m.take(m.compare(changed))
}

func (m *model) take(changes []route.Change) {
	for _, c := range changes {
		if c.Withdraw {
			delete(m.claims, c.Key)
			continue
		}
		m.claims[c.Key] = c.Claim
		if d, ok := m.away[c.Key]; ok && !m.apart && d.Sequence < c.Sequence { // the other site hears of it and goes
			delete(m.away, c.Key)
		}
	}
}

// elsewhere has the other site announce a host.
func (m *model) elsewhere(addr string, mac route.MAC, sequence uint32) {
	m.Helper()
	d := decision(addr, true, false)
	d.Source, d.Site, d.MAC, d.Sequence = "bgp", "dc2", mac, sequence
	if c, ok := m.claims[d.Key]; ok && c.Sequence >= sequence {
		return // it does not win
	}
	m.away[d.Key] = d
	if err := m.Apply(context.Background(), []route.Decision{d}); err != nil {
		m.Fatalf("%v", err)
	}
	m.take(m.attend())
}

// leaves has the other site move a host on with the next sequence.
func (m *model) leaves(addr string, mac route.MAC) {
	m.Helper()
	m.elsewhere(addr, mac, m.claims[hostKey(1, netip.MustParseAddr(addr))].Sequence+1)
	m.pass(verdict)
}

// pass lets those who were asked answer, and then time go by: what is due meanwhile happens when it is due.
func (m *model) pass(d time.Duration) {
	m.answers()
	for end := m.clock.Add(d); ; {
		at := m.nextProbe()
		if at.IsZero() || at.After(end) {
			m.clock = end
			break
		}
		if at.After(m.clock) {
			m.clock = at
		}
		m.take(m.compare(m.decide()))
		m.take(m.compare(m.askPresent()))
		m.answers()
	}
	m.Source.thaw()
	m.take(m.compare(m.decide()))
	m.tellConflicts()
}

// has checks who has an address here; zero for nobody.
func (m *model) has(addr string, mac route.MAC) {
	m.Helper()
	if c := m.claims[hostKey(1, netip.MustParseAddr(addr))]; c.MAC != mac {
		m.Fatalf("%s is %s's, want %s", addr, c.MAC, mac)
	}
}

func (m *model) kinds() (list []NoticeKind) {
	for _, n := range m.notices {
		list = append(list, n.Kind)
	}
	m.notices = nil
	return list
}
