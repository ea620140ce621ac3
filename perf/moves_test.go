package main

import (
	"slices"
	"strings"
	"testing"
)

// What an earlier run measured stays beside what this one does, in both families, and never gets mixed with it.
func TestMovesWith(t *testing.T) {
	before := &movesResult{Crowd: &crowdSide{Hosts: 3}, Sides: []*moveSide{{What: "Roam", Rows: []*moveRow{
		{Kind: "announced", Family: "IPv4", Outages: []float64{9}},
		{Kind: "announced", Family: "IPv6", Outages: []float64{9}},
		{Kind: "RARP", Family: "IPv4", Outages: []float64{8}, Lost: []int{4}},
		{Kind: "RARP", Family: "IPv6", Outages: []float64{8}, Lost: []int{4}},
	}}}}
	now := &movesResult{Sides: []*moveSide{{What: "Roam"}}}
	announced := now.Sides[0].row(&moveKind{name: "announced"}, "IPv4")
	announced.Outages, announced.Beyond, announced.Late = []float64{2}, []float64{0}, []int{0}
	whole := now.with(before)
	var got []string
	for _, row := range whole.Sides[0].Rows {
		row.Figure = summarize(row.Outages)
		got = append(got, row.Kind+" "+row.Family)
	}
	if want := []string{"announced IPv4", "RARP IPv4", "RARP IPv6"}; !slices.Equal(got, want) {
		t.Errorf("rows %q, want %q", got, want)
	}
	if row := now.Sides[0].row(&moveKind{name: "RARP"}, "IPv4"); len(row.Outages) != 0 {
		t.Errorf("the next kind begins with %v of an earlier run", row.Outages)
	}
	if whole.Crowd != before.Crowd || now.with(&movesResult{}).Crowd != nil {
		t.Error("the crowd is not that of the earlier run")
	}
	text := whole.markdown()
	for _, want := range []string{"0, at most 0; none in 1 of 1", "| 8.0 | 8.0 to 8.0 | 1 | 4 | " + notMeasured} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}

func TestCountFrom(t *testing.T) {
	for first, want := range map[int]int{0: 3, 2: 3, 3: 2, 9: 1, 10: 0} {
		if got := countFrom([]int{2, 3, 9}, first); got != want {
			t.Errorf("%d from %d on, want %d", got, first, want)
		}
	}
}
