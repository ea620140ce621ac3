package lab

import (
	"fmt"
	"time"
)

// Tally keeps the books of one numbered packet stream at its receiver: what came, what came twice, what was
// overtaken, and the longest silence. Not safe for concurrent use.
type Tally struct {
	seen     []int64 // by sequence number: when it came, in Unix nanoseconds; 0 where it did not
	received int
	again    int
	late     int
	highest  int
	first    time.Time
	last     time.Time
	gap      time.Duration
	gapAfter int
	ttl      [2]int // lowest and highest
}

// Result is what became of a stream.
type Result struct {
	Sent       int
	Received   int // distinct packets
	Duplicated int // arrivals beyond the first of a packet
	Reordered  int // packets that arrived after a later one
	Missing    []int
	Gap        time.Duration // longest time between two arrivals
	GapAfter   int           // the packet before that gap
	TTL        [2]int        // lowest and highest TTL or hop limit at arrival, 0 when not seen
	Took       time.Duration // from the first arrival to the last
}

// Lost is how many packets never arrived.
func (r Result) Lost() int { return r.Sent - r.Received }

// Perfect reports whether each packet arrived exactly once and in order.
func (r Result) Perfect() bool {
	return r.Sent > 0 && r.Received == r.Sent && r.Duplicated == 0 && r.Reordered == 0
}

func (r Result) String() string {
	s := fmt.Sprintf("%d sent, %d lost, %d duplicated, %d reordered, longest gap %v", r.Sent, r.Lost(), r.Duplicated,
		r.Reordered, r.Gap.Round(10*time.Microsecond))
	if len(r.Missing) > 0 {
		s += fmt.Sprintf(", missing %v", r.Missing[:min(len(r.Missing), 20)])
	}
	return s
}

// Add books the arrival of a packet; at is when the kernel received it, ttl what its header said (0: not known).
func (t *Tally) Add(seq int, at time.Time, ttl int) {
	for seq >= len(t.seen) {
		t.seen = append(t.seen, make([]int64, seq+1024)...)
	}
	if t.seen[seq] != 0 {
		t.again++
		return
	}
	t.seen[seq] = at.UnixNano()
	if t.received > 0 {
		if gap := at.Sub(t.last); gap > t.gap {
			t.gap, t.gapAfter = gap, t.highest
		}
		if seq < t.highest {
			t.late++
		}
	} else {
		t.first = at
	}
	t.received++
	t.last = at
	t.highest = max(t.highest, seq)
	if ttl != 0 {
		if t.ttl[0] == 0 || ttl < t.ttl[0] {
			t.ttl[0] = ttl
		}
		t.ttl[1] = max(t.ttl[1], ttl)
	}
}

// Result closes the books, given how many packets were sent: numbers 0 to sent-1.
func (t *Tally) Result(sent int) Result {
	r := Result{
		Sent: sent, Received: t.received, Duplicated: t.again, Reordered: t.late, Gap: t.gap, GapAfter: t.gapAfter,
		TTL: t.ttl, Took: t.last.Sub(t.first),
	}
	for seq := range sent {
		if seq >= len(t.seen) || t.seen[seq] == 0 {
			r.Missing = append(r.Missing, seq)
		}
	}
	return r
}

// Restored is when the first packet came that was sent after the last one missing: from then on nothing was lost. Zero where nothing is
// missing, or nothing came after it.
func (t *Tally) Restored() (at time.Time) {
	last := len(t.seen) - 1
	for last >= 0 && t.seen[last] == 0 {
		last-- // never sent, or lost at the end
	}
	for seq := last; seq >= 0; seq-- {
		if t.seen[seq] == 0 {
			return time.Unix(0, t.seen[seq+1])
		}
	}
	return time.Time{}
}
