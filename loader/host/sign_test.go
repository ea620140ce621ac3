package host

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"roam/loader/route"
)

// show says that the data path saw a host on lan0.
func (l *lan) show(s *Source, addr string, m string) {
	l.Helper()
	var shown route.MAC
	if m != "" {
		shown = mac(l.TB, m)
	}
	s.Saw(l.Context(), Sign{Tenant: segment().Tenant, Link: "lan0", MAC: shown, Addr: netip.MustParseAddr(addr)})
}

// A host that shows itself is asked, and claimed when it answers: it, and none of those that can be no host or are not there.
func TestSigns(t *testing.T) {
	l := newLAN(t)
	source, heard := l.follow(Options{})
	for _, addr := range []string{"10.1.0.7", "2001:db8:1::7"} {
		l.has(addr + "/24")
		l.show(source, addr, farMAC)
	}
	heard.is(t, hostWords("10.1.0.7", "2001:db8:1::7")...)

	l.has("10.1.0.8/24")
	l.has("10.9.0.8/24")
	no := segment()
	for _, g := range []Sign{
		{Link: "lan1", Addr: netip.MustParseAddr("10.1.0.8")},
		{Link: "lan0", VLAN: 5, Addr: netip.MustParseAddr("10.1.0.8")},
		{Link: "lan0", Inner: 5, Addr: netip.MustParseAddr("10.1.0.8")},
		{Link: "lan0", Addr: netip.MustParseAddr("10.9.0.8")},
		{Link: "lan0", Addr: no.Gateway[0]},
		{Link: "lan0", Addr: no.Own[0]},
		{Link: "lan0", Addr: netip.MustParseAddr("10.1.0.8"), MAC: no.NotHost[0]},
	} {
		g.Tenant = no.Tenant
		if g.MAC.IsZero() {
			g.MAC = mac(t, farMAC)
		}
		source.Saw(t.Context(), g)
	}
	l.show(source, "10.1.0.6", farMAC) // a liar: nobody answers
	l.has("10.1.0.9/24")
	l.show(source, "10.1.0.9", farMAC)
	heard.is(t, hostWords("10.1.0.7", "2001:db8:1::7", "10.1.0.9")...)
	if out, _ := exec.Command("ip", "neigh", "show", "10.1.0.8").Output(); len(out) > 0 {
		t.Errorf("the kernel asks for what is no host: %s", out)
	}
}

// A host that is mute at first, as while it looks for duplicates, is asked again; and at once when it shows itself again.
func TestSignOfOneThatIsMute(t *testing.T) {
	l := newLAN(t)
	source, heard := l.follow(Options{})
	l.show(source, "10.1.0.7", farMAC)
	l.show(source, "10.1.0.8", farMAC)
	l.has("10.1.0.8/24")
	l.show(source, "10.1.0.8", farMAC)
	l.has("10.1.0.7/24")
	heard.is(t, hostWords("10.1.0.7", "10.1.0.8")...)
}

// A wanted host is looked for once. Many that nobody has are too many; one that shows itself is found all the same.
func TestWanted(t *testing.T) {
	l := newLAN(t)
	source, heard := l.follow(Options{})
	l.has("10.1.0.7/24")
	l.show(source, "10.1.0.7", "")
	heard.is(t, hostWords("10.1.0.7")...)

	a := netip.MustParseAddr("2001:db8:1::1:0")
	for range 1000 {
		l.show(source, a.String(), "")
		a = a.Next()
	}
	l.has("2001:db8:1::1:5/64")
	l.show(source, "2001:db8:1::1:5", farMAC)
	l.has("2001:db8:1::9/64")
	l.show(source, "2001:db8:1::9", farMAC)
	heard.is(t, hostWords("10.1.0.7", "2001:db8:1::1:5", "2001:db8:1::9")...)
	if n := source.Status().Unheeded; n != 1000-maxSearches {
		t.Errorf("%d addresses too many, want %d", n, 1000-maxSearches)
	}
	out, err := exec.Command("ip", "-6", "neigh", "show", "dev", "lan0", "nud", "all").Output()
	if n := strings.Count(string(out), "2001:db8:1::1:"); err != nil || n > maxSearches {
		t.Errorf("the kernel was asked for %d (%v)", n, err)
	}
}

// The time of a move counts from the first of its signs, until the claim that comes of them has been reported, or nobody has answered.
func TestFirstSign(t *testing.T) {
	for _, addr := range bothFamilies {
		m := newModel(t, segment())
		key, first := hostKey(1, netip.MustParseAddr(addr)), m.clock
		show := func() {
			m.confirm(Sign{Kind: SignClaim, Tenant: 1, Link: "lan0", MAC: macA, Addr: key.Prefix.Addr(), When: m.clock})
			m.clock = m.clock.Add(time.Second)
		}
		is := func(what string, want time.Time) {
			t.Helper()
			if got, ok := m.FirstSign(key); ok == want.IsZero() || ok && got != want {
				t.Errorf("%s: first sign at %v, %v; want %v", what, got, ok, want)
			}
		}
		is("before", time.Time{})
		show()
		show()
		is("shown twice", first)
		m.found(addr, macA)
		is("found, and not reported yet", first)
		m.reported([]route.Change{{Claim: route.Claim{Key: key}, Withdraw: true}})
		is("its old claim is withdrawn", first)
		m.reported([]route.Change{{Claim: m.claims[key]}})
		is("reported", time.Time{})
		m.gone(addr)
		show()
		for range hintTicks {
			m.askHints()
		}
		is("no answer", time.Time{})
	}
}
