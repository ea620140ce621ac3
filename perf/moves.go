package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"roam/lab"
)

// What it costs a host to move: it is plugged in at the other site, shows itself in one of several ways or not at all, and is sent 1,000
// packets a second all the while, by a host of each site and in each family. The same move is made in two networks in turn, of the same machines
// but for the gateways: Roam at both sites, and FRR with the kernel's VXLAN at both. Hosts are behind a switch of their own, whose uplink
// stays up, so that the switch at the gateway goes on believing that a host is where it was.
//
// A host's outage is counted from the moment that the switch's netlink call, which plugs it in, has returned: before that it has no cable, and no
// gateway could help. It ends with the first packet that arrives of those sent after the last one lost. The figure of a move is
// the worse of the two senders'. A stream between two hosts that do not move says how long the machine itself stopped.
//
// Until the host's first frame reaches the LAN of its new site nobody can know of it: that is the host's own pause, and what is lost in it the
// host's own loss. What a gateway answers for is what is lost of the packets that were sent after that frame (see gate).

const (
	moveRate = 1000 // packets a second of each probing stream
	dataRate = 500  // of each stream that a moving host sends by itself

	moveLimit = 15 * time.Second // an outage that takes longer is not waited for, but of silent hosts
)

// moveKind is one way to move.
type moveKind struct {
	name string
	goal float64 // ms
	show func(h *lab.Host)
	out  bool // the host sends by itself all the time
	// stale: everybody's neighbour caches stay as they are before the move
	stale bool
	slow  bool // takes FRR half a minute: it makes one move only
}

var moveKinds = []moveKind{
	{name: "announced", goal: 10, show: (*lab.Host).Announce},
	{name: "only data", goal: 10, out: true},
	{name: "RARP", goal: 50, show: (*lab.Host).Arrive},
	{name: "stale caches", goal: 10, show: (*lab.Host).Announce, stale: true},
	{name: "silent", goal: 4000, slow: true},
}

// moveLegend says what a kind is, in the table.
var moveLegend = map[string]string{
	"announced":    "one GARP, one unsolicited NA",
	"only data":    "the host sends packets, and announces nothing",
	"RARP":         "the hypervisor sends one RARP",
	"stale caches": "announced, and all neighbour caches of the three hosts stay as they were",
	"silent":       "the host says nothing",
}

// moveSide is one network and what was measured in it.
type moveSide struct {
	What string     `json:"what"`
	Rows []*moveRow `json:"rows"`

	sites *lab.Sites
	at    int // where h11 is
	ready func(h *lab.Host)
}

// moveRow is what one kind of move came to, in one family.
type moveRow struct {
	Kind    string    `json:"kind"`
	Family  string    `json:"family"`
	Goal    float64   `json:"goal_ms"`
	Outages []float64 `json:"outages_ms"`
	Never   int       `json:"never"`     // outages that were not over after moveLimit
	Lost    []int     `json:"lost"`      // packets of both streams that were sent after the host was plugged in
	Shown   []float64 `json:"shown_ms"`  // from there to the first frame that the host sent: its own pause
	Beyond  []float64 `json:"beyond_ms"` // from that frame to the end of the outage, 0 where nothing that was sent after it is lost
	Late    []int     `json:"late"`      // packets lost of those that were sent after it
	Paused  []float64 `json:"paused_ms"` // longest gap of a stream between hosts that stayed
	Figure  Figure    `json:"ms"`
	Commit  string    `json:"commit"`
	Date    string    `json:"date"`
}

// movesResult is what moves.json holds.
type movesResult struct {
	Machine Machine     `json:"machine"`
	Date    string      `json:"date"`
	Sides   []*moveSide `json:"sides"`
	Crowd   *crowdSide  `json:"crowd,omitempty"`
}

