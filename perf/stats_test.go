package main

import (
	"math"
	"testing"
)

func TestSummarize(t *testing.T) {
	samples := []float64{5, 1, 4, 2, 3, 9, 7, 8, 6, 10, 0}
	if got, want := summarize(samples), (Figure{Median: 5, P10: 1, P90: 9}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if samples[0] != 5 {
		t.Error("the samples were sorted in place")
	}
	if got := summarize([]float64{1, 2}).Median; got != 1.5 {
		t.Errorf("median of 1 and 2 is %v", got)
	}
	if got := summarize(nil).Median; !math.IsNaN(got) {
		t.Errorf("median of nothing is %v", got)
	}
}

func TestRatiosAreTakenRoundByRound(t *testing.T) {
	// A machine that slows down by half in the second round changes no ratio.
	if got := ratios([]float64{100, 200}, []float64{50, 100}); got[0] != 2 || got[1] != 2 {
		t.Errorf("got %v", got)
	}
	if got := ratios(nil, []float64{1}); len(got) != 0 {
		t.Errorf("got %v for rows that were not measured", got)
	}
}
