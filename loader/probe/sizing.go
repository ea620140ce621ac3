package probe

import "time"

// sizing finds out what size gets to a locator and back, while small probes do: a way on which large packets vanish in silence, as no router
// says that they are too large, or a firewall eats what one says.
//
// The whole size is asked for now and then. Lost so many times in a row it is too large, and the size that passes is looked for by halving what
// is between. From then on that one is confirmed, and the whole one tried, every time.
type sizing struct {
	whole     int
	good, bad int       // a size that passes and one that does not; bad is 0 while nothing is wrong
	trying    int       // 0: nothing
	tries     int       // of it that were lost
	until     time.Time // it counts as lost then
	next      time.Time // when to ask again
	confirmed bool      // good passed this time

	news bool // good is another, or as it was and confirmed
	size int  // what to tell
}

const (
	losses    = 4 // in a row
	precision = 8 // bytes that may be given away
)

// step gives up on what is lost, and returns the size to try now, 0 for none.
func (s *sizing) step(now time.Time, w Way, every, patience time.Duration) int {
	if s.whole == 0 {
		*s = sizing{whole: w.Whole, good: w.Least}
	}
	if s.whole <= w.Least || s.trying != 0 && now.Before(s.until) || s.trying == 0 && !s.searching() && now.Before(s.next) {
		return 0
	}
	if s.trying != 0 {
		if s.tries++; s.tries >= losses {
			s.failed(now, w.Least, every)
			return 0
		}
	} else {
		s.trying, s.tries = s.candidate(), 0
		s.next = now.Add(every)
	}
	s.until = now.Add(patience)
	return s.trying
}

func (s *sizing) searching() bool { return s.bad != 0 && s.bad-s.good > precision }

func (s *sizing) candidate() int {
	switch {
	case s.searching():
		return s.good + (s.bad-s.good)/2
	case s.bad != 0 && !s.confirmed:
		return s.good
	}
	return s.whole
}

// failed is the end of what was tried.
func (s *sizing) failed(now time.Time, least int, every time.Duration) {
	if s.trying <= s.good { // it passed before: the way is another
		s.good = least
	}
	if s.bad == 0 || s.trying < s.bad {
		s.bad = s.trying
	}
	s.trying = 0
	s.conclude(now, every)
}

// passed takes notice of an answer.
func (s *sizing) passed(size int, now time.Time) {
	if size != s.trying {
		return
	}
	s.trying = 0
	if size == s.whole {
		s.news, s.size = s.news || s.bad != 0, 0
		s.good, s.bad, s.confirmed = size, 0, false
		return
	}
	again := size == s.good
	s.good = size
	if again && !s.searching() {
		s.confirmed, s.next = true, now // now the whole one
		s.news, s.size = true, s.good
		return
	}
	s.conclude(now, 0)
}

// conclude tells what was found when nothing is left to look for.
func (s *sizing) conclude(now time.Time, every time.Duration) {
	if s.searching() {
		return
	}
	s.confirmed = false
	s.news, s.size = true, s.good
	if every > 0 {
		s.next = now.Add(every)
	}
}

// holed says whether not every size passes.
func (s *sizing) holed() bool { return s.bad != 0 && !s.searching() }

// told returns once what is news: the size that passes, 0 for every one.
func (s *sizing) told() (size int, news bool) {
	news, s.news = s.news, false
	return s.size, news
}