// movesFlags adds this benchmark's flags: whether it is asked for, and what runs it then.
func movesFlags() (asked *bool, run func(out string) error) {
	asked = flag.Bool("moves", false, "measure hosts that move instead: Roam, beside FRR and the kernel")
	moves := flag.Int("n", 20, "with -moves: moves of each kind")
	few := flag.Int("few", 5, "with -moves: moves of each kind for FRR, which needs seconds for each to be over")
	kinds := flag.String("kinds", "", "with -moves: only these, with commas between them, or crowd; the others stay as they were")
	crowd := flag.Int("crowd", 10_000, "with -moves: hosts that move at once; 0 for none")
	return asked, func(out string) error { return runMoves(*moves, *few, *crowd, *kinds, out) }
}

func runMoves(moves, few, crowd int, kinds, out string) error {
	t := &topLevel{}
	defer t.end()
	dir, err := os.MkdirTemp("", "roam-bin-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bins, err := lab.Build(dir, "bench")
	if err != nil {
		return err
	}
	result := &movesResult{Machine: thisMachine(), Date: time.Now().UTC().Format(time.DateOnly)}
	wanted := moveKinds
	if kinds != "" {
		wanted = slices.DeleteFunc(slices.Clone(moveKinds), func(k moveKind) bool { return !slices.Contains(strings.Split(kinds, ","), k.name) })
	}
	if len(wanted) > 0 {
		result.Sides = []*moveSide{roamSide(t, bins), frrSide(t)}
	}
	for _, kind := range wanted {
		progress("%s", kind.name)
		for n := range moves {
			for _, side := range result.Sides {
				if side.sites.FRR != nil && (n >= few || kind.slow && n > 0) {
					continue
				}
				if err := side.move(&kind); err != nil {
					return fmt.Errorf("%s, %s, move %d: %w", side.What, kind.name, n+1, err)
				}
			}
		}
		if err := result.write(out); err != nil { // a later one may not come to its end
			return err
		}
	}
	for _, side := range result.Sides {
		side.sites.Close()
	}
	if crowd > 0 && (kinds == "" || kinds == "crowd") {
		progress("%d hosts at once", crowd)
		result.Crowd = runCrowd(t, bins, crowd)
	}
	if err := result.write(out); err != nil {
		return err
	}
	fmt.Print(result.markdown())
	return nil
}

// write writes what there is, with what an earlier run measured and this one did not, or has yet to.
func (r *movesResult) write(out string) error {
	for _, side := range r.Sides {
		for _, row := range side.Rows {
			if row.Commit == "" {
				row.Commit, row.Date = r.Machine.Commit, r.Date
			}
			row.Figure = summarize(row.Outages)
		}
	}
	raw, err := os.ReadFile(filepath.Join(out, r.Machine.name(), "moves.json"))
	var before movesResult
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	case err == nil:
		err = json.Unmarshal(raw, &before)
	}
	if err != nil {
		return fmt.Errorf("read the result of an earlier run: %w", err)
	}
	whole := r.with(&before)
	return writeResult(out, r.Machine, "moves", whole, whole.markdown())
}

// with adds what only an earlier run measured. The rows of this one may still grow, and stay apart.
func (r *movesResult) with(before *movesResult) *movesResult {
	whole := *r
	if whole.Crowd == nil {
		whole.Crowd = before.Crowd
	}
	if len(r.Sides) == 0 {
		whole.Sides = before.Sides
		return &whole
	}
	var sides []*moveSide
	for i, side := range r.Sides {
		both := *side
		both.Rows = slices.Clone(side.Rows)
		if i < len(before.Sides) {
			for _, row := range before.Sides[i].Rows {
				if !slices.ContainsFunc(side.Rows, func(new *moveRow) bool { return new.Kind == row.Kind }) {
					both.Rows = append(both.Rows, row)
				}
			}
		}
		sides = append(sides, &both)
	}
	whole.Sides = sides
	return &whole
}

