package main

import (
	"slices"
	"testing"

	"roam/loader/event"
)

// News are differences between two looks; what begins badly is given one look more.
func TestFates(t *testing.T) {
	locator := func(up bool) fate {
		return fate{up: event.LocatorUp, down: event.LocatorDown, subject: "192.0.2.2", alive: up, what: "locator 192.0.2.2", why: "no route", do: "look"}
	}
	source := fate{up: event.SourceUp, down: event.SourceDown, subject: "192.0.2.2", alive: true, what: "source 192.0.2.2"}
	known := knownFates{}
	for i, step := range []struct {
		now  []fate
		want []event.Kind
	}{
		{[]fate{locator(false), source}, []event.Kind{event.SourceUp}},
		{[]fate{locator(false), source}, []event.Kind{event.LocatorDown}},
		{[]fate{locator(false), source}, nil},
		{[]fate{locator(true), source}, []event.Kind{event.LocatorUp}},
		{[]fate{locator(true), source}, nil},
		{[]fate{locator(false)}, []event.Kind{event.LocatorDown}},
		{nil, nil}, // no longer configured
		{[]fate{locator(false)}, nil},
		{[]fate{locator(true)}, []event.Kind{event.LocatorUp}},
	} {
		var got []event.Kind
		for _, e := range known.compare(step.now) {
			got = append(got, e.Kind)
			if e.Kind == event.LocatorDown && (e.Why != "no route" || e.Do != "look" || e.What != "locator 192.0.2.2 is down") {
				t.Errorf("step %d: %+v", i, e)
			}
		}
		if !slices.Equal(got, step.want) {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
}
