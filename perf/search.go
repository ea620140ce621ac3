package main

// The search for a loss-free rate halves what is left between a rate without loss and one with it.
const (
	// lossBound is what "next to nothing" is, of the packets that were sent while the forwarder had its CPU.
	lossBound = 1e-4
	searches  = 7 // a hundredth of the rate is left then
	rateMax   = 12e6

	// believed is how many trials have to show a loss: a CPU that is only slowed down for a moment leaves no stall to see.
	believed = 2
	tries    = 5 // of one rate at most, among them those that are repeated because stalls took up too much of them
)

// search is a loss-free rate, and what it took to find it.
type search struct {
	Rate    float64 `json:"rate"` // packets a second; 0 where there is none
	Trials  int     `json:"trials"`
	Again   int     `json:"again"` // of them, because stalls left less than half of a trial
	Packets int     `json:"packets"`
	Stalls  stalls  `json:"stalls"`

	capacity float64
}

// offerer is where loads are offered: a course.
type offerer interface {
	offer(load) (outcome, error)
}

// lossFree searches for the highest rate within the bound. What was offered counts, not what was asked for.
func lossFree(c offerer, l load) (s search, err error) {
	l.rate, l.capacity = rateMax, 0
	o, err := c.offer(l)
	if err != nil {
		return s, err
	}
	s.capacity = o.delivered()
	low, high := 0.0, min(o.rate, 1.5*s.capacity)
	for range searches {
		l.rate, l.capacity = (low+high)/2, s.capacity
		o, err := s.attempt(c, l)
		if err != nil {
			return s, err
		}
		s.capacity = max(s.capacity, o.delivered())
		if o.loss() > l.bound() {
			high = l.rate
			continue
		}
		low, s.Rate = l.rate, max(s.Rate, o.rate)
	}
	return s, nil
}

// attempt offers a rate until it is within the bound, or a loss is believed; of trials that all were disturbed the one with the least
// loss is returned, which then counts with its stalls.
func (s *search) attempt(c offerer, l load) (best outcome, err error) {
	lossy := 0
	for try := range tries {
		o, err := c.offer(l)
		if err != nil {
			return best, err
		}
		s.Trials++
		s.Packets += o.sent
		s.Stalls.add(o.stalls)
		if try == 0 || o.loss() < best.loss() {
			best = o
		}
		switch {
		case !o.judged():
			s.Again++
		case o.loss() <= l.bound():
			return o, nil
		default:
			if lossy++; lossy == believed {
				return best, nil
			}
		}
	}
	return best, nil
}

func (s *stalls) add(more stalls) {
	s.Times += more.Times
	s.Sent += more.Sent
	s.Lost += more.Lost
	s.Longest = max(s.Longest, more.Longest)
}