// roamSide has a Roam gateway at each site, with different MACs, each of which knows the other's for one that stood where hosts come from.
func roamSide(t lab.TB, bins lab.Binaries) *moveSide {
	s := lab.NewSites(t, bins, lab.Options{NoRoutes: true, Racks: true})
	macs := []string{"02:00:5e:10:00:01", "02:00:5e:10:00:02"}
	for site, g := range s.GW {
		g.Config.Mobility = "{freeze: {moves: 1000}}"
		g.Config.GatewayMAC, g.Config.Foreign = macs[site], []string{macs[1-site]}
		g.Config.BGP = &lab.BGP{ASN: 65001 + site, Neighbors: []string{fmt.Sprintf("{address: 192.0.2.%d, asn: %d}", 2-site, 65002-site)}}
		g.Launch()
	}
	for _, g := range s.GW {
		g.AwaitReady()
	}
	return newMoveSide("Roam", s, func(h *lab.Host) {
		for _, g := range s.GW {
			for _, ip := range h.IPs() {
				s.Until(20*time.Second, fmt.Sprintf("%s has %s at %s", g.Name, ip, lab.SiteNames[h.Site]), func() error {
					var shown struct{ State, Site string }
					g.JSON(&shown, "host", "show", ip.String())
					if shown.Site != lab.SiteNames[h.Site] || shown.State == "leaving" || shown.State == "learning" {
						return fmt.Errorf("it is %+v", shown)
					}
					return nil
				})
			}
		}
	})
}

// frrSide has FRR and the kernel's VXLAN at both, which bridge the subnet between the sites.
func frrSide(t lab.TB) *moveSide {
	s := lab.NewSites(t, lab.Binaries{}, lab.Options{NoRoutes: true, Racks: true, FRRBoth: true})
	return newMoveSide("FRR and the kernel", s, func(h *lab.Host) { // it bridges: what counts is where the MAC is
		for _, f := range []*lab.FRR{s.Near, s.FRR} {
			s.Until(2*time.Minute, fmt.Sprintf("%s has %s at %s", f.Name, h.MAC, lab.SiteNames[h.Site]), func() error {
				out := f.Show("show bgp l2vpn evpn route type macip")
				_, after, found := strings.Cut(out, fmt.Sprintf("*> [2]:[0]:[48]:[%s]\n", h.MAC))
				if next, _, _ := strings.Cut(strings.TrimSpace(after), " "); !found || next != fmt.Sprintf("192.0.2.%d", h.Site+1) {
					return fmt.Errorf("routes:\n%s", out)
				}
				return nil
			})
		}
	})
}

func newMoveSide(what string, s *lab.Sites, ready func(*lab.Host)) *moveSide {
	m := &moveSide{What: what, sites: s, ready: ready}
	for _, name := range []string{"h11", "h12", "h21"} {
		s.H(name).Announce()
		ready(s.H(name))
	}
	return m
}

// row finds the row of a kind and family.
func (m *moveSide) row(kind *moveKind, family string) *moveRow {
	for _, r := range m.Rows {
		if r.Kind == kind.name && r.Family == family {
			return r
		}
	}
	r := &moveRow{Kind: kind.name, Family: family, Goal: kind.goal}
	m.Rows = append(m.Rows, r)
	return r
}

