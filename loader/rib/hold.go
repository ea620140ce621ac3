package rib

import (
	"container/heap"
	"context"
	"time"

	"roam/loader/route"
)

// A host that leaves this gateway for another site is held: packets that a tunnel still brings for it may be
// tunnelled on for a while. Departures are remembered apart from the table, because the host may be gone for a
// moment before its new site is heard. A host that moved otherwise, also one that came here, is known as moved for as
// long: the sites do not all learn of it at once. What a source says in its first full report is knowledge, not a move:
// a restart holds nobody.
type holds struct {
	until   map[key]hold
	queue   departures       // earliest first; an entry counts only while until agrees with it
	awaited map[key]struct{} // of them those whose first packet since they moved has not been seen
}

// maxAwaited bounds for how many hosts at a time the data path looks for a first packet: each is told of.
const maxAwaited = 4096

type hold struct {
	until time.Time
	left  bool // it was here
}

type departure struct {
	key
	until time.Time
}

func newHolds() holds { return holds{until: make(map[key]hold), awaited: make(map[key]struct{})} }

func (h *holds) of(k key) (left, moved bool) {
	if len(h.until) == 0 {
		return false, false
	}
	e, ok := h.until[k]
	return e.left, ok
}

func (h *holds) set(k key, until time.Time, left bool) {
	h.until[k] = hold{until, left}
	heap.Push(&h.queue, departure{k, until})
}

// await looks for the first packet of a host that has a new home.
func (h *holds) await(k key, home bool) {
	delete(h.awaited, k)
	if home && len(h.awaited) < maxAwaited {
		h.awaited[k] = struct{}{}
	}
}

// Seen says that the first packet to a host since it moved has been seen. The sinks are not told anew: they have the host's new home.
func (r *RIB) Seen(ctx context.Context, k route.Key) error {
	return r.do(ctx, func() { delete(r.holds.awaited, keyOf(k)) })
}

// next is when the first hold ends, or zero.
func (h *holds) next() time.Time {
	for len(h.queue) > 0 {
		first := h.queue[0]
		if e, ok := h.until[first.key]; ok && e.until.Equal(first.until) {
			return e.until
		}
		heap.Pop(&h.queue)
	}
	return time.Time{}
}

// hold keeps the holds in step with a changed answer; real is false for what a first full report brings.
func (r *RIB) hold(rec *record, before, after answer, moved, real bool) {
	if !rec.host() {
		return
	}
	here := func(a answer) bool { return r.targets.at(a.target).local != nil }
	leaves := real && here(before) && !here(after)
	h, known := r.holds.until[rec.key]
	h.left = leaves || h.left && !here(after)
	if known {
		r.holds.until[rec.key] = h
	}
	if !moved && !leaves {
		return
	}
	if d := r.holdTime(rec.key.route()); d > 0 {
		r.holds.set(rec.key, r.clock.Now().Add(d), h.left)
		r.holds.await(rec.key, moved)
	}
}

// release ends the holds that are due, a window of them at a time.
func (r *RIB) release(now time.Time) {
	for range window {
		next := r.holds.next()
		if next.IsZero() || next.After(now) {
			break
		}
		k := heap.Pop(&r.holds.queue).(departure).key
		delete(r.holds.until, k)
		delete(r.holds.awaited, k)
		if d := r.current(k); !d.Gone {
			r.decisions = append(r.decisions, d)
		}
	}
	r.deliver()
}

// departures implements heap.Interface.
type departures []departure

func (d departures) Len() int           { return len(d) }
func (d departures) Less(i, j int) bool { return d[i].until.Before(d[j].until) }
func (d departures) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *departures) Push(x any)        { *d = append(*d, x.(departure)) }
func (d *departures) Pop() any {
	last := len(*d) - 1
	x := (*d)[last]
	*d = (*d)[:last]
	return x
}
