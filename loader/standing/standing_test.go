package standing

import (
	"testing"
	"time"
)

// TestStanding: who is out, and for how long.
func TestStanding(t *testing.T) {
	s := &Standing{}
	now := time.Unix(1e9, 0)
	after := func(d time.Duration, up, goodbye, out bool, what string) {
		t.Helper()
		now = now.Add(d)
		if s.Follow(up, goodbye, now); s.Out != out {
			t.Fatalf("%s: out is %v", what, s.Out)
		}
	}
	after(time.Hour, false, false, false, "never Up")
	after(0, true, false, false, "the first time Up")
	after(time.Minute, false, false, true, "a fall")
	after(time.Hour, false, false, true, "still down")
	after(0, true, false, true, "up again")
	after(FirstHold-1, true, false, true, "not long enough")
	after(1, true, false, false, "long enough")

	hold := FirstHold
	for hold < 2*longHold {
		after(time.Millisecond, false, false, true, "another fall")
		hold *= 2
		held := min(hold, longHold)
		after(time.Second, true, false, true, "up again")
		after(held-1, true, false, true, "not long enough")
		after(1, true, false, false, "long enough")
	}

	after(calm, false, false, true, "a fall after a calm time")
	after(0, true, false, true, "up again")
	after(FirstHold, true, false, false, "the first hold again")

	after(time.Second, false, true, false, "a goodbye")
	after(time.Hour, false, false, false, "silence after a goodbye")
	after(0, true, false, false, "back from a goodbye")
	after(time.Second, false, false, true, "a fall")
	after(0, true, false, true, "up again")
	after(2*FirstHold-1, true, false, true, "not long enough: a goodbye is no fall, but the one before it was")
	after(1, true, false, false, "long enough")
	after(time.Second, false, false, true, "a fall")
	after(time.Second, false, true, false, "a goodbye of one that is out")
}
