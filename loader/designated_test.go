package main

import (
	"strings"
	"testing"

	"roam/loader/designate"
	"roam/loader/event"
	"roam/loader/route"
)

// TestDutyNews: what is told of a segment, and when switches are shown the gateway's MAC again.
func TestDutyNews(t *testing.T) {
	is := func(state designate.State, others ...designate.Hello) designate.Status {
		return designate.Status{Segment: "web", State: state, Self: designate.Hello{MAC: route.MAC{2, 1}, Rank: designate.Ready, Priority: 100}, Others: others}
	}
	other := func(last byte, designated bool) designate.Hello {
		return designate.Hello{MAC: route.MAC{2, last}, Rank: designate.Ready, Designated: designated}
	}
	for name, test := range map[string]struct {
		before, after designate.Status
		kind          event.Kind // "" for no news
		what          string
		shown         bool
	}{
		"alone":                  {is(designate.Listening), is(designate.Designated), event.Designated, "this gateway is designated", false},
		"another one comes":      {is(designate.Designated), is(designate.Designated, other(2, false)), "", "", false},
		"it was there first":     {is(designate.Listening), is(designate.Standby, other(2, true)), event.Standby, "gateway 02:02:00:00:00:00 is designated", false},
		"it dies":                {is(designate.Standby, other(2, true)), is(designate.Designated), event.Designated, "this gateway is designated", true},
		"a third one steps in":   {is(designate.Standby, other(2, true)), is(designate.Standby, other(3, true)), event.Standby, "gateway 02:03:00:00:00:00", false},
		"it is better":           {is(designate.Designated), is(designate.Standby, other(2, true)), event.Standby, "gateway 02:02:00:00:00:00", false},
		"it gives in to us":      {is(designate.Designated, other(2, true)), is(designate.Designated, other(2, false)), "", "", true},
		"the port goes down":     {is(designate.Designated), is(designate.Down), event.Standby, "not designated", false},
		"standby, the port does": {is(designate.Standby, other(2, true)), is(designate.Down), "", "", false},
	} {
		e, news := duty(test.before, test.after)
		if news != (test.kind != "") || news && (e.Kind != test.kind || !strings.Contains(e.What, test.what) || e.Subject != "web") {
			t.Errorf("%s: told %v of %+v", name, news, e)
		}
		if shown := handedOver(test.before, test.after); shown != test.shown {
			t.Errorf("%s: shown again: %v", name, shown)
		}
	}
}
