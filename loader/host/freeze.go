package host

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"roam/loader/route"
)

// Freeze says how often a host may move (RFC 7432, section 15.1). One that moves more than Moves times within Window is frozen: it
// stays at its last good place, and what claims it here is refused, until Recover has passed or somebody clears it.
type Freeze struct {
	Moves   int // 0: a host is never frozen
	Window  time.Duration
	Recover time.Duration // 0: only by hand
}

// Frozen is a host that moved too often.
type Frozen struct {
	Key   route.Key
	Since time.Time
	Until time.Time // zero: only by hand
	Moves int       // it made in the window
	Here  bool      // its last good place is here, with this MAC
	MAC   route.MAC
}

// freezer counts moves and keeps those that are frozen. Every gateway that a host moves between counts the same moves, so
// the one that is to announce one too many refuses it, and no other hears of it. Safe for concurrent use.
type freezer struct {
	mu     sync.Mutex
	moves  map[route.Key]moves
	frozen map[route.Key]Frozen
	dirty  bool // frozen differs from what was saved
}

// moves are the last ones of a host, oldest first, and where the last one led: to that place it does not move again, however often
// it is found there.
type moves struct {
	at     []time.Time
	window time.Duration
	to     place
}

// place is where a host is: at a station here, or (zero) at another site.
type place struct{ mac route.MAC }

// maxMovers bounds the hosts whose moves are remembered. Where more than that move within a window, those that moved once are
// forgotten: a site that fails over is no host that flaps.
const maxMovers = 65536

func newFreezer() *freezer {
	return &freezer{moves: make(map[route.Key]moves), frozen: make(map[route.Key]Frozen)}
}

// moved counts a move of a host that is not frozen to a place here, and reports whether it was one too many. last is then where it
// stays.
func (f *freezer) moved(limit Freeze, last Frozen, to place, now time.Time) bool {
	if limit.Moves == 0 {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.note(limit, last.Key, to, now)
	if n <= limit.Moves {
		return false
	}
	delete(f.moves, last.Key)
	last.Since, last.Moves = now, n
	if limit.Recover > 0 {
		last.Until = now.Add(limit.Recover)
	}
	f.frozen[last.Key], f.dirty = last, true
	return true
}

// left counts a move of a host to another site. That freezes nobody: what others announce is not ours to refuse.
func (f *freezer) left(limit Freeze, key route.Key, now time.Time) {
	if limit.Moves == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, frozen := f.frozen[key]; !frozen {
		f.note(limit, key, place{}, now)
	}
}

// away reports whether the last move that is known of a host led to another site.
func (f *freezer) away(key route.Key) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, known := f.moves[key]
	return known && m.to == place{}
}

// note adds a move, and returns how many there were in the window; 0 for none, because that is where the host was.
func (f *freezer) note(limit Freeze, key route.Key, to place, now time.Time) int {
	before, known := f.moves[key]
	if known && before.to == to {
		return 0
	}
	list := before.at
	for len(list) > 0 && (len(list) > limit.Moves || now.Sub(list[0]) >= limit.Window) {
		list = list[1:]
	}
	f.makeRoom(key)
	list = append(list, now)
	f.moves[key] = moves{list, limit.Window, to}
	return len(list)
}

func (f *freezer) makeRoom(key route.Key) {
	if _, known := f.moves[key]; known || len(f.moves) < maxMovers {
		return
	}
	for k, m := range f.moves {
		if len(m.at) == 1 {
			delete(f.moves, k)
		}
	}
	if len(f.moves) >= maxMovers {
		clear(f.moves)
	}
}

// of returns what is known of a host that is frozen.
func (f *freezer) of(key route.Key) (Frozen, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	z, ok := f.frozen[key]
	return z, ok
}

// clear ends a host's freeze and forgets its moves; false if it was not frozen.
func (f *freezer) clear(key route.Key) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.frozen[key]
	delete(f.frozen, key)
	delete(f.moves, key)
	f.dirty = f.dirty || ok
	return ok
}

// thaw ends the freezes that are over, and forgets moves that no window reaches any more.
func (f *freezer) thaw(now time.Time) (over []Frozen) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, z := range f.frozen {
		if !z.Until.IsZero() && !now.Before(z.Until) {
			delete(f.frozen, key)
			f.dirty = true
			over = append(over, z)
		}
	}
	for key, m := range f.moves {
		if now.Sub(m.at[len(m.at)-1]) >= m.window {
			delete(f.moves, key)
		}
	}
	return over
}

// all lists those that are frozen.
func (f *freezer) all() []Frozen {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]Frozen, 0, len(f.frozen))
	for _, z := range f.frozen {
		list = append(list, z)
	}
	return list
}

// Names translates tenants to what outlives a restart.
type Names interface {
	TenantID(name string) (route.TenantID, bool)
	TenantName(id route.TenantID) string
}

// line is a frozen host as the state file has it, one to a line.
type line struct {
	Address netip.Addr `json:"address"`
	Tenant  string     `json:"tenant"`
	Since   time.Time  `json:"since"`
	Until   time.Time  `json:"until,omitzero"`
	Moves   int        `json:"moves"`
	Here    bool       `json:"here,omitempty"`
	MAC     string     `json:"mac,omitempty"`
}

// load reads what an earlier daemon left; no file is an empty one. A line that makes no sense is an error that names it, and
// nothing is taken. Hosts of tenants that are not configured are left out.
func (f *freezer) load(path string, names Names) error {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	frozen := make(map[route.Key]Frozen)
	in := bufio.NewScanner(file)
	for n := 1; in.Scan(); n++ {
		var l line
		err := json.Unmarshal(in.Bytes(), &l)
		mac, bad := route.ParseMAC(l.MAC)
		if err = errors.Join(err, bad); err == nil && !l.Address.IsValid() {
			err = errors.New("no address")
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w: remove the line, or the file, to start with those hosts free", path, n, err)
		}
		if tenant, ok := names.TenantID(l.Tenant); ok {
			key := hostKey(tenant, l.Address)
			frozen[key] = Frozen{Key: key, Since: l.Since, Until: l.Until, Moves: l.Moves, Here: l.Here, MAC: mac}
		}
	}
	f.mu.Lock()
	f.frozen = frozen
	f.mu.Unlock()
	return in.Err()
}

// save writes those that are frozen if they differ from what was saved, in a new file that takes the name of the old one.
func (f *freezer) save(path string, names Names) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.dirty {
		return nil
	}
	f.dirty = false // what cannot be written now will not be tried again before it changes
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(file)
	lines := json.NewEncoder(out)
	for _, z := range f.frozen {
		l := line{Address: z.Key.Prefix.Addr(), Tenant: names.TenantName(z.Key.Tenant), Since: z.Since, Until: z.Until, Moves: z.Moves, Here: z.Here}
		if !z.MAC.IsZero() {
			l.MAC = z.MAC.String()
		}
		err = errors.Join(err, lines.Encode(l))
	}
	if err = errors.Join(err, out.Flush(), file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
