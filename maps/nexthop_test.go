package maps

import "testing"

// A member that loses its rewrite gives its buckets to the others, who keep theirs, and gets them back; nothing is left in use
// when the set goes.
func TestBalance(t *testing.T) {
	hosts, err := CreateHostMaps(256)
	if err != nil {
		t.Fatal(err)
	}
	defer hosts.Close()
	o, err := Load(Options{Hosts: hosts})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	n, err := OpenNexthops(o)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	variants := make([]uint16, SetMembers)
	for b := range variants {
		variants[b] = uint16(1 + b%4%3) // 1: half of the buckets, 2 and 3: a quarter each
	}
	set := Target{Kind: KindSet, Tenant: 1, Members: MembersOf(variants)}
	id, err := n.Acquire(set)
	if err != nil {
		t.Fatal(err)
	}
	members := func() (out []uint16) {
		for _, m := range n.sets.entries[nexthop(n.words.load(id)).Index].Member {
			target, _ := n.Target(m)
			out = append(out, target.Variant)
		}
		return out
	}
	balance := func() {
		t.Helper()
		if err := n.Balance(); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(what string, lost ...uint16) {
		t.Helper()
		share := map[uint16]int{}
		for b, got := range members() {
			dead := false
			for _, l := range lost {
				dead = dead || variants[b] == l
				if got == l {
					t.Errorf("%s: bucket %d still leads to %d", what, b, l)
				}
			}
			if !dead && got != variants[b] {
				t.Errorf("%s: bucket %d of a member that lives moved from %d to %d", what, b, variants[b], got)
			}
			share[got]++
		}
		t.Logf("%s: %v", what, share)
	}
	expect("nobody resolved") // stays as it is: counted as unresolved
	for v := uint16(1); v <= 3; v++ {
		if err := n.Resolve(1, v, Adjacency{Locator: v}); err != nil {
			t.Fatal(err)
		}
	}
	balance()
	expect("all resolved")
	n.Unresolve(1, 2)
	balance()
	expect("2 lost", 2)
	n.Unresolve(1, 1)
	balance()
	expect("1 and 2 lost", 1, 2)
	if err := n.Resolve(1, 1, Adjacency{Locator: 1}); err != nil {
		t.Fatal(err)
	}
	if err := n.Resolve(1, 2, Adjacency{Locator: 2}); err != nil {
		t.Fatal(err)
	}
	balance()
	expect("all back")
	n.Doubt(map[uint16]bool{3: true})
	balance()
	expect("3 in doubt", 3)
	n.Doubt(map[uint16]bool{1: true, 2: true, 3: true})
	balance()
	expect("all in doubt")
	n.Unresolve(1, 2)
	balance()
	expect("2 lost, the others in doubt", 2)
	if err := n.Resolve(1, 2, Adjacency{Locator: 2}); err != nil {
		t.Fatal(err)
	}
	n.Doubt(nil)
	balance()
	expect("no doubt")
	n.Release(id)
	for n.Reclaimable() {
		n.Free(n.Rest())
	}
	if n.Len() != 0 || len(n.records) != 0 {
		t.Errorf("%d next hops and %d records left", n.Len(), len(n.records))
	}
	if next, ok := n.freeSet.get(); !ok || next > 8 {
		t.Errorf("set records leaked: the next one is %d", next)
	}
}

// The best priority that has a member left gets all packets; where all members are in doubt, the first with a rewrite does.
func TestBalanceFallsBack(t *testing.T) {
	hosts, err := CreateHostMaps(256)
	if err != nil {
		t.Fatal(err)
	}
	defer hosts.Close()
	o, err := Load(Options{Hosts: hosts})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	n, err := OpenNexthops(o)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	var levels []uint16
	for priority := uint16(1); priority <= 3; priority++ {
		for range SetMembers {
			levels = append(levels, priority)
		}
		if err := n.Resolve(1, priority, Adjacency{Locator: priority}); err != nil {
			t.Fatal(err)
		}
	}
	id, err := n.Acquire(Target{Kind: KindSet, Tenant: 1, Members: MembersOf(levels)})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(what string, want uint16) {
		t.Helper()
		if err := n.Balance(); err != nil {
			t.Fatal(err)
		}
		for b, member := range n.sets.entries[nexthop(n.words.load(id)).Index].Member {
			if target, _ := n.Target(member); target.Variant != want {
				t.Fatalf("%s: bucket %d leads to %d, want %d", what, b, target.Variant, want)
			}
		}
	}
	doubt := func(variants ...uint16) {
		doubted := map[uint16]bool{}
		for _, v := range variants {
			doubted[v] = true
		}
		n.Doubt(doubted)
	}
	expect("all are there", 1)
	doubt(1)
	expect("the first is silent", 2)
	n.Unresolve(1, 2)
	expect("the first is silent, the second has no way", 3)
	doubt(1, 3)
	expect("a doubt beats no way at all", 1)
	doubt()
	expect("the first is back", 1)
	n.Release(id)
	n.Free(n.Rest())
	n.Free(n.Rest())
	if n.Len() != 0 {
		t.Errorf("%d next hops are in use after the set went", n.Len())
	}
}

// A set that a crash left with a member that is gone is adopted: its buckets go to the others.
func TestBalanceAdopts(t *testing.T) {
	hosts, err := CreateHostMaps(256)
	if err != nil {
		t.Fatal(err)
	}
	defer hosts.Close()
	o, err := Load(Options{Hosts: hosts})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	n, err := OpenNexthops(o)
	if err != nil {
		t.Fatal(err)
	}
	variants := make([]uint16, SetMembers)
	for b := range variants {
		variants[b] = uint16(1 + b%2)
	}
	for v := uint16(1); v <= 2; v++ {
		if err := n.Resolve(1, v, Adjacency{Locator: v}); err != nil {
			t.Fatal(err)
		}
	}
	id, err := n.Acquire(Target{Kind: KindSet, Tenant: 1, Members: MembersOf(variants)})
	if err != nil {
		t.Fatal(err)
	}
	gone := n.whole[id][0].Member[0]
	n.words.store(gone, 0)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err = OpenNexthops(o); err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := n.Balance(); err != nil {
		t.Fatal(err)
	}
	for b, member := range n.sets.entries[nexthop(n.words.load(id)).Index].Member {
		if member == gone || member == 0 {
			t.Fatalf("bucket %d leads to a next hop that is gone", b)
		}
	}
}
