package feed

import (
	"net/netip"
	"testing"

	"roam/loader/route"
)

func decisions(from, n int) []route.Decision {
	list := make([]route.Decision, n)
	for i := range list {
		list[i].Key = route.KeyOf(1, netip.MustParseAddr("10.1.0.7"))
		list[i].Sequence = uint32(from + i)
	}
	return list
}

func apply(t *testing.T, f *Feed, from, n int) {
	t.Helper()
	if err := f.Apply(t.Context(), decisions(from, n)); err != nil {
		t.Fatal(err)
	}
}

// Two readers, one of them slower than the ring is long; nothing is kept before the first and after the last.
func TestReaders(t *testing.T) {
	f := New()
	apply(t, f, 0, 10) // nobody hears these
	a, doneA := f.Follow()
	apply(t, f, 100, 3)
	b, doneB := f.Follow()
	into := make([]route.Decision, 2)
	n, missed, _ := f.Changes(a, into)
	if n != 2 || missed != 0 || into[0].Sequence != 100 || into[1].Sequence != 101 {
		t.Fatalf("%d decisions, %d missed: %v", n, missed, into)
	}
	if n, _, changed := f.Changes(b, into); n != 0 {
		t.Fatal("a decision from before a reader came")
	} else {
		apply(t, f, 200, 1)
		<-changed
	}
	if n, _, _ = f.Changes(b, into); n != 1 || into[0].Sequence != 200 {
		t.Fatalf("%d decisions: %v", n, into)
	}
	apply(t, f, 300, Kept+5)
	n, missed, _ = f.Changes(b+1, into)
	if n != 2 || missed != 5 || into[0].Sequence != 305 {
		t.Fatalf("%d decisions, %d missed: %v", n, missed, into)
	}
	doneA()
	doneA()
	if f.ring == nil {
		t.Error("the ring went with a reader that was not the last")
	}
	doneB()
	if f.ring != nil {
		t.Error("the ring outlives its readers")
	}
	apply(t, f, 400, 1)
	c, done := f.Follow()
	defer done()
	if n, missed, _ := f.Changes(c, into); n != 0 || missed != 0 {
		t.Errorf("%d decisions, %d missed for a new reader", n, missed)
	}
}
