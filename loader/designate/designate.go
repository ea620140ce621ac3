package designate

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mdlayher/packet"

	"roam/loader/ether"
	"roam/loader/keep"
	"roam/loader/route"
)

// Link is a segment on which an election is held.
type Link struct {
	Segment   string
	Interface string // on which the kernel sees the segment's packets untagged
	Port      string // on which they come; the same one where they are untagged
	VNI       uint32 // of the tenant
	Priority  uint8
	Interval  time.Duration // between hellos
	Lost      int           // hellos that may be missing
	Preempt   time.Duration // how long a higher priority waits
	Note      Note
}

func (l *Link) hold() time.Duration { return l.Interval * time.Duration(l.Lost) }

// Options of a Designator. Its functions are called from goroutines, one for each segment.
type Options struct {
	Log *slog.Logger

	// Duty has the data path answer on a segment or stand by; lasts is for how long its word holds unless it is said again, 0 for good.
	Duty func(segment string, standby bool, lasts time.Duration) error

	// Changed hears that on some segment a gateway came, went, or became something else. Must be quick and not call back.
	Changed func()
}

// Designator holds the elections on the links that it was last given. Safe for concurrent use.
type Designator struct {
	Options

	mu       sync.Mutex
	rank     Rank
	segments map[string]*segment
	changed  chan struct{}
}

// segment is one election, and who runs it.
type segment struct {
	link Link
	wake chan struct{}

	mu       sync.Mutex
	election Election
}

// Status is how a segment fares.
type Status struct {
	Segment, Interface string
	State              State
	Since              time.Time
	Self               Hello
	Others             []Hello // the one that comes first, first
}

// Designated is whoever is, as far as is known here.
func (s *Status) Designated() (Hello, bool) {
	if s.State == Designated {
		return s.Self, true
	}
	i := slices.IndexFunc(s.Others, func(h Hello) bool { return h.Designated })
	if i < 0 {
		return Hello{}, false
	}
	return s.Others[i], true
}

// New makes a Designator without links, of rank Starting.
func New(o Options) *Designator {
	return &Designator{Options: o, rank: Starting, segments: map[string]*segment{}, changed: make(chan struct{}, 1)}
}

func (d *Designator) String() string { return "designated gateways" }

// Set replaces the links, of which no two are of one segment. A segment whose link is another begins anew; equal ones go on.
func (d *Designator) Set(links []Link) {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := map[string]*segment{}
	for _, l := range links {
		s := d.segments[l.Segment]
		if s == nil || s.link != l {
			s = &segment{link: l, wake: make(chan struct{}, 1)}
		}
		next[l.Segment] = s
	}
	d.segments = next
	poke(d.changed)
}

// SetRank says how fit this gateway is now: others act on it at once.
func (d *Designator) SetRank(r Rank) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rank != r {
		d.rank = r
		d.wakeAll()
	}
}

// LinksChanged has every port looked at: it came, went, or lost its carrier.
func (d *Designator) LinksChanged() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wakeAll()
}

func (d *Designator) wakeAll() {
	for _, s := range d.segments {
		poke(s.wake)
	}
}

// poke wakes who waits for the channel, now or at the next time.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Statuses lists the segments by name.
func (d *Designator) Statuses() []Status {
	d.mu.Lock()
	all := slices.Collect(maps.Values(d.segments))
	d.mu.Unlock()
	var list []Status
	for _, s := range all {
		list = append(list, s.status())
	}
	slices.SortFunc(list, func(a, b Status) int { return strings.Compare(a.Segment, b.Segment) })
	return list
}

func (s *segment) status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Status{Segment: s.link.Segment, Interface: s.link.Interface, Self: s.election.Hello(), Others: s.election.Others()}
	if out.State, out.Since = s.election.State(); out.State == "" {
		out.State = Down
	}
	slices.SortFunc(out.Others, func(a, b Hello) int { return b.before(&a) })
	return out
}

