package datapath

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"roam/loader/route"
	"roam/maps"
)

// tableWorld is a table over real maps, unpinned, that can be closed and opened again as a restart does.
type tableWorld struct {
	*testing.T
	objects *maps.Objects
	hosts   *maps.Hosts
	grace   *maps.Grace
	table   *table
}

var twoTenants = []TenantSpec{{ID: 1, VNI: 7001}, {ID: 2, VNI: 7002}}

func newTableWorld(t *testing.T) *tableWorld {
	t.Helper()
	grace, err := maps.NewGrace()
	must(t, err)
	tables, err := maps.CreateHostMaps(4096)
	must(t, err)
	objects, err := maps.Load(maps.Options{Hosts: tables})
	must(t, err)
	w := &tableWorld{T: t, objects: objects, grace: grace}
	w.hosts, err = maps.OpenHosts(tables, grace)
	must(t, err)
	w.open()
	t.Cleanup(func() {
		_ = w.table.close()
		_ = w.hosts.Close()
		_ = objects.Close()
		_ = tables.Close()
		_ = grace.Close()
	})
	return w
}

func (w *tableWorld) open() {
	w.Helper()
	var err error
	w.table, err = openTable(w.objects, w.hosts, quiet())
	must(w.T, err)
	_, err = w.table.tenants.set(twoTenants)
	must(w.T, err)
}

func (w *tableWorld) restart() {
	w.Helper()
	must(w.T, w.table.close())
	w.open()
}

