package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// While something happens, packets are offered until it is over; what is lost in stalls is apart.
func TestWhile(t *testing.T) {
	turn, over := 0, make(chan struct{})
	offers := offering(func(l load) outcome {
		if turn++; turn == 3 {
			close(over)
		}
		o := outcome{sent: 1000, received: 990, rate: 1e4, stalls: stalls{Times: 2, Longest: time.Duration(turn), Sent: 50, Lost: 9}}
		if turn > 3 { // it is over, but its end may not have been seen yet
			time.Sleep(time.Millisecond)
		}
		return o
	})
	h, err := while(offers, load{}, func() error { <-over; return nil })
	n := h.Trials
	if err != nil || n < 3 || h.Sent != 1000*n || h.Lost != n || h.Stalled != n || h.Stalls != (stalls{2 * n, time.Duration(n), 50 * n, 9 * n}) || h.Seconds == 0 {
		t.Errorf("%+v, %v", h, err)
	}
	if _, err := while(offers, load{}, func() error { return errors.New("refused") }); err == nil {
		t.Error("what fails, fails silently")
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
	r.ZeroLoss = []*zeroLossRow{{What: "an upgrade", Hosts: 1024, Times: []happening{
		{Seconds: 1, Sending: 0.5, Trials: 5, Sent: 500_000, Lost: 1, Refused: 7, Stalled: 2, Stalls: stalls{10, 2e6, 5000, 50}},
		{Seconds: 3, Sending: 0.5, Trials: 5, Sent: 500_000, Lost: 2, Stalls: stalls{10, 1e6, 5000, 50}},
	}}}
	text := r.markdown()
	for _, want := range []string{
		"| absent | not measured: it is not installed |",
		"| Roam | 64 bytes | 1 | 2.00 (1.20–3.60) | 2.00 of 3.00 | 2.00 of 4.00 | 2.00 of 6.00 | 5.0% |",
		"| 3, trials of 100 ms |",
		"of 30 trials 3 were repeated",
		"| Roam | 64 bytes | 1 | 50% | 1.0 | 2.0 | 3.0 | 2000.0 |",
		"| an upgrade | 1 Ki | 2, 2.00 s | 1000000, 1.00 | **7** | **3** | 20 | 2.0 ms | 2 of 10 | 100 |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	r.System, r.ZeroLoss = []*systemRow{{Forwarder: "of an older run"}}, []*zeroLossRow{{What: "of an older run"}}
	if text := r.markdown(); strings.Contains(text, "## System") || strings.Contains(text, "## Zero loss") {
		t.Error("rows without a round make a table")
	}
}
