package maps

import (
	"net/netip"
	"testing"
)

// front looks a host up in its slot in front, as bpf/table.h does.
func (r *reader) front(k *hostKey) uint32 {
	if k.v6 {
		at := frontAt6(k.space, k.hi, k.lo)
		return r.slot6((r.head6.Buckets+at/4)*16+at%4, k)
	}
	at := frontAt(k.space, uint32(k.key4()))
	word := r.bucket(r.maps.Buckets4, r.head4.Buckets+at/8)[at%8]
	if word>>valueBits != k.key4() {
		return 0
	}
	return uint32(word & maxValue)
}

// compareFront fails the test where a slot in front answers for a host that is not there, or with what it no longer has.
func compareFront(t *testing.T, r *reader, twin map[host]uint32) {
	t.Helper()
	for line := range uint32(frontLines) {
		for _, word := range r.bucket(r.maps.Buckets4, r.head4.Buckets+line) {
			k := hostKey4(word >> valueBits)
			if want := twin[host{uint16(k.space), k.addr()}]; word != 0 && (uint32(word&maxValue) != want || !inFront(&k)) {
				t.Fatalf("in front, %s of space %d has %d, want %d", k.addr(), k.space, word&maxValue, want)
			}
		}
	}
	for i := range uint32(front6Buckets) {
		b := r.bucket6(r.head6.Buckets + i)
		for j, word := range b.Slot {
			if word>>spaceShift == 0 {
				continue
			}
			k := hostKey{hi: b.Addr[j].Hi, lo: b.Addr[j].Lo, space: uint32(word >> spaceShift), v6: true}
			if want := twin[host{uint16(k.space), k.addr()}]; uint32(word&maxValue) != want || want == 0 || !inFront(&k) {
				t.Fatalf("in front, slot %d of bucket %d is %s of space %d with %d, want %d", j, i, k.addr(), k.space, word&maxValue, want)
			}
		}
	}
}

// TestHostsFront follows the gateway's own keys in their slots: through replacement, collision, deletion and restart; and what a killed writer left there.
func TestHostsFront(t *testing.T) {
	g := newGrace(t)
	m, h := createHosts(t, g, 100)
	r := newReader(t, m)
	want := func(space uint16, addr netip.Addr, value uint32) {
		t.Helper()
		k, err := newHostKey(space, addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.front(&k); got != value {
			t.Errorf("in front, %s of space %d has %d, want %d", addr, space, got, value)
		}
	}
	for _, from := range []string{"192.0.2.1", "2001:db8::1"} {
		addr := netip.MustParseAddr(from)
		at := func(a netip.Addr) uint32 {
			k, _ := newHostKey(SpaceLocator, a)
			if k.v6 {
				return frontAt6(k.space, k.hi, k.lo)
			}
			return frontAt(k.space, uint32(k.key4()))
		}
		other := addr.Next()
		for at(other) != at(addr) {
			other = other.Next()
		}
		mustPut(t, h, host{SpaceLocator, addr}, 7)
		mustPut(t, h, host{1, addr}, 5)
		want(SpaceLocator, addr, 7)
		want(1, addr, 0)
		mustPut(t, h, host{SpaceLocator, addr}, 8)
		want(SpaceLocator, addr, 8)
		mustPut(t, h, host{SpaceLocator, other}, 9)
		if addr.Is4() { // the last one has it
			want(SpaceLocator, addr, 0)
			want(SpaceLocator, other, 9)
			h.Delete(SpaceLocator, addr)
			want(SpaceLocator, other, 9)
		} else { // the first one has it
			want(SpaceLocator, addr, 8)
			want(SpaceLocator, other, 0)
			h.Delete(SpaceLocator, addr)
			want(SpaceLocator, addr, 0)
			mustPut(t, h, host{SpaceLocator, other}, 9)
			want(SpaceLocator, other, 0) // somebody may still be looking
			mustSettle(t, h)
			mustPut(t, h, host{SpaceLocator, other}, 9)
			want(SpaceLocator, other, 9)
		}
		h.Delete(SpaceLocator, other)
		want(SpaceLocator, other, 0)
		mustSettle(t, h)
		mustPut(t, h, host{SpaceLocator, addr}, 6)
	}
	gone := map[bool]hostKey{} // by family
	for _, s := range []*slots{&h.cur.v4, &h.cur.v6} {
		k, err := newHostKey(SpaceLocator, testHost(s.v6, 77).addr)
		if err != nil {
			t.Fatal(err)
		}
		s.putFront(&k, 3) // of no host in the table
		s.word[s.base(s.buckets)+1] = 7<<spaceShift | 1
		gone[s.v6] = k
	}
	known, _ := newHostKey(SpaceLocator, netip.MustParseAddr("2001:db8::1"))
	h.cur.v6.putFront(&known, 4) // of before the last change
	h = restart(t, g, m, h)
	want(SpaceLocator, netip.MustParseAddr("192.0.2.1"), 6)
	want(SpaceLocator, netip.MustParseAddr("2001:db8::1"), 6)
	for _, s := range []*slots{&h.cur.v4, &h.cur.v6} {
		want(SpaceLocator, gone[s.v6].addr(), 0)
		if s.taken(s.base(s.buckets) + 1) {
			t.Errorf("in front, %#x was kept", s.word[s.base(s.buckets)+1])
		}
	}
	mustSettle(t, h)
	checkSettled(t, h)
}
