package host

import (
	"container/heap"
	"sync/atomic"
	"time"

	"roam/loader/route"
)

// Probe says how it is confirmed that a host is still here: it is asked every Interval, unless it has just shown that it lives, and leaves
// once it has not answered for Lost intervals.
type Probe struct {
	Interval time.Duration // 0: the kernel's own states say who is here
	Lost     int
}

// The kernel asks only for neighbours that it uses, and the data path delivers without it: a host that was switched off would be announced
// until somebody looked. So each host is asked by ourselves, at the MAC that it has, in the order in which they are due. All of them
// together are asked so many times a second at most: of a hundred thousand hosts each has its turn every twenty seconds.
//
// What a host sends would be as good as an answer, but finding it out costs the data path more than the question costs a host.
const (
	probeRate  = 5000 // questions a second
	probeSlice = 20 * time.Millisecond
)

// watch is a host whose presence is confirmed.
type watch struct {
	entry
	due        time.Time
	unanswered int
	answered   atomic.Int64 // Unix nanoseconds; 0: not yet
}

// watches are a heap by when they are due. A host that went stays in it until its turn comes.
type watches struct {
	of    map[entry]*watch
	queue []*watch
}

// watch begins to confirm a host's presence.
func (s *Source) watch(e entry) {
	p := s.ports[e.link]
	if _, already := s.watches.of[e]; already || p == nil || p.Probe.Interval == 0 || s.neighbours[e].permanent {
		return
	}
	w := &watch{entry: e, due: s.now().Add(p.Probe.Interval)}
	s.mu.Lock() // LastAnswer reads it
	s.watches.of[e] = w
	s.mu.Unlock()
	heap.Push(&s.watches, w)
}

// alive notes that a host has shown that it lives.
func (s *Source) alive(e entry) {
	delete(s.lost, e) // the kernel need not have it
	if w, ok := s.watches.of[e]; ok {
		if w.unanswered > 1 {
			s.mark(s.told[e].key, Settled)
		}
		w.unanswered = 0
		w.answered.Store(s.now().UnixNano())
	}
}

// LastAnswer is when a host here last answered, or showed itself to the kernel; zero if nobody asks. Any goroutine may call it.
func (s *Source) LastAnswer(key route.Key) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, here := s.here[key]
	w := s.watches.of[e]
	if !here || w == nil || w.answered.Load() == 0 {
		return time.Time{}
	}
	return time.Unix(0, w.answered.Load())
}

// nextProbe is when the next hosts are to be asked, zero for never.
func (s *Source) nextProbe() time.Time {
	if len(s.watches.queue) == 0 {
		return time.Time{}
	}
	if due := s.watches.queue[0].due; due.After(s.paced) {
		return due
	}
	return s.paced
}

// askPresent asks the hosts that are due, a slice of them, and returns those that have gone.
func (s *Source) askPresent() map[entry]struct{} {
	gone := make(map[entry]struct{})
	now := s.now()
	s.paced = now.Add(probeSlice)
	for range probeRate * int(probeSlice) / int(time.Second) {
		if len(s.watches.queue) == 0 || s.watches.queue[0].due.After(now) {
			break
		}
		w := s.watches.queue[0]
		if !s.askOne(w, gone) {
			heap.Pop(&s.watches)
			s.mu.Lock()
			delete(s.watches.of, w.entry)
			s.mu.Unlock()
			continue
		}
		w.due = now.Add(s.ports[w.link].Probe.Interval)
		heap.Fix(&s.watches, 0)
	}
	return gone
}

// askOne asks a host; false if it is not to be asked again.
func (s *Source) askOne(w *watch, gone map[entry]struct{}) bool {
	t, here := s.told[w.entry]
	p := s.ports[w.link]
	switch {
	case !here || t.key == (route.Key{}) || p == nil || p.Probe.Interval == 0:
		return false
	case w.unanswered >= p.Probe.Lost:
		s.lose(w.entry, gone)
		return false
	}
	if w.unanswered++; w.unanswered == 2 {
		s.mark(t.key, IsProbing)
	}
	return s.question(w.entry) != errNoOwnAddress
}

// lose withdraws a host that does not answer: the kernel forgets it, and says so, if it has it at all.
func (s *Source) lose(e entry, gone map[entry]struct{}) {
	s.count(OutcomeLost)
	if _, unknown := s.lost[e]; unknown {
		delete(s.lost, e)
		delete(s.neighbours, e)
		gone[e] = struct{}{}
		return
	}
	s.yield(leave{entry: e})
}

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (w *watches) Len() int           { return len(w.queue) }
func (w *watches) Less(i, j int) bool { return w.queue[i].due.Before(w.queue[j].due) }
func (w *watches) Swap(i, j int)      { w.queue[i], w.queue[j] = w.queue[j], w.queue[i] }
func (w *watches) Push(x any)         { w.queue = append(w.queue, x.(*watch)) }
func (w *watches) Pop() any {
	last := len(w.queue) - 1
	x := w.queue[last]
	w.queue[last] = nil
	w.queue = w.queue[:last]
	return x
}