// move makes one move and books it.
func (m *moveSide) move(kind *moveKind) error {
	s := m.sites
	h11, h12, h21 := s.H("h11"), s.H("h12"), s.H("h21")
	senders := []*lab.Host{h12, h21}
	for _, h := range []*lab.Host{h11, h12, h21} {
		h.IP("neigh flush all")
	}
	var flows, by []*lab.Flow
	for i := range 2 {
		for _, from := range senders {
			flows = append(flows, s.Flow(from.Namespace, from.IPs()[i], h11.Namespace, h11.IPs()[i], moveRate, 64))
			if kind.out {
				by = append(by, s.Flow(h11.Namespace, h11.IPs()[i], from.Namespace, from.IPs()[i], dataRate, 64))
			}
		}
	}
	control := s.Flow(h12.Namespace, h12.IP4, h21.Namespace, h21.IP4, moveRate, 64)
	all := slices.Concat(flows, by, []*lab.Flow{control})
	for _, f := range all {
		f.AwaitArrivals(50, 30*time.Second)
	}
	if kind.stale {
		for _, h := range []*lab.Host{h11, h12, h21} {
			petrify(h, h11, h12, h21)
		}
	}
	m.at = 1 - m.at
	mac, err := net.ParseMAC(h11.MAC)
	if err != nil {
		return err
	}
	gate, err := openGate(s.Switch, fmt.Sprintf("rack%d-up", m.at+1), mac)
	if err != nil {
		return err
	}
	s.Replug(h11, m.at)
	plugged := time.Now()
	if kind.show != nil {
		kind.show(h11)
	}
	wait := moveLimit
	if kind.slow {
		wait = 2 * time.Minute
	}
	limit, never := time.After(wait), false
	for _, f := range all {
		for !never && !f.Arrives(100, time.Second) {
			select {
			case <-limit:
				never = true
			default:
			}
		}
	}
	if !never {
		m.ready(h11)
	}
	results := stopAll(all)
	shown, ok := gate.first()
	if !ok {
		return errors.New("the host has not shown itself")
	}
	for i, family := range []string{"IPv4", "IPv6"} {
		r := m.row(kind, family)
		worst, beyond := time.Duration(0), time.Duration(0)
		lost, late := 0, 0
		for _, f := range flows[2*i : 2*i+2] {
			missing, at := results[f].Missing, f.Restored()
			if !at.IsZero() {
				worst = max(worst, at.Sub(plugged))
			}
			lost += countFrom(missing, f.SentBefore(plugged))
			if n := countFrom(missing, f.SentBefore(shown)); n > 0 {
				late, beyond = late+n, max(beyond, at.Sub(shown))
			}
		}
		if never {
			worst, beyond, r.Never = time.Since(plugged), time.Since(shown), r.Never+1
		}
		r.Outages, r.Lost = append(r.Outages, 1e3*worst.Seconds()), append(r.Lost, lost)
		r.Shown, r.Beyond, r.Late = append(r.Shown, 1e3*shown.Sub(plugged).Seconds()), append(r.Beyond, 1e3*beyond.Seconds()), append(r.Late, late)
	}
	if len(m.row(kind, "IPv4").Outages) == 1 {
		progress("%s, %s: first outages %.1f and %.1f ms", m.What, kind.name, m.row(kind, "IPv4").Outages[0], m.row(kind, "IPv6").Outages[0])
	}
	paused := 1e3 * results[control].Gap.Seconds()
	for _, family := range []string{"IPv4", "IPv6"} {
		r := m.row(kind, family)
		r.Paused = append(r.Paused, paused)
	}
	if kind.stale {
		for _, h := range []*lab.Host{h11, h12, h21} {
			soften(h, h11, h12, h21)
		}
	}
	if never { // what its outage ends by
		for _, h := range senders {
			for _, ip := range h.IPs() {
				_, _ = h11.Try("ping", "-n", "-c", "1", "-W", "1", ip.String())
			}
		}
	}
	return nil
}

// countFrom is how many of the numbers, which ascend, are not below first.
func countFrom(numbers []int, first int) int {
	i, _ := slices.BinarySearch(numbers, first)
	return len(numbers) - i
}

// stopAll ends streams at once: each waits for what it has lost.
func stopAll(list []*lab.Flow) map[*lab.Flow]lab.Result {
	results := make([]lab.Result, len(list))
	var all sync.WaitGroup
	for i, f := range list {
		all.Go(func() { results[i] = f.Stop() })
	}
	all.Wait()
	of := make(map[*lab.Flow]lab.Result, len(list))
	for i, f := range list {
		of[f] = results[i]
	}
	return of
}

