package api

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"

	"roam/loader/route"
)

// longChange is of more hosts than a short one may be of.
func longChange(via string) (changes []route.Change) {
	for i := range short + 1 {
		changes = append(changes, add(fmt.Sprintf("10.0.0.%d/32", i), via))
	}
	return changes
}

// underWay runs f while the RIB takes its time over a long change, and checks that journal and RIB agree in the end.
func underWay(t *testing.T, f func(t *testing.T, s *Source, rib *fakeRIB, ended <-chan error)) (state string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "j")
	synctest.Test(t, func(t *testing.T) {
		rib := newRIB()
		rib.hold = make(chan struct{})
		s, stop := start(t, path, rib)
		defer stop()
		ended := make(chan error, 1)
		go func() { ended <- s.Inject(t.Context(), longChange("192.0.2.2")) }()
		synctest.Wait()
		f(t, s, rib, ended)
		stop()
		state = rib.state()
		fresh := newRIB()
		_, stop = start(t, path, fresh)
		stop()
		if got := fresh.state(); got != state {
			t.Errorf("the journal holds\n%sthe RIB held\n%s", got, state)
		}
	})
	return state
}

// A short change does not wait until the RIB has taken a long one.
func TestShortPassesLong(t *testing.T) {
	underWay(t, func(t *testing.T, s *Source, rib *fakeRIB, ended <-chan error) {
		if err := s.Inject(t.Context(), []route.Change{add("10.0.1.1/32", "192.0.2.3")}); err != nil {
			t.Error(err)
		}
		if len(ended) > 0 {
			t.Error("the long change was not held up: nothing is proved")
		}
		close(rib.hold)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A short change of a key that the long one has, too, comes after it.
func TestShortFollowsLongOfItsKey(t *testing.T) {
	last := add("10.0.0.3/32", "192.0.2.3")
	state := underWay(t, func(t *testing.T, s *Source, rib *fakeRIB, ended <-chan error) {
		answered := make(chan error, 1)
		go func() { answered <- s.Inject(t.Context(), []route.Change{last}) }()
		synctest.Wait()
		if len(answered) > 0 {
			t.Error("it was answered while the long change was on its way")
		}
		close(rib.hold)
		if err := errors.Join(<-ended, <-answered); err != nil {
			t.Error(err)
		}
	})
	var want []route.Claim
	for _, c := range longChange("192.0.2.2") {
		if c.Key == last.Key {
			c = last
		}
		want = append(want, c.Claim)
	}
	if state != text(want) {
		t.Errorf("held\n%swant\n%s", state, text(want))
	}
}

// A long change that the RIB refuses leaves the journal, and what was written behind it stays.
func TestRefusedLong(t *testing.T) {
	state := underWay(t, func(t *testing.T, s *Source, rib *fakeRIB, ended <-chan error) {
		if err := s.Inject(t.Context(), []route.Change{add("10.0.1.1/32", "192.0.2.3")}); err != nil {
			t.Error(err)
		}
		rib.Lock()
		rib.refuse = errors.New("no")
		rib.Unlock()
		close(rib.hold)
		if err := <-ended; err == nil {
			t.Error("accepted")
		}
	})
	if want := text([]route.Claim{add("10.0.1.1/32", "192.0.2.3").Claim}); state != want {
		t.Errorf("held\n%swant\n%s", state, want)
	}
}