// Run works until ctx ends. Then others are told that this gateway leaves, if there are any, and are given a moment to step in.
func (d *Designator) Run(ctx context.Context) error {
	var held keep.Set[*segment]
	defer held.Wait()
	for ctx.Err() == nil {
		segments := map[*segment]bool{}
		d.mu.Lock()
		for _, s := range d.segments {
			segments[s] = true
		}
		d.mu.Unlock()
		held.Be(ctx, segments, d.keep)
		select {
		case <-ctx.Done():
		case <-d.changed:
		}
	}
	return nil
}

// reopenAfter is how soon a port is looked for again that nobody gives news of.
const reopenAfter = time.Second

// keep holds an election whenever the port is there.
func (d *Designator) keep(ctx context.Context, s *segment) {
	keep.Up(ctx, reopenAfter, s.wake, func(ctx context.Context) error {
		err := d.hold(ctx, s)
		if err != nil && ctx.Err() == nil {
			d.goWithout(s)
		}
		return err
	}, func(err error) {
		d.Log.Warn("no election on a segment", "segment", s.link.Segment, "interface", s.link.Interface, "why", err)
	})
}

// goWithout has this gateway answer on a segment whose port is up, and on which the kernel has no interface to say hello by: there are kernels
// without VLAN devices, and the data path needs none.
func (d *Designator) goWithout(s *segment) {
	if _, err := net.InterfaceByName(s.link.Interface); err == nil || s.link.Port == s.link.Interface {
		return
	}
	if _, err := running(s.link.Port); err != nil {
		return
	}
	e := &session{of: d, at: s}
	e.begin()
	s.mu.Lock()
	state, _ := s.election.State()
	s.mu.Unlock()
	if state != Designated {
		return
	}
	if err := d.Duty(s.link.Segment, false, 0); err != nil {
		d.Log.Error("the data path does not know who is designated", "segment", s.link.Segment, "error", err)
	}
	d.Changed()
}

// session is an election while its port is up.
type session struct {
	of   *Designator
	at   *segment
	conn *packet.Conn
	mac  route.MAC

	said    string    // what Changed was told of
	next    time.Time // when the next hello is due
	spoke   Hello     // the last
	lasts   bool      // the data path's word holds for a while only
	leaving bool
}

// hold holds the election until ctx ends, or the port fails.
func (d *Designator) hold(ctx context.Context, s *segment) error {
	nic, err := running(s.link.Interface)
	if err != nil {
		return err
	}
	conn, err := packet.Listen(nic, packet.Raw, etherType, &packet.Config{Filter: hellos})
	if err != nil {
		return err
	}
	defer conn.Close()
	e := &session{of: d, at: s, conn: conn, mac: route.MAC(nic.HardwareAddr)}
	hello := func(frame []byte) (Hello, bool) {
		h, err := parse(frame, s.link.VNI)
		return h, err == nil
	}
	heard, failed := make(chan Hello, 16), make(chan error, 1)
	hearing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	go func() { failed <- ether.Hear(hearing, conn, hello, heard) }()
	e.begin()
	for timer := time.NewTimer(0); ; timer.Reset(e.wait()) {
		select {
		case <-ctx.Done():
			return e.leave(heard)
		case err = <-failed:
		case h := <-heard:
			e.hear(h)
		case <-s.wake:
			_, err = running(s.link.Interface)
		case <-timer.C:
			_, err = running(s.link.Interface)
		}
		if err == nil {
			err = e.act()
		}
		if err != nil {
			e.end()
			return err
		}
	}
}

// running finds an interface that is up and has a carrier.
func running(name string) (*net.Interface, error) {
	nic, err := ether.Interface(name)
	if err == nil && (nic.Flags&net.FlagUp == 0 || nic.Flags&net.FlagRunning == 0) {
		err = fmt.Errorf("%s is down", name)
	}
	return nic, err
}

func (e *session) begin() {
	e.at.mu.Lock()
	defer e.at.mu.Unlock()
	now := time.Now()
	e.at.election.Preempt = e.at.link.Preempt
	e.at.election.Say(e.self(), now)
	e.at.election.Up(now)
}

