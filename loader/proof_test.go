package main

import (
	"net/netip"
	"testing"
	"time"

	"roam/loader/route"
)

// A proof is completed once, its announcement counts the first time and only at the host's new home, and those that nobody completes make room.
func TestProofs(t *testing.T) {
	var p proofs
	now := time.Now()
	key := func(i int) route.Key {
		return route.KeyOf(1, netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}))
	}
	hold := func(route.Key) time.Duration { return time.Minute }
	p.begin(key(1), &proof{known: now, here: true, detected: now.Add(-time.Second)}, hold)
	p.begin(key(2), &proof{known: now, last: now.Add(-time.Second)}, hold)
	p.begin(key(3), &proof{known: now, here: true}, hold)
	if took, ok := p.announced(key(1), now); !ok || took != time.Second {
		t.Errorf("announced %v after it was detected (%v)", took, ok)
	}
	for i, why := range map[int]string{1: "a second time", 2: "that is elsewhere", 3: "that nobody detected", 4: "that did not move"} {
		if took, ok := p.announced(key(i), now.Add(time.Hour)); ok {
			t.Errorf("a host %s was announced after %v", why, took)
		}
	}
	if is, ok := p.end(key(1)); !ok || !is.announced.Equal(now) {
		t.Errorf("%+v, %v", is, ok)
	}
	if is, ok := p.end(key(1)); ok {
		t.Errorf("twice: %+v", is)
	}
	for i := range maxProofs {
		p.begin(key(i), &proof{known: now.Add(-time.Minute)}, hold)
	}
	p.begin(key(maxProofs), &proof{known: now}, hold)
	if _, ok := p.end(key(maxProofs)); !ok || len(p.open) != 0 {
		t.Errorf("%d old ones are kept (%v)", len(p.open), ok)
	}
	for i := range 2 * maxProofs { // a storm: there is nothing to sweep
		p.begin(key(i), &proof{known: now}, hold)
	}
	if len(p.open) != maxProofs {
		t.Errorf("%d are kept", len(p.open))
	}
}
