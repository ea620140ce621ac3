package config_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rogpeppe/go-internal/txtar"

	"roam/loader/config"
	"roam/loader/route"
)

var (
	addr   = netip.MustParseAddr
	prefix = netip.MustParsePrefix
)

var usualElection = &config.Election{Priority: 100, Interval: 150 * time.Millisecond, Multiplier: 3, Preempt: 10 * time.Second}

func mac(s string) route.MAC {
	m, err := route.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

func parse(t *testing.T, data string, previous *config.Config) *config.Config {
	t.Helper()
	c, err := config.Parse("roamd.yaml", []byte(data), previous)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func equal(t *testing.T, got, want any) {
	t.Helper()
	opts := cmp.Options{cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmpopts.EquateEmpty()}
	if d := cmp.Diff(want, got, opts); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

var (
	standardPorts    = config.TunnelPorts{VXLAN: 4789, VXLANGPE: 4790, Geneve: 6081, GUE: 6080, LISP: 4341}
	standardDatapath = config.Datapath{
		Mode: config.ModeNative, Hosts: 1 << 20, Pin: "/sys/fs/bpf/roam", SourceCheck: config.SourceLoose, ClampMSS: true,
		ICMP: config.ICMP{Rate: 10, Burst: 20}, Frags: config.FragsAuto,
	}
)

func TestMinimal(t *testing.T) {
	c, err := config.Load("testdata/minimal.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, c, &config.Config{
		Site: "dc1",
		Underlay: config.Underlay{
			Interfaces: []string{"wan0"},
			Locators:   []config.OwnLocator{{Address: addr("192.0.2.1"), Public: addr("192.0.2.1")}},
			RouterMAC:  route.RouterMAC(addr("192.0.2.1")),
			DSCP:       config.CopyDSCP, Ports: standardPorts, Probe: usualProbe,
		},
		Tenants: []config.Tenant{{
			ID: 1, Name: "default", VNI: 3890290,
			Segments: []config.Segment{{
				Name:    "lan0",
				Access:  config.Access{Interface: "lan0", Mode: config.ModeEthernet},
				Subnets: []netip.Prefix{prefix("10.1.0.0/24")},
				Gateway: config.Gateway{
					Role: config.RoleDefault, Addresses: []netip.Addr{addr("10.1.0.1")},
					MAC:      c.Tenants[0].Segments[0].Gateway.MAC,
					Election: usualElection,
				},
				Mobility: config.Mobility{
					Freeze: config.Freeze{Moves: 5, Window: 3 * time.Minute},
					Hold:   30 * time.Second,
					Probe:  config.Probe{Interval: time.Second, Lost: 3},
				},
				Egress: config.Egress{Mode: config.EgressLocal},
			}},
		}},
		Hooks:    config.Hooks{Timeout: 30 * time.Second, Parallel: 4},
		API:      config.API{Socket: "/run/roam/roamd.sock", State: "/var/lib/roam/routes.jsonl"},
		Metrics:  config.Metrics{Listen: "127.0.0.1:9177"},
		Datapath: standardDatapath,
	})
	if m := c.Tenants[0].Segments[0].Gateway.MAC; m[0] != 2 || m.Valid() != nil {
		t.Errorf("gateway MAC %s is not locally administered unicast", m)
	}
}

// The derived numbers are part of what gateways of different versions agree on: they never change.
func TestDerivedIsStable(t *testing.T) {
	c := parse(t, minimal(t), nil)
	if got, want := c.Tenants[0].Segments[0].Gateway.MAC.String(), "02:95:a7:02:ab:ee"; got != want {
		t.Errorf("gateway MAC %s, want %s", got, want)
	}
	if got, want := c.Underlay.RouterMAC.String(), "02:83:95:f6:d4:f6"; got != want {
		t.Errorf("router MAC %s, want %s", got, want)
	}
}

func TestReference(t *testing.T) {
	c, err := config.Load("reference.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, c, &config.Config{
		Site: "dc1",
		Underlay: config.Underlay{
			Interfaces: []string{"wan0"},
			Locators: []config.OwnLocator{
				{Address: addr("192.0.2.1"), Public: addr("203.0.113.7")},
				{Address: addr("2001:db8:ff::1"), Public: addr("2001:db8:ff::1")},
			},
			RouterMAC: mac("02:00:00:00:00:01"), DSCP: config.CopyDSCP, Ports: standardPorts,
			BFD: &config.BFD{
				Interval: 100 * time.Millisecond, Multiplier: 3, MinTTL: 250,
				Auth: &config.BFDAuth{Type: config.BFDMeticulousSHA1, ID: 1, Key: "a secret of all ends"},
			},
			Probe: usualProbe,
		},
		Sites: []config.Site{{Name: "dc2", Locators: []config.RemoteLocator{
			{
				Locator: route.Locator{Address: addr("192.0.2.2"), Priority: 1, Weight: 100, RouterMAC: mac("02:00:00:00:00:02")},
				ECN:     true, UDPChecksum: true,
			},
			{
				Locator: route.Locator{
					Address: addr("2001:db8:ff::2"), Encap: route.GUE, Port: 6081, Priority: 2, Weight: 100,
					RouterMAC: route.RouterMAC(addr("2001:db8:ff::2")),
				},
				Tenant: "default", TenantID: 1,
			},
		}}},
		Tenants: []config.Tenant{{
			ID: 1, Name: "default", VNI: 7001, RouteTargets: []string{"65000:7001"},
			Uplinks: []config.Port{{Interface: "up0"}},
			Segments: []config.Segment{{
				Name: "web", L2VNI: 10,
				Access:  config.Access{Interface: "lan0", Mode: config.ModeEthernet},
				Subnets: []netip.Prefix{prefix("10.1.0.0/24"), prefix("2001:db8:1::/64")},
				Gateway: config.Gateway{
					Role:         config.RoleDefault,
					Addresses:    []netip.Addr{addr("10.1.0.1"), addr("2001:db8:1::1"), addr("fe80::1")},
					OwnAddresses: []netip.Addr{addr("10.1.0.2"), addr("2001:db8:1::2")},
					MAC:          mac("02:00:5e:10:00:01"),
					Routers:      []netip.Addr{addr("10.1.0.254")},
					ForeignMACs:  []route.MAC{mac("00:50:56:aa:bb:cc")},
					Advertise:    true,
					Lifetime:     30 * time.Minute,
					Election:     usualElection,
				},
				Mobility: config.Mobility{
					Freeze: config.Freeze{Moves: 5, Window: 3 * time.Minute, Recover: 30 * time.Minute},
					Hold:   30 * time.Second,
					Probe:  config.Probe{Interval: time.Second, Lost: 3},
					Allow:  []netip.Prefix{prefix("10.1.0.0/25")},
				},
				Home: "dc1",
				Egress: config.Egress{Mode: config.EgressList, Routes: []config.EgressRoute{
					{Prefix: prefix("198.51.100.0/24"), Via: "home"},
					{From: prefix("10.1.0.64/26"), Via: "dc2"},
					{From: prefix("10.1.0.66/32"), Via: "local"},
				}},
				DHCPRelay: []netip.Addr{addr("10.1.0.253")},
			}},
		}},
		Sources: config.Sources{
			File: &config.FileSource{Path: "/etc/roam/routes.yaml"},
			FIB:  []config.FIBTable{{Table: 100, Tenant: 1, Locator: route.Locator{Priority: 1, Weight: 100}}},
			BGP: &config.BGP{ASN: 65001, RouterID: addr("192.0.2.1"), Port: 179, Neighbors: []config.BGPNeighbor{{
				Address: addr("192.0.2.2"), ASN: 65002, Local: addr("192.0.2.1"), Port: 179,
				Password: "a secret of both ends", Multihop: 64, TTLSecurity: 1,
				Timers:          config.BGPTimers{Hold: 90 * time.Second, Keepalive: 30 * time.Second, ConnectRetry: 5 * time.Second},
				GracefulRestart: 2 * time.Minute,
				Families:        []config.BGPFamily{config.FamilyEVPN, config.FamilyIPv4, config.FamilyIPv6},
				Tenant:          1,
				NextHops:        []netip.Addr{addr("203.0.113.1"), addr("2001:db8:3::1")},
				MaxPrefix:       100000,
				Import: config.BGPPolicy{
					Prefixes: []netip.Prefix{prefix("10.0.0.0/8"), prefix("2001:db8::/32")}, Communities: []string{"65000:100"},
				},
				Export: config.BGPPolicy{
					Prefixes:    []netip.Prefix{prefix("10.0.0.0/8"), prefix("2001:db8::/32")},
					Communities: []string{"65000:100", "65000:1:2"},
				},
			}}},
		},
		Hooks:    config.Hooks{HostChange: "/usr/local/libexec/roam-cloud", Timeout: 30 * time.Second, Parallel: 4},
		API:      config.API{Socket: "/run/roam/roamd.sock", State: "/var/lib/roam/routes.jsonl"},
		Metrics:  config.Metrics{Listen: "127.0.0.1:9177"},
		Datapath: standardDatapath,
		Warnings: c.Warnings,
	})
	var keys []string
	for _, w := range c.Warnings {
		keys = append(keys, regexp.MustCompile(`^reference\.yaml:\d+: ([^:]*): .*not acted on yet`).FindStringSubmatch(w)[1])
	}
	equal(t, keys, []string{
		"tenants[0].segments[0].dhcp_relay",
	})
}

// The reference names every key: a key that is read and not explained there is found here.
func TestReferenceNamesEveryKey(t *testing.T) {
	reference, err := os.ReadFile("reference.yaml")
	if err != nil {
		t.Fatal(err)
	}
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	calls := regexp.MustCompile(`\.mapping\(([^)]*)\)`)
	for _, file := range sources {
		code, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range calls.FindAllStringSubmatch(string(code), -1) {
			for _, quoted := range regexp.MustCompile(`"([a-z0-9_]+)"`).FindAllStringSubmatch(call[1], -1) {
				if !regexp.MustCompile(`\b` + quoted[1] + `\b`).Match(reference) {
					t.Errorf("%s reads key %s, which reference.yaml does not name", file, quoted[1])
				}
			}
		}
	}
}

func TestTenantsKeepTheirNumbers(t *testing.T) {
	file := func(names ...string) string {
		s := "site: a\nunderlay: {interfaces: [u], locators: [192.0.2.1]}\ntenants:\n"
		for _, n := range names {
			s += "  - name: " + n + "\n"
		}
		return s
	}
	ids := func(c *config.Config) map[string]route.TenantID {
		m := make(map[string]route.TenantID)
		for _, tenant := range c.Tenants {
			m[tenant.Name] = tenant.ID
		}
		return m
	}
	c := parse(t, file("red", "green", "blue"), nil)
	equal(t, ids(c), map[string]route.TenantID{"red": 1, "green": 2, "blue": 3})
	c = parse(t, file("blue", "white", "red"), c)
	equal(t, ids(c), map[string]route.TenantID{"red": 1, "white": 2, "blue": 3})
	c = parse(t, file("black", "grey", "blue"), c)
	equal(t, ids(c), map[string]route.TenantID{"black": 1, "grey": 2, "blue": 3})
}

func TestFIBTenant(t *testing.T) {
	c := parse(t, `site: a
underlay: {interfaces: [u], locators: [192.0.2.1]}
tenants: [{name: red}, {name: blue}]
sources: {fib: [{table: 100, tenant: blue, priority: 7}, {table: 101}]}
`, &config.Config{Tenants: []config.Tenant{{Name: "blue", ID: 9}}})
	equal(t, c.Sources.FIB, []config.FIBTable{
		{Table: 100, Tenant: 9, Locator: route.Locator{Priority: 7, Weight: 100}},
		{Table: 101, Tenant: 1, Locator: route.Locator{Priority: 1, Weight: 100}},
	})
}

func TestBGPDefaults(t *testing.T) {
	c := parse(t, `site: a
underlay: {interfaces: [u], locators: ["2001:db8:ff::1", 192.0.2.1]}
tenants: [{name: red}, {name: blue}]
sources: {bgp: {asn: 65001, neighbors: [192.0.2.9, {address: "2001:db8::9", tenant: blue, timers: {hold: 10s}}]}}
`, &config.Config{Tenants: []config.Tenant{{Name: "blue", ID: 9}}})
	n := config.BGPNeighbor{
		Address: addr("192.0.2.9"), ASN: 65001, Port: 179, Multihop: 64, GracefulRestart: 2 * time.Minute, Tenant: 1,
		Timers:   config.BGPTimers{Hold: 90 * time.Second, Keepalive: 30 * time.Second, ConnectRetry: 5 * time.Second},
		Families: []config.BGPFamily{config.FamilyEVPN},
	}
	m := n
	m.Address, m.Tenant, m.Timers.Hold, m.Timers.Keepalive = addr("2001:db8::9"), 9, 10*time.Second, 3*time.Second
	equal(t, c.Sources.BGP, &config.BGP{ASN: 65001, RouterID: addr("192.0.2.1"), Port: 179, Neighbors: []config.BGPNeighbor{n, m}})
}

// In a fabric the gateway is no router of the hosts': it has no shared addresses, and is a stick.
func TestFabricDefaults(t *testing.T) {
	const access = `{interface: wan0, mode: fabric, next_hop_mac: "12:34:56:78:9a:bc"}`
	c := parse(t, strings.Replace(minimal(t), "{interface: lan0}", access, 1), nil)
	s := c.Tenants[0].Segments[0]
	equal(t, s.Access, config.Access{Interface: "wan0", Mode: config.ModeFabric, NextHopMAC: route.MAC{0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc}})
	if s.Gateway.Role != config.RoleStick || len(s.Gateway.Addresses) > 0 || len(c.Warnings) > 0 {
		t.Errorf("%+v, %v", s.Gateway, c.Warnings)
	}
}

// Behind NAT what others derive from our locator is derived from its public address: the router MAC, and a router id that no
// other site has.
func TestPublicLocator(t *testing.T) {
	c := parse(t, `site: a
underlay: {interfaces: [u], locators: [{address: 10.9.0.5, public: 192.0.2.9}]}
tenants: [{name: red}]
sources: {bgp: {asn: 65001, neighbors: [192.0.2.1]}}
`, nil)
	public := addr("192.0.2.9")
	if mac, id := c.Underlay.RouterMAC, c.Sources.BGP.RouterID; mac != route.RouterMAC(public) || id != public || len(c.Warnings) > 0 {
		t.Errorf("router MAC %v, want %v; router id %v, want %v; %v", mac, route.RouterMAC(public), id, public, c.Warnings)
	}
}

func TestBFDDefaults(t *testing.T) {
	c := parse(t, strings.Replace(minimal(t), "underlay:\n", "underlay:\n  bfd: {}\n", 1), nil)
	equal(t, c.Underlay.BFD, &config.BFD{Interval: 100 * time.Millisecond, Multiplier: 3, MinTTL: 1})
}

var usualProbe = &config.TunnelProbe{Interval: 100 * time.Millisecond, Multiplier: 3, FullSize: 5 * time.Second}

func TestTunnelProbe(t *testing.T) {
	for text, want := range map[string]*config.TunnelProbe{
		"": usualProbe, "  probe: {}\n": usualProbe, "  probe: off\n": nil,
		"  probe: {interval: 1s, full_size_interval: 0s}\n": {Interval: time.Second, Multiplier: 3},
	} {
		c := parse(t, strings.Replace(minimal(t), "underlay:\n", "underlay:\n"+text, 1), nil)
		equal(t, c.Underlay.Probe, want)
	}
}

func TestDefaultsFollow(t *testing.T) {
	c := parse(t, minimal(t)+"api: {socket: /tmp/x.sock}\nmetrics: {listen: \"\"}\ndatapath: {hosts: 2M}\n", nil)
	if c.API.State != "/tmp/x.sock.routes" || c.Metrics.Listen != "" || c.Datapath.Hosts != 2<<20 {
		t.Errorf("%+v %+v %+v", c.API, c.Metrics, c.Datapath)
	}
}

func minimal(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("testdata/minimal.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestWrong applies each entry of the table to a right file: lines with '-' are replaced by those with '+', and
// those with '=' are the messages, in order. An entry without '-' replaces the whole file.
func TestWrong(t *testing.T) {
	table, err := txtar.ParseFile("testdata/wrong.txtar")
	if err != nil {
		t.Fatal(err)
	}
	base := string(table.Comment)
	base = base[strings.Index(base, "site:"):]
	parse(t, base, nil)
	for _, entry := range table.Files {
		t.Run(entry.Name, func(t *testing.T) {
			var old, new, want strings.Builder
			for line := range strings.Lines(string(entry.Data)) {
				switch line[0] {
				case '-':
					old.WriteString(line[1:])
				case '+':
					new.WriteString(line[1:])
				case '=':
					want.WriteString(line[2:])
				}
			}
			data := new.String()
			if old.Len() > 0 {
				if strings.Count(base, old.String()) != 1 {
					t.Fatalf("the right file does not hold this exactly once:\n%s", &old)
				}
				data = strings.Replace(base, old.String(), data, 1)
			}
			c, err := config.Parse("roamd.yaml", []byte(data), nil)
			got := "none"
			if err != nil {
				got = err.Error()
			}
			if got != strings.TrimSpace(want.String()) {
				t.Errorf("got\n= %s\nwant\n= %s\nfor\n%s", strings.ReplaceAll(got, "\n", "\n= "), strings.TrimSpace(want.String()), data)
			}
			if (c == nil) != (err != nil) {
				t.Error("an error and a configuration, or neither")
			}
		})
	}
}

func TestLoadErrors(t *testing.T) {
	if _, err := config.Load(filepath.Join(t.TempDir(), "none"), nil); err == nil || !strings.Contains(err.Error(), "--config") {
		t.Errorf("missing file: %v", err)
	}
	big := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(big, make([]byte, 5<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(big, nil); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("big file: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, file := range []string{"reference.yaml", "testdata/minimal.yaml", "testdata/wrong.txtar"} {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Parse("f", data, nil)
		if (c == nil) != (err != nil) {
			t.Fatal("an error and a configuration, or neither")
		}
		if err != nil {
			return
		}
		again, err := config.Parse("f", data, c)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, again, c)
	})
}
