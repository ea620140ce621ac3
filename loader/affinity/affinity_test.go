package affinity

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func host(n int) Host { return Host{1, netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)})} }

func pair(a, b int, bytes uint64) Pair { return Pair{host(a), host(b), bytes / 100, bytes} }

func text(groups []Group, cut []Pair) string {
	var s []string
	for _, g := range groups {
		line := fmt.Sprint(g.Bytes, ":")
		for _, h := range g.Hosts {
			line += fmt.Sprint(" ", int(h.Addr.As4()[3]))
		}
		s = append(s, line)
	}
	for _, p := range cut {
		s = append(s, fmt.Sprintf("cut %d", p.Bytes))
	}
	return strings.Join(s, "\n")
}

// Those that talk are together; where that is too many, the thin threads are cut. Nothing depends on the order of the pairs.
func TestGroups(t *testing.T) {
	pairs := []Pair{pair(1, 2, 5000), pair(2, 3, 4000), pair(3, 4, 100), pair(4, 5, 3000), pair(7, 8, 200)}
	for _, c := range []struct {
		size int
		want string
	}{
		{5, "12100: 1 2 3 4 5\n200: 7 8"},
		{3, "9000: 1 2 3\n3000: 4 5\n200: 7 8\ncut 100"},
		{2, "5000: 1 2\n3000: 4 5\n200: 7 8\ncut 4000\ncut 100"},
		{1, "cut 5000\ncut 4000\ncut 3000\ncut 200\ncut 100"},
	} {
		for range 10 {
			rand.Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
			if got := text(Groups(pairs, c.size)); got != c.want {
				t.Errorf("groups of %d:\n%s\nwant\n%s", c.size, got, c.want)
			}
		}
	}
}

// No group is too large, and no traffic is lost, whatever the pairs.
func TestGroupsOfMany(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	var pairs []Pair
	var all uint64
	for range 20000 {
		p := pair(r.IntN(3000), 3000+r.IntN(3000), r.Uint64N(100_000))
		pairs, all = append(pairs, p), all+p.Bytes
	}
	groups, cut := Groups(pairs, 40)
	seen := map[Host]bool{}
	for _, g := range groups {
		all -= g.Bytes
		if len(g.Hosts) > 40 || slices.ContainsFunc(g.Hosts, func(h Host) bool { was := seen[h]; seen[h] = true; return was }) {
			t.Fatalf("seed %d: a group of %d, or a host in two", seed, len(g.Hosts))
		}
	}
	for _, p := range cut {
		all -= p.Bytes
	}
	if all != 0 {
		t.Fatalf("seed %d: %d bytes are nowhere", seed, all)
	}
}
