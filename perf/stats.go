package main

import (
	"math"
	"slices"
)

// Figure is what one row came to over all rounds: the median, and the spread as 10th and 90th percentile.
type Figure struct {
	Median float64 `json:"median"`
	P10    float64 `json:"p10"`
	P90    float64 `json:"p90"`
}

// summarize sorts a copy of the samples. Percentiles lie between neighbouring samples.
func summarize(samples []float64) Figure {
	s := slices.Clone(samples)
	slices.Sort(s)
	return Figure{Median: percentile(s, 0.5), P10: percentile(s, 0.1), P90: percentile(s, 0.9)}
}

func percentile(sorted []float64, p float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	at := p * float64(len(sorted)-1)
	low := int(at)
	if low+1 == len(sorted) {
		return sorted[low]
	}
	return sorted[low] + (at-float64(low))*(sorted[low+1]-sorted[low])
}

// ratios divides round by round: what drifts within a run moves both sides of a round alike.
func ratios(of, by []float64) []float64 {
	out := make([]float64, min(len(of), len(by)))
	for i := range out {
		out[i] = of[i] / by[i]
	}
	return out
}