// settle makes what is unused usable again, until nothing is left to do.
func (w *tableWorld) settle() {
	w.Helper()
	for w.table.nexthops.Reclaimable() {
		r := w.table.nexthops.Rest()
		must(w.T, w.grace.Wait())
		w.table.free(r)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func via(addrs ...string) *route.Via {
	v := &route.Via{}
	for _, a := range addrs {
		v.Locators = append(v.Locators, route.Locator{Address: netip.MustParseAddr(a), Priority: 1, Weight: 100})
	}
	return v
}

func decision(tenant route.TenantID, prefix string, v *route.Via) route.Decision {
	var d route.Decision
	d.Key = route.Key{Tenant: tenant, Prefix: netip.MustParsePrefix(prefix)}
	d.Via = v
	d.Gone = v == nil
	return d
}

func TestTableSharesNextHops(t *testing.T) {
	w := newTableWorld(t)
	must(t, w.table.apply(decision(1, "10.1.0.1/32", via("192.0.2.2"))))
	must(t, w.table.apply(decision(1, "2001:db8::1/128", via("192.0.2.2"))))
	must(t, w.table.apply(decision(1, "10.2.0.0/16", via("192.0.2.2"))))
	must(t, w.table.apply(decision(2, "10.1.0.1/32", via("192.0.2.2"))))
	a := w.table.get(hostKey(1, netip.MustParseAddr("10.1.0.1")))
	b := w.table.get(hostKey(1, netip.MustParseAddr("2001:db8::1")))
	c := w.table.get(entryKey{1, netip.MustParsePrefix("10.2.0.0/16")})
	other := w.table.get(hostKey(2, netip.MustParseAddr("10.1.0.1")))
	if a == 0 || a != b || a != c {
		t.Errorf("one locator, three routes of a tenant: next hops %d, %d, %d", a, b, c)
	}
	if other == a {
		t.Error("two tenants share a next hop: their VNIs differ")
	}
	if got := w.table.nexthops.Kind(a); got != maps.KindUnresolved {
		t.Errorf("a new locator's next hop is of kind %d before anybody resolved it", got)
	}
}

// Once the first packet to a host has been seen, its next hop is that of others that moved; and nobody holds the one that it had.
func TestTableFirstPacketSeen(t *testing.T) {
	w := newTableWorld(t)
	d := decision(1, "10.1.0.1/32", via("192.0.2.2"))
	d.Held, d.Awaited = true, true
	must(t, w.table.apply(d))
	for range 2 { // twice changes nothing
		must(t, w.table.seen(d.Key))
		if target, _ := w.table.nexthops.Target(w.table.get(hostKey(1, d.Prefix.Addr()))); target.Flags != maps.FlagHeld {
			t.Errorf("flags %d", target.Flags)
		}
	}
	must(t, w.table.seen(route.KeyOf(1, netip.MustParseAddr("10.1.0.9"))))
	d.Gone = true
	must(t, w.table.apply(d))
	if n := w.table.nexthops.Len(); n != 0 {
		t.Errorf("%d next hops are in use though no route is left", n)
	}
}

// The next hops of held and moved hosts use the very record of the locator's others, and follow it when it changes.
func TestTablePastsShareTheRecord(t *testing.T) {
	w := newTableWorld(t)
	d := decision(1, "10.1.0.1/32", via("192.0.2.2"))
	must(t, w.table.apply(decision(1, "10.1.0.2/32", via("192.0.2.2"))))
	ids := map[uint32]uint8{}
	for _, flags := range []uint8{0, maps.FlagHeld, maps.FlagMoved, maps.FlagMoved | maps.FlagAwaited, maps.FlagHeld | maps.FlagAwaited} {
		d.Held, d.Moved, d.Awaited = flags&maps.FlagHeld != 0, flags&maps.FlagMoved != 0, flags&maps.FlagAwaited != 0
		must(t, w.table.apply(d))
		id := w.table.get(hostKey(1, d.Prefix.Addr()))
		if target, _ := w.table.nexthops.Target(id); target.Flags != flags {
			t.Errorf("held %v, moved %v, awaited %v: flags %d", d.Held, d.Moved, d.Awaited, target.Flags)
		}
		ids[id] = flags
		w.table.nexthops.Hold(id)
	}
	if len(ids) != 5 {
		t.Fatalf("plain, held and moved hosts have next hops %v", ids)
	}
	target, _ := w.table.nexthops.Target(w.table.get(hostKey(1, d.Prefix.Addr())))
	must(t, w.table.nexthops.Resolve(1, target.Variant, maps.Adjacency{Len: 64, Mtu: 1450}))
	for id, flags := range ids {
		if got := w.table.nexthops.Kind(id); got != maps.KindAdjacency {
			t.Errorf("the next hop with flags %d is of kind %d after its locator was resolved", flags, got)
		}
	}
	w.table.nexthops.Unresolve(1, target.Variant)
	for id, flags := range ids {
		if got := w.table.nexthops.Kind(id); got != maps.KindUnresolved {
			t.Errorf("the next hop with flags %d is of kind %d after its locator was lost", flags, got)
		}
	}
}

func TestTableKeepsTheGatewaysAddresses(t *testing.T) {
	w := newTableWorld(t)
	gateway := hostKey(1, netip.MustParseAddr("10.1.0.1"))
	must(t, w.table.reserve(map[entryKey]uint32{gateway: maps.IDGateway}))
	must(t, w.table.apply(decision(1, "10.1.0.1/32", via("192.0.2.2"))))
	if got := w.table.get(gateway); got != maps.IDGateway {
		t.Errorf("a route took the gateway's address: next hop %d", got)
	}
	must(t, w.table.apply(decision(1, "10.1.0.1/32", nil)))
	if got := w.table.get(gateway); got != maps.IDGateway {
		t.Errorf("a withdrawal took the gateway's address: next hop %d", got)
	}
	must(t, w.table.reserve(nil))
	if got := w.table.get(gateway); got != 0 {
		t.Errorf("an address that is ours no more has next hop %d", got)
	}
}

// A route that leads to our own locator, as a reflector may send it back, means that the host is here.
func TestTableRouteToOurselves(t *testing.T) {
	w := newTableWorld(t)
	must(t, w.table.setOwn([]netip.Addr{netip.MustParseAddr("192.0.2.1")}))
	must(t, w.table.apply(decision(1, "10.1.0.9/32", via("192.0.2.1"))))
	if got := w.table.get(hostKey(1, netip.MustParseAddr("10.1.0.9"))); got != maps.IDKernel {
		t.Errorf("next hop %d, want %d: a tunnel to ourselves is a loop", got, maps.IDKernel)
	}
}

func TestTablePriorityAndSets(t *testing.T) {
	w := newTableWorld(t)
	v := via("192.0.2.2", "192.0.2.3", "192.0.2.4")
	v.Locators[1].Weight = 50
	v.Locators[2].Priority = 2
	must(t, w.table.apply(decision(1, "10.1.0.1/32", v)))
	id := w.table.get(hostKey(1, netip.MustParseAddr("10.1.0.1")))
	target, ok := w.table.nexthops.Target(id)
	if !ok || target.Kind != maps.KindSet {
		t.Fatalf("two usable locators gave %+v", target)
	}
	for i := range v.Locators {
		v.Locators[i].Priority = route.Unusable
	}
	must(t, w.table.apply(decision(1, "10.1.0.2/32", v)))
	if got := w.table.get(hostKey(1, netip.MustParseAddr("10.1.0.2"))); got != maps.IDBlackhole {
		t.Errorf("no usable locator gave next hop %d", got)
	}
}

func TestSpreadFollowsWeights(t *testing.T) {
	for _, c := range []struct {
		weights []int
		want    []int
	}{
		{[]int{75, 25}, []int{48, 16}},
		{[]int{1, 1}, []int{32, 32}},
		{[]int{100, 100, 100}, []int{22, 21, 21}},
		{[]int{255, 1}, []int{64, 0}},
	} {
		members := make([]uint16, len(c.weights))
		for i := range members {
			members[i] = uint16(i + 1)
		}
		count := map[uint16]int{}
		for _, m := range spread(members, c.weights, maps.SetMembers) {
			count[m]++
		}
		for i, m := range members {
			if count[m] != c.want[i] {
				t.Errorf("weights %v: member %d has %d buckets, want %d", c.weights, m, count[m], c.want[i])
			}
		}
	}
}

// Random routes, moves, withdrawals and restarts against a plain map: the table answers as the map does, and when all
// is withdrawn nothing is left in use.
func TestTableAgainstATwin(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("ROAM_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("ROAM_SEED=%d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	w := newTableWorld(t)
	twin := map[route.Key]string{}
	live := map[route.Key]route.Decision{}
	for step := range 6000 {
		d := randomDecision(rnd)
		must(t, w.table.apply(d))
		if d.Gone {
			delete(twin, d.Key)
			delete(live, d.Key)
		} else {
			twin[d.Key], live[d.Key] = meaning(d), d
		}
		switch rnd.IntN(500) {
		case 0:
			w.settle()
		case 1:
			w.restart()
			for _, d := range live {
				must(t, w.table.apply(d))
			}
			if n, err := w.table.dropStale(); n != 0 || err != nil {
				t.Fatalf("step %d: after a restart %d routes were stale, error %v", step, n, err)
			}
		}
		if got := w.describe(d.Key); got != twin[d.Key] {
			t.Fatalf("step %d: %s is %q, want %q", step, d.Key, got, twin[d.Key])
		}
	}
	for key, want := range twin {
		if got := w.describe(key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
		must(t, w.table.apply(route.Decision{Claim: route.Claim{Key: key}, Gone: true}))
	}
	w.settle()
	if n := w.table.nexthops.Len(); n != 0 {
		t.Errorf("%d next hops are in use though no route is left", n)
	}
	if n := w.table.locators.Len(); n != 0 {
		t.Errorf("%d locators are known though no route is left", n)
	}
}

func randomDecision(rnd *rand.Rand) route.Decision {
	prefixes := []string{"10.1.0.%d/32", "2001:db8::%d/128", "10.%d.0.0/16", "2001:db8:%d::/48"}
	d := decision(route.TenantID(1+rnd.IntN(2)), fmt.Sprintf(prefixes[rnd.IntN(4)], 1+rnd.IntN(40)), nil)
	if rnd.IntN(4) == 0 {
		return d
	}
	past := rnd.IntN(6)
	d.Gone, d.Held, d.Moved, d.Awaited = false, past == 0, past == 1, rnd.IntN(2) == 0
	if rnd.IntN(8) == 0 {
		d.Reject = true
		return d
	}
	d.Via = via(fmt.Sprintf("192.0.2.%d", 2+rnd.IntN(6)))
	if rnd.IntN(3) == 0 {
		d.Via.Locators = append(d.Via.Locators, via(fmt.Sprintf("2001:db8:ff::%d", 1+rnd.IntN(6))).Locators...)
		d.Via.Locators[0].Weight = uint8(1 + rnd.IntN(255))
	}
	return d
}

// meaning is what a decision asks for, in words that describe can find again in the maps.
func meaning(d route.Decision) string {
	if d.Reject {
		return "blackhole"
	}
	s := ""
	switch {
	case d.Held && d.Host():
		s = "held "
	case d.Moved && d.Host():
		s = "moved "
	}
	if len(d.Via.Locators) == 1 {
		return s + d.Via.Locators[0].Address.String()
	}
	members := []uint16{0, 1}
	count := [2]int{}
	for _, m := range spread(members, []int{int(d.Via.Locators[0].Weight), int(d.Via.Locators[1].Weight)}, maps.SetMembers) {
		count[m]++
	}
	return fmt.Sprintf("%s%s x %d, %s x %d", s, d.Via.Locators[0].Address, count[0], d.Via.Locators[1].Address, count[1])
}

func (w *tableWorld) describe(key route.Key) string {
	id := w.table.get(entryKey{w.table.tenants.ids[key.Tenant], key.Prefix})
	switch id {
	case 0:
		return ""
	case maps.IDBlackhole:
		return "blackhole"
	}
	target, ok := w.table.nexthops.Target(id)
	if !ok || target.Tenant != w.table.tenants.ids[key.Tenant] {
		return fmt.Sprintf("next hop %d, unknown or of another tenant", id)
	}
	s := ""
	switch target.Flags &^ maps.FlagAwaited {
	case maps.FlagHeld:
		s = "held "
	case maps.FlagMoved:
		s = "moved "
	}
	if target.Kind == maps.KindAdjacency {
		return s + w.table.locators.Key(target.Variant).Address.String()
	}
	var v4, v6 netip.Addr
	count := map[netip.Addr]int{}
	for i := 0; i < len(target.Members); i += 2 {
		a := w.table.locators.Key(uint16(target.Members[i])<<8 | uint16(target.Members[i+1])).Address
		if a.Is4() {
			v4 = a
		} else {
			v6 = a
		}
		count[a]++
	}
	if !v6.IsValid() || !v4.IsValid() { // all buckets went to one
		return "set of one"
	}
	return fmt.Sprintf("%s%s x %d, %s x %d", s, v4, count[v4], v6, count[v6])
}