// petrify makes what a host knows of its neighbours permanent, until the next flush of all: it learns nothing from anybody any more.
func petrify(h *lab.Host, of ...*lab.Host) {
	var lines []string
	for _, other := range of {
		for _, ip := range other.IPs() {
			if other == h {
				continue
			}
			out := strings.Fields(h.Run("ip", "neigh", "show", ip.String(), "dev", "eth0"))
			if i := slices.Index(out, "lladdr"); i >= 0 {
				lines = append(lines, fmt.Sprintf("neigh replace %s lladdr %s dev eth0 nud permanent", ip, out[i+1]))
			}
		}
	}
	h.IP(lines...)
}

// soften undoes petrify.
func soften(h *lab.Host, of ...*lab.Host) {
	for _, other := range of {
		for _, ip := range other.IPs() {
			_, _ = h.Try("ip", "neigh", "del", ip.String(), "dev", "eth0")
		}
	}
}

func floats(numbers []int) []float64 {
	out := make([]float64, len(numbers))
	for i, n := range numbers {
		out[i] = float64(n)
	}
	return out
}

const notMeasured = "not measured" // by the run that made this row

func median(ms []float64) string {
	if len(ms) == 0 {
		return notMeasured
	}
	return fmt.Sprintf("%.2f", summarize(ms).Median)
}

func spread(ms []float64) string {
	if len(ms) == 0 {
		return notMeasured + " | "
	}
	f := summarize(ms)
	return fmt.Sprintf("%.1f | %.1f to %.1f", f.Median, f.P10, f.P90)
}

// losses says how many packets a move lost in the middle and at worst, and how many moves lost none.
func losses(late []int) string {
	if len(late) == 0 {
		return notMeasured
	}
	none := 0
	for _, n := range late {
		if n == 0 {
			none++
		}
	}
	return fmt.Sprintf("%.0f, at most %d; none in %d of %d", summarize(floats(late)).Median, slices.Max(late), none, len(late))
}

func (r *movesResult) markdown() string {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "# Moves\n\n%s, %d CPUs; Linux %s; %s. Medians of n moves to and fro, the same move in one network and then in the other.\n\n", m.CPU, m.CPUs, m.Kernel, r.Date)
	b.WriteString("| outage, ms | | goal |")
	for _, s := range r.Sides {
		fmt.Fprintf(&b, " %s | p10 to p90 | n | packets lost | host's own pause | beyond it | p10 to p90 | packets lost beyond it | machine paused |", s.What)
	}
	b.WriteString("\n|---|---|---" + strings.Repeat("|---|---|---|---|---|---|---|---|---", len(r.Sides)) + "|\n")
	for _, kind := range moveKinds {
		for _, family := range []string{"IPv4", "IPv6"} {
			cells := ""
			for _, s := range r.Sides {
				for _, row := range s.Rows {
					if row.Kind == kind.name && row.Family == family {
						more := ""
						if row.Never > 0 {
							more = "over "
						}
						cells += " " + more + fmt.Sprintf("%.1f | %.1f to %.1f | %d | %.0f | %s | %s | %s | %.1f |",
							row.Figure.Median, row.Figure.P10, row.Figure.P90, len(row.Outages), summarize(floats(row.Lost)).Median,
							median(row.Shown), spread(row.Beyond), losses(row.Late), summarize(row.Paused).Median)
					}
				}
			}
			if cells != "" {
				fmt.Fprintf(&b, "| %s (%s) | %s | %.0f |%s\n", kind.name, moveLegend[kind.name], family, kind.goal, cells)
			}
		}
	}
	b.WriteString("\nAn outage begins when the host is plugged in at the new site, and ends with the first packet of those sent after the last one lost; of two senders, one at " +
		"each site, the worse. Packets lost are those of both senders together. *The host's own pause* ends with its first frame on the new site's LAN; *beyond it* is the " +
		"outage from then on, and counts only what was sent after that frame. *Machine paused*: the longest gap of a stream between hosts that stay.\n")
	if r.Crowd != nil {
		b.WriteString(r.Crowd.markdown())
	}
	return b.String()
}
