package lab

import (
	"slices"
	"testing"
	"time"
)

// TestTally feeds arrivals by hand: each kind of trouble must show, and only that kind.
func TestTally(t *testing.T) {
	type arrival struct{ seq, ms int }
	for _, test := range []struct {
		name     string
		sent     int
		arrivals []arrival
		want     Result
		perfect  bool
	}{
		{name: "nothing sent"},
		{
			name: "clean", sent: 3, arrivals: []arrival{{0, 0}, {1, 1}, {2, 2}},
			want: Result{Sent: 3, Received: 3, Gap: time.Millisecond}, perfect: true,
		},
		{
			name: "lost in the middle", sent: 4, arrivals: []arrival{{0, 0}, {2, 7}, {3, 8}},
			want: Result{Sent: 4, Received: 3, Missing: []int{1}, Gap: 7 * time.Millisecond, GapAfter: 0},
		},
		{
			name: "lost at the end", sent: 3, arrivals: []arrival{{0, 0}, {1, 1}},
			want: Result{Sent: 3, Received: 2, Missing: []int{2}, Gap: time.Millisecond},
		},
		{
			name: "all lost", sent: 2,
			want: Result{Sent: 2, Missing: []int{0, 1}},
		},
		{
			name: "twice", sent: 2, arrivals: []arrival{{0, 0}, {1, 1}, {1, 9}},
			want: Result{Sent: 2, Received: 2, Duplicated: 1, Gap: time.Millisecond},
		},
		{
			name: "overtaken", sent: 3, arrivals: []arrival{{0, 0}, {2, 1}, {1, 2}},
			want: Result{Sent: 3, Received: 3, Reordered: 1, Gap: time.Millisecond},
		},
	} {
		var tally Tally
		start := time.Unix(1000, 0)
		for _, a := range test.arrivals {
			tally.Add(a.seq, start.Add(time.Duration(a.ms)*time.Millisecond), 0)
		}
		got := tally.Result(test.sent)
		if !slices.Equal(got.Missing, test.want.Missing) {
			t.Errorf("%s: missing %v, want %v", test.name, got.Missing, test.want.Missing)
		}
		got.Missing, test.want.Missing, got.Took = nil, nil, 0
		if got.String() != test.want.String() || got.GapAfter != test.want.GapAfter {
			t.Errorf("%s:\ngot  %v\nwant %v", test.name, got, test.want)
		}
		if got.Perfect() != test.perfect {
			t.Errorf("%s: Perfect() = %v", test.name, got.Perfect())
		}
	}
}

func TestChecksum(t *testing.T) {
	// RFC 1071, section 3: the sum of these bytes is ddf2.
	if got := checksum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}); got != ^uint16(0xddf2) {
		t.Errorf("checksum %#04x, want %#04x", got, ^uint16(0xddf2))
	}
	if got := checksum([]byte{0x01}); got != ^uint16(0x0100) {
		t.Errorf("odd length: checksum %#04x", got)
	}
}

// TestRestored: a stream is whole again with the first packet after the last one missing, in the order in which they were sent.
func TestRestored(t *testing.T) {
	for _, test := range []struct {
		seqs []int // one a second
		want int64 // 0 for never
	}{
		{nil, 0},
		{[]int{0, 1, 2}, 0},
		{[]int{0, 1, 5, 6}, 3},
		{[]int{0, 3, 5, 6}, 3},
		{[]int{0, 1, 6, 5}, 4}, // the later one was overtaken
		{[]int{0, 2, 1}, 0},
	} {
		var tally Tally
		for i, seq := range test.seqs {
			tally.Add(seq, time.Unix(int64(i+1), 0), 0)
		}
		got := tally.Restored()
		if test.want == 0 && !got.IsZero() || test.want != 0 && got != time.Unix(test.want, 0) {
			t.Errorf("%v: restored at %v, want %d", test.seqs, got, test.want)
		}
	}
}
