package rib

import (
	"container/heap"
	"time"
)

// A host that leaves this gateway for another site is held: packets that a tunnel still brings for it may be
// tunnelled on for a while. Departures are remembered apart from the table, because the host may be gone for a
// moment before its new site is heard. What a source says in its first full report is knowledge, not a move: a
// restart holds nobody.
type holds struct {
	until map[key]time.Time
	queue departures // earliest first; an entry counts only while until agrees with it
}

type departure struct {
	key
	until time.Time
}

func newHolds() holds { return holds{until: make(map[key]time.Time)} }

func (h *holds) has(k key) bool {
	_, ok := h.until[k]
	return ok
}

func (h *holds) set(k key, until time.Time) {
	h.until[k] = until
	heap.Push(&h.queue, departure{k, until})
}

func (h *holds) cancel(k key) { delete(h.until, k) }

// next is when the first hold ends, or zero.
func (h *holds) next() time.Time {
	for len(h.queue) > 0 {
		first := h.queue[0]
		if until, ok := h.until[first.key]; ok && until.Equal(first.until) {
			return until
		}
		heap.Pop(&h.queue)
	}
	return time.Time{}
}

// moved keeps the holds in step with a changed answer; real is false for what a first full report brings.
func (r *RIB) moved(rec *record, before, after answer, real bool) {
	if !rec.host() {
		return
	}
	here := func(a answer) bool { return r.targets.at(a.target).local != nil }
	switch {
	case here(after):
		r.holds.cancel(rec.key)
	case here(before) && real:
		if d := r.holdTime(rec.key.route()); d > 0 {
			r.holds.set(rec.key, r.clock.Now().Add(d))
		}
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
		r.holds.cancel(k)
		if d := r.current(k); d.Via != nil {
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
