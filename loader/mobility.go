package main

import (
	"fmt"
	"time"

	"roam/loader/api"
	"roam/loader/event"
	"roam/loader/host"
	"roam/loader/rib"
	"roam/loader/route"
)

// tellHost notes what the source of hosts has to say about one. It runs in the source's goroutine.
func (d *daemon) tellHost(n host.Notice) {
	e := event.Event{Subject: n.Key.Prefix.Addr().String(), Tenant: names{d}.TenantName(n.Key.Tenant)}
	switch n.Kind {
	case host.NoticeFrozen:
		e.Kind = event.Frozen
		e.What = fmt.Sprintf("%s is frozen where it was", e.Subject)
		e.Why = fmt.Sprintf("it moved %d times in its window", n.Frozen.Moves)
		if !n.Claimant.IsZero() {
			e.Why += fmt.Sprintf(", the last claim came from %s", n.Claimant)
		}
		e.Do = "find who else has its address, then roamctl host clear " + e.Subject
		if !n.Frozen.Until.IsZero() {
			e.Do += "; it recovers by itself after " + n.Frozen.Until.Sub(n.Frozen.Since).Round(time.Second).String()
		}
	case host.NoticeThawed:
		e.Kind = event.Thawed
		e.What = fmt.Sprintf("%s is free to move again", e.Subject)
		e.Why = fmt.Sprintf("it was frozen for %v", n.Frozen.Until.Sub(n.Frozen.Since).Round(time.Second))
	case host.NoticeConflict:
		e.Kind = event.Conflict
		e.What = fmt.Sprintf("%s is claimed by %s, and stays where it is", e.Subject, somebody(n.Claimant))
		e.Why = fmt.Sprintf("%s still answers", somebody(n.Holder))
		e.Do = "one of the two has a wrong address, or means harm: find it by its MAC address"
	case host.NoticeFailover:
		e.Kind = event.Failover
		e.What = fmt.Sprintf("%s is at %s now", e.Subject, n.Claimant)
		e.Why = fmt.Sprintf("%s, which had it, does not answer", n.Holder)
	case host.NoticeNotAllowed:
		e.Kind = event.Refused
		e.What = fmt.Sprintf("%s is not taken for a host", e.Subject)
		e.Why = fmt.Sprintf("%s has it, and mobility.allow of its segment does not list it", n.Claimant)
		e.Do = "list it there and reload, if it may move"
	}
	d.events.Note(e.Kind, func() event.Event { return e })
}

// somebody names a station; one that is at another site has no MAC here.
func somebody(mac route.MAC) string {
	if mac.IsZero() {
		return "another site"
	}
	return mac.String()
}

// Clear implements api.Operator.
func (o operator) Clear(key route.Key) bool {
	if !o.d.hosts.Clear(key) {
		return false
	}
	o.d.events.Add(event.Event{
		Kind: event.Thawed, Subject: key.Prefix.Addr().String(), Tenant: names(o).TenantName(key.Tenant),
		What: key.Prefix.Addr().String() + " is free to move again", Why: "somebody cleared it",
	})
	return true
}

// mobility says what a host is doing: what keeps it from moving first.
func (d *daemon) mobility(at *rib.Entry) api.Mobility {
	if !at.Key.Host() {
		return api.Mobility{}
	}
	doing, z := d.hosts.Doing(at.Key)
	switch {
	case at.Pinned:
		return api.Mobility{State: "sticky"}
	case doing != host.Settled:
		return api.Mobility{State: string(doing), Until: z.Until}
	case at.Local != nil:
		return api.Mobility{State: "here"}
	case at.Held:
		return api.Mobility{State: "held"}
	}
	return api.Mobility{State: "away"}
}
