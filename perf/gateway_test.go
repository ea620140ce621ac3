package main

import (
	"net"
	"testing"

	"github.com/cilium/ebpf"

	"roam/lab"
	"roam/maps"
	"roam/maps/bench"
)

// Every program of the benchmark must do what its row says, over every structure: the counters of the walk itself are asked.
func TestRowsDoWhatTheySay(t *testing.T) {
	l := lab.New(t)
	gw, far := l.Namespace("test"), l.Namespace("void")
	l.Cable(lab.End{In: gw, Name: "out0"}, lab.End{In: far, Name: "out1"}, 1600, 1)
	err := gw.Do(func() error {
		b, err := newBed(plan{sizes: []int{1, 64}, trieUpTo: 64, hash6To: 64, fillOf: 64, seriesAt: 64})
		if err != nil {
			return err
		}
		if len(b.rows) < 90 {
			t.Errorf("only %d rows", len(b.rows))
		}
		return b.close()
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A row whose packets do not take the way it claims is refused, or the table would quote the price of a drop.
func TestCheckRefusesOtherWays(t *testing.T) {
	l := lab.New(t)
	gw, far := l.Namespace("test"), l.Namespace("void")
	l.Cable(lab.End{In: gw, Name: "out0"}, lab.End{In: far, Name: "out1"}, 1600, 1)
	err := gw.Do(func() error {
		out, err := net.InterfaceByName("out0")
		if err != nil {
			return err
		}
		g, err := newGateway(crowd{hosts: 2}, side{loopback, maps.RoleAccess}, side{uint32(out.Index), maps.RoleUnderlay})
		if err != nil {
			return err
		}
		defer g.close()
		w, err := g.load(bench.Table, nil, shape{}, maps.DefaultTune, false)
		if err != nil {
			return err
		}
		defer w.close()
		r := row{What: "encap", gateway: g, walker: w, program: w.Walk, want: xdpRedirect, reason: "fwd_encap", Drawn: 1}
		if err := r.check(); err != nil {
			t.Errorf("right row: %v", err)
		}
		r.Drawn = 4 // hosts 2 and 3 are in no table
		if r.check() == nil {
			t.Error("packets to unknown hosts pass for encapsulated ones")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The peers must hold exactly what the table holds.
func TestPeersHoldTheTable(t *testing.T) {
	l := lab.New(t)
	gw, far := l.Namespace("test"), l.Namespace("void")
	l.Cable(lab.End{In: gw, Name: "out0"}, lab.End{In: far, Name: "out1"}, 1600, 1)
	err := gw.Do(func() error {
		g, err := newGateway(crowd{hosts: 100}, side{loopback, maps.RoleAccess}, side{2, maps.RoleUnderlay})
		if err != nil {
			return err
		}
		defer g.close()
		for _, s := range []bench.Structure{bench.Hash, bench.Trie} {
			peers, err := g.newPeers(s, true)
			if err != nil {
				return err
			}
			for name, want := range map[string]int{bench.Peer4: g.table.Len4(), bench.Peer6: g.table.Len6()} {
				if got := entries(peers[name]); got != want {
					t.Errorf("%s %s has %d entries, the table %d", s, name, got, want)
				}
			}
			if err := closeAll(peers); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func entries(m *ebpf.Map) (n int) {
	key, value := make([]byte, m.KeySize()), make([]byte, m.ValueSize())
	for i := m.Iterate(); i.Next(&key, &value); {
		n++
	}
	return n
}
