package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// While something happens, packets are offered until it is over; all that are lost count.
func TestWhile(t *testing.T) {
	turn, over := 0, make(chan struct{})
	offers := offering(func(l load) outcome {
		if turn++; turn == 3 {
			close(over)
		}
		o := outcome{sent: 1000, received: 990, rate: 1e4, deepest: 100 + turn, overflow: overflow{Queue: 7, Cable: 2}, stalls: stalls{Longest: time.Duration(turn)}}
		if turn > 3 { // it is over, but its end may not have been seen yet
			time.Sleep(time.Millisecond)
		}
		return o
	})
	h, err := while(offers, load{}, func() error { <-over; return nil })
	n := h.Trials
	want := happening{h.Seconds, h.Sending, n, 1000 * n, 10 * n, n, overflow{7 * n, 2 * n, 0}, 0, 100 + n, time.Duration(n)}
	if err != nil || n < 3 || h != want || h.Seconds == 0 || h.Sending == 0 {
		t.Errorf("%+v, %v", h, err)
	}
	if _, err := while(offers, load{}, func() error { return errors.New("refused") }); err == nil {
		t.Error("what fails, fails silently")
	}
}

// A rate is held when so many trials in a row lose nothing.
func TestHold(t *testing.T) {
	slow := 0
	offers := offering(func(l load) outcome {
		capacity := 1e6
		if slow++; slow%3 == 0 && slow < 10 { // for a while the machine is slower every now and then
			capacity = 0.9e6
		}
		return outcome{sent: int(l.rate), received: int(min(l.rate, capacity))}
	})
	s := search{Rate: 1e6}
	if err := s.hold(offers, load{}); err != nil || s.Rate > 0.9e6 || s.Rate < 0.85e6 {
		t.Errorf("%+v, %v", s, err)
	}
	s = search{Rate: 1e6}
	if err := s.hold(offering(func(load) outcome { return outcome{sent: 2, received: 1} }), load{}); err == nil {
		t.Errorf("held where every packet is lost: %+v", s)
	}
}

func TestRefused(t *testing.T) {
	if n := refused(lab.Counters{"fwd_encap": 1000, "drop_unresolved": 3, "pass_kernel": 4}); n != 7 {
		t.Errorf("%d packets refused", n)
	}
}

func TestSystemTables(t *testing.T) {
	r := measured()
	r.Parts = map[string]*Part{"system": {Rounds: 3, TrialMS: 100}}
	none := &systemRow{Forwarder: "absent", Why: "it is not installed"}
	row := &systemRow{Forwarder: "Roam", Frame: "64 bytes", Hosts: 1}
	for _, rate := range []float64{1e6, 2e6, 4e6} {
		row.Rounds = append(row.Rounds, systemRound{
			LossFree: search{Rate: rate, Trials: 10, Again: 1, Packets: 1000, Stalls: stalls{Times: 1, Sent: 50, Lost: 5}},
			Beyond:   []beyond{{1.5, 3e6, 2e6}, {2, 4e6, 2e6}, {0, 6e6, rate}},
			Latency:  []latency{{0.1, 1e3, 2e3, 3e3, 4e3}, {0.5, 1e3, 2e3, 3e3, rate}, {0.9, 1e3, 2e3, 3e3, 4e3}},
		})
	}
	r.System = []*systemRow{none, row}
	r.ZeroLoss = []*zeroLossRow{{What: "an upgrade", Hosts: 1024, Queue: 16384, LossFree: search{Rate: 1.11e6}, Times: []happening{
		{Seconds: 1, Sending: 0.5, Trials: 5, Sent: 500_000, Lost: 1, Lossy: 1, Refused: 1, Deepest: 200, Longest: 2e6},
		{Seconds: 3, Sending: 0.5, Trials: 5, Sent: 500_000, Lost: 2, Lossy: 1, Overflow: overflow{Queue: 2}, Deepest: 300, Longest: 1e6},
	}}}
	text := r.markdown()
	for _, want := range []string{
		"| absent | not measured: it is not installed |",
		"| Roam | 64 bytes | 1 | 2.00 (1.20–3.60) | 2.00 of 3.00 | 2.00 of 4.00 | 2.00 of 6.00 | 5.0% |",
		"| 3, trials of 100 ms |",
		"of 30 trials 3 were repeated",
		"| Roam | 64 bytes | 1 | 50% | 1.0 | 2.0 | 3.0 | 2000.0 |",
		"with a queue of 16384 frames",
		"| an upgrade | 1 Ki | 2, 2.00 s | 1000000, 1.00 of 1.11 | **3** | 2 of 10 | 2 | 1 | 300 | 2.0 ms |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	r.System, r.ZeroLoss = []*systemRow{{Forwarder: "of an older run"}}, []*zeroLossRow{{What: "of an older run", Times: []happening{{Sent: 1}}}}
	if text := r.markdown(); strings.Contains(text, "## System") || strings.Contains(text, "## Zero loss") {
		t.Error("rows without a round make a table")
	}
}