func (e *session) self() Hello {
	e.of.mu.Lock()
	defer e.of.mu.Unlock()
	h := Hello{MAC: e.mac, Rank: e.of.rank, Priority: e.at.link.Priority, Hold: e.at.link.hold(), Note: e.at.link.Note}
	if e.leaving {
		h.Rank = Leaving
	}
	return h
}

func (e *session) hear(h Hello) {
	e.at.mu.Lock()
	defer e.at.mu.Unlock()
	if e.at.election.Hear(h, time.Now()) {
		e.next = time.Time{} // who is new is told at once
	}
}

// alone is how often a gateway speaks that hears nobody: who comes is answered at once.
const alone = time.Second

// act brings the data path, the LAN and whoever listens in line with the election.
func (e *session) act() error {
	e.at.mu.Lock()
	now, self := time.Now(), e.self()
	e.at.election.Say(self, now)
	state, _ := e.at.election.State()
	hello, others := e.at.election.Hello(), e.at.election.Others()
	e.at.mu.Unlock()

	due := !now.Before(e.next) || hello != e.spoke
	if state != Listening { // meanwhile the data path goes on as it was
		lasts := time.Duration(0)
		if state == Designated && len(others) > 0 {
			lasts = hello.Hold
		}
		if due || e.lasts != (lasts > 0) {
			if err := e.of.Duty(e.at.link.Segment, state != Designated, lasts); err != nil {
				e.of.Log.Error("the data path does not know who is designated", "segment", e.at.link.Segment, "error", err)
			}
			e.lasts = lasts > 0
		}
	}
	if due {
		every := e.at.link.Interval
		if len(others) == 0 && state != Listening {
			every = max(every, alone)
		}
		hello.Hold = every * time.Duration(e.at.link.Lost)
		if _, err := e.conn.WriteTo(hello.frame(e.at.link.VNI), &packet.Addr{HardwareAddr: everyGateway[:]}); err != nil {
			return err
		}
		hello.Hold = self.Hold
		e.spoke, e.next = hello, now.Add(every)
	}
	e.tell(state, hello, others)
	return nil
}

// tell has Changed hear of what is not as it was.
func (e *session) tell(state State, self Hello, others []Hello) {
	slices.SortFunc(others, func(a, b Hello) int { return compareMAC(a.MAC, b.MAC) })
	if is := fmt.Sprint(state, self.Rank, others); is != e.said {
		e.said = is
		e.of.Changed()
	}
}

func (e *session) wait() time.Duration {
	e.at.mu.Lock()
	defer e.at.mu.Unlock()
	at := e.next
	if next := e.at.election.Next(); !next.IsZero() && next.Before(at) {
		at = next
	}
	return time.Until(at)
}

// leave says goodbye to others and waits for one of them to step in. With nobody there the data path goes on by itself.
func (e *session) leave(heard <-chan Hello) error {
	e.at.mu.Lock()
	state, _ := e.at.election.State()
	others := len(e.at.election.Others())
	e.at.mu.Unlock()
	if state != Designated || others == 0 {
		return nil
	}
	e.leaving = true
	for patience := time.After(e.at.link.hold()); ; {
		if err := e.act(); err != nil {
			return nil // the port went as well: others notice
		}
		if state, _ := e.at.election.State(); state != Designated {
			return nil
		}
		select {
		case h := <-heard:
			e.hear(h)
		case <-patience:
			return nil
		}
	}
}

// end notes that the port failed.
func (e *session) end() {
	e.at.mu.Lock()
	e.at.election.Down(time.Now())
	e.at.mu.Unlock()
	if err := e.of.Duty(e.at.link.Segment, true, 0); err != nil {
		e.of.Log.Error("the data path does not know who is designated", "segment", e.at.link.Segment, "error", err)
	}
	e.tell(Down, Hello{}, nil)
}
