package maps

import (
	"errors"
	"fmt"
)

// Growth is an upgrade: a bigger table, with seeds of its own, takes its place under a newly loaded program.
//
// From the moment Grow starts to copy until CommitGrow or AbortGrow, every change is written to both tables, so that
// programs over either are right, and so is whichever table a new process finds after a crash. A change
// that fits only one of them fails.

// fillChunk is how many buckets are copied before other callers get their turn: half a millisecond.
const fillChunk = 512

// Grow creates a table for capacity hosts of each family, holding all that this one holds, and from then on
// writes both. The returned descriptors are the caller's, to load a program with, pin and close. It takes about
// 0.8 s for a million hosts of each family, on a busy machine; other methods wait no longer than half a millisecond for it, displacements wait
// for its end. On an error there is no second table.
func (h *Hosts) Grow(capacity uint32) (HostMaps, error) {
	h.growing.Lock()
	defer h.growing.Unlock()
	maps, err := CreateHostMaps(capacity)
	if err != nil {
		return HostMaps{}, err
	}
	next, err := openHostTable(maps)
	if err != nil {
		_ = maps.Close()
		return HostMaps{}, err
	}
	if err = h.startGrow(next); err != nil {
		_ = next.close()
		_ = maps.Close()
		return HostMaps{}, err
	}
	err = h.fill()
	h.endFill()
	if err != nil {
		_ = maps.Close()
		return HostMaps{}, errors.Join(fmt.Errorf("copy the hosts to a table for %d: %w", capacity, err), h.abort())
	}
	return maps, nil
}

func (h *Hosts) startGrow(next *hostTable) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.cur == nil:
		return errors.New("grow the host table: it is closed")
	case h.next != nil:
		return errors.New("grow the host table: it is growing already, commit or abort that first")
	}
	h.next, h.filling, h.cur.copying = next, true, true
	return nil
}

func (h *Hosts) endFill() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.filling, h.cur.copying = false, false
	h.notify()
}

// fill copies cur to next, chunk by chunk. Nothing is missed in between: a new host is written to both tables
// anyway, and as long as h.filling says so no host changes its slot or gets a second one, except by going away.
func (h *Hosts) fill() error {
	for _, s := range []*slots{&h.cur.v4, &h.cur.v6} {
		for from := uint32(0); from < s.buckets; from += fillChunk {
			to := min(from+fillChunk, s.buckets)
			if err := h.copyWith(func(yield func(hostKey, uint32) bool) { h.cur.eachSlot(s, from, to, yield) }); err != nil {
				return err
			}
		}
	}
	return h.copyWith(func(yield func(hostKey, uint32) bool) { h.cur.eachWaiting(yield) })
}

// copyWith puts what each yields into next. Doing so twice changes nothing.
func (h *Hosts) copyWith(each func(yield func(hostKey, uint32) bool)) error {
	for {
		var err error
		h.mu.Lock()
		each(func(k hostKey, value uint32) bool {
			err = h.next.put(&k, value)
			return err == nil
		})
		h.mu.Unlock()
		if err != errResting {
			return err
		}
		if err := h.Settle(); err != nil {
			return err
		}
	}
}

// CommitGrow makes the bigger table the only one. The caller has made the new program live on every port; what still
// runs of the old one is waited for here, and then the old table is given up.
func (h *Hosts) CommitGrow() error {
	h.growing.Lock()
	defer h.growing.Unlock()
	h.mu.Lock()
	growing := h.next != nil
	h.mu.Unlock()
	if !growing {
		return errors.New("commit the growth of the host table: none is under way")
	}
	if err := h.grace.Wait(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.cur
	h.cur, h.next = h.next, nil
	return old.close()
}

// AbortGrow gives the bigger table up, whatever became of its program; with none under way it does nothing. The
// caller makes sure first that no port runs over it.
func (h *Hosts) AbortGrow() error {
	h.growing.Lock()
	defer h.growing.Unlock()
	return h.abort()
}

func (h *Hosts) abort() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.next == nil {
		return nil
	}
	next := h.next
	h.next = nil
	return next.close()
}
