package main

import (
	"context"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strings"
	"time"

	"roam/loader/api"
	"roam/loader/config"
	"roam/loader/datapath"
	"roam/loader/designate"
	"roam/loader/event"
	"roam/loader/host"
	"roam/loader/lan"
	"roam/loader/radv"
	"roam/loader/route"
)

// elections are the segments on which the gateways elect the one that answers.
func elections(c *config.Config) []designate.Link {
	var list []designate.Link
	for _, t := range c.Tenants {
		for _, s := range t.Segments {
			e := s.Gateway.Election
			if e == nil {
				continue
			}
			l := designate.Link{
				Segment: s.Name, Interface: deviceOf(s), Port: s.Access.Interface, VNI: t.VNI, Priority: e.Priority, Interval: e.Interval, Lost: e.Multiplier,
				Preempt: e.Preempt, Note: designate.Note{Site: c.Site, GatewayMAC: s.Gateway.MAC},
			}
			if len(s.Gateway.OwnAddresses) > 0 {
				l.Note.Address = s.Gateway.OwnAddresses[0]
			}
			list = append(list, l)
		}
	}
	return list
}

// deviceOf is the interface on which the kernel sees a segment's packets untagged.
func deviceOf(s config.Segment) string {
	ref := accessRef(s)
	return datapath.PortSpec{Name: ref.Name, VLAN: ref.VLAN, Inner: ref.Inner}.Device()
}

// makeDesignator prepares the elections. They are held once the daemon runs.
func (d *daemon) makeDesignator(cfg *config.Config) {
	d.elected = make(chan struct{}, 1)
	d.designator = designate.New(designate.Options{Log: d.log, Duty: d.gateway.SetDuty, Changed: func() {
		select {
		case d.elected <- struct{}{}:
		default:
		}
	}})
	d.designator.Set(elections(cfg))
	d.setDuties(cfg)
}

// duties is what the last look at the elections found, by segment.
type duties map[string]designate.Status

// followElections acts on gateways that come, go, or become something else.
func (d *daemon) followElections(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.elected:
			d.act()
		}
	}
}

func (d *daemon) act() {
	d.electing.Lock()
	defer d.electing.Unlock()
	before := d.duties
	d.duties = duties{}
	for _, s := range d.designator.Statuses() {
		d.duties[s.Segment] = s
	}
	d.setDuties(d.config.Load())
	for segment, after := range d.duties {
		if handedOver(before[segment], after) {
			d.lan.Show()
		}
		if e, news := duty(before[segment], after); news {
			d.events.Add(e)
		}
	}
	d.shareSegments()
}

// setDuties has what only one gateway may do on a segment done by the designated one: the caller holds electing, or runs alone.
func (d *daemon) setDuties(c *config.Config) {
	mine := map[string]bool{} // by interface
	for _, t := range c.Tenants {
		for _, s := range t.Segments {
			mine[deviceOf(s)] = s.Gateway.Election == nil || d.duties[s.Name].State == designate.Designated
		}
	}
	d.lan.Set(slices.DeleteFunc(shown(c), func(l lan.Link) bool { return !mine[l.Interface] }))
	d.radv.Set(slices.DeleteFunc(advertised(c), func(l radv.Link) bool { return !mine[l.Interface] }))
}

// shareSegments has the other gateways on a segment taken for neither hosts nor nobody. The caller holds electing.
func (d *daemon) shareSegments() {
	now := map[string][]route.MAC{}
	for segment, s := range d.duties {
		for _, o := range s.Others {
			now[segment] = append(now[segment], o.MAC)
		}
		slices.SortFunc(now[segment], func(a, b route.MAC) int { return slices.Compare(a[:], b[:]) })
	}
	if reflect.DeepEqual(now, d.siblings) {
		return
	}
	d.noteSiblings(d.siblings, now, false)
	d.noteSiblings(now, d.siblings, true)
	d.siblings = now
	d.hosts.SetSegments(d.segments(d.config.Load()))
}

// noteSiblings tells the data path of the gateways that one list has and the other has not.
func (d *daemon) noteSiblings(these, butNot map[string][]route.MAC, present bool) {
	for segment, list := range these {
		for _, mac := range list {
			if slices.Contains(butNot[segment], mac) {
				continue
			}
			if err := d.gateway.SetSibling(d.gateway.SegmentIndex(segment), mac, present); err != nil {
				d.log.Warn("note another gateway", "segment", segment, "error", err)
			}
		}
	}
}

// segments is what the source of hosts is to know; the caller holds electing.
func (d *daemon) segments(c *config.Config) []host.Segment {
	list := hostSegments(c, d.gateway.SegmentIndex)
	i := 0
	for _, t := range c.Tenants {
		for _, s := range t.Segments {
			list[i].NotHost = append(list[i].NotHost, d.siblings[s.Name]...)
			i++
		}
	}
	return list
}

// reelect follows a configuration.
func (d *daemon) reelect(c *config.Config) {
	d.designator.Set(elections(c))
	d.electing.Lock()
	defer d.electing.Unlock()
	d.hosts.SetSegments(d.segments(c))
	d.setDuties(c)
	d.rerank()
}

// rerank says how fit this gateway is to be designated.
func (d *daemon) rerank() { d.designator.SetRank(d.rank()) }

func (d *daemon) rank() designate.Rank {
	switch {
	case d.drained.Load():
		return designate.Leaving
	case !slices.ContainsFunc(d.config.Load().Underlay.Interfaces, carrier):
		return designate.CutOff
	case !d.synced.Load():
		return designate.Starting
	}
	locators := d.gateway.Locators()
	if len(locators) > 0 && !slices.ContainsFunc(locators, func(l datapath.LocatorState) bool { return l.Up }) {
		return designate.Isolated
	}
	return designate.Ready
}

func carrier(name string) bool {
	nic, err := net.InterfaceByName(name)
	return err == nil && nic.Flags&net.FlagUp != 0 && nic.Flags&net.FlagRunning != 0
}

// handedOver reports that another gateway was designated, beside this one, and is no longer: switches may have learnt from it last.
func handedOver(before, after designate.Status) bool {
	designated := func(s designate.Status) bool {
		return slices.ContainsFunc(s.Others, func(h designate.Hello) bool { return h.Designated })
	}
	return after.State == designate.Designated && designated(before) && !designated(after)
}

// duty is what there is to tell of a segment.
func duty(before, after designate.Status) (e event.Event, news bool) {
	e = event.Event{Subject: after.Segment, Why: othersOf(after)}
	was, is := before.State == designate.Designated, after.State == designate.Designated
	first, known := after.Designated()
	earlier, _ := before.Designated()
	switch {
	case is && !was:
		e.Kind, e.What = event.Designated, "this gateway is designated on segment "+after.Segment
	case was && !is && after.State == designate.Down:
		e.Kind, e.What, e.Why = event.Standby, "this gateway is not designated on segment "+after.Segment+" any more", "its port is down"
	case known && !is && (was || earlier.MAC != first.MAC):
		e.Kind, e.What = event.Standby, fmt.Sprintf("gateway %s is designated on segment %s", gatewayName(first), after.Segment)
	default:
		return e, false
	}
	return e, true
}

func othersOf(s designate.Status) string {
	if len(s.Others) == 0 {
		return "no other gateway is heard there"
	}
	var list []string
	for _, o := range append([]designate.Hello{s.Self}, s.Others...) {
		list = append(list, fmt.Sprintf("%s is %s with priority %d", gatewayName(o), o.Rank, o.Priority))
	}
	return strings.Join(list, ", ")
}

func gatewayName(h designate.Hello) string {
	if h.Note.Address.IsValid() {
		return fmt.Sprintf("%s (%s)", h.Note.Address, h.MAC)
	}
	return h.MAC.String()
}

// segmentStates is what the control socket tells of segments.
func (d *daemon) segmentStates() []api.Segment {
	is := map[string]designate.Status{}
	for _, s := range d.designator.Statuses() {
		is[s.Segment] = s
	}
	var list []api.Segment
	for _, t := range d.config.Load().Tenants {
		for _, s := range t.Segments {
			out := api.Segment{Name: s.Name, Tenant: t.Name, Interface: deviceOf(s), State: string(designate.Designated), Gateways: []api.SegmentGateway{}}
			if s.Gateway.Election != nil {
				e := is[s.Name]
				out.State, out.SinceSeconds = string(e.State), time.Since(e.Since).Seconds()
				for i, o := range append([]designate.Hello{e.Self}, e.Others...) {
					out.Gateways = append(out.Gateways, api.SegmentGateway{
						MAC: o.MAC.String(), Address: o.Note.Address, Site: o.Note.Site, Rank: o.Rank.String(), Priority: o.Priority,
						Designated: o.Designated, Own: i == 0,
					})
				}
			}
			list = append(list, out)
		}
	}
	return list
}

// electionWarnings names gateways on our segments that are configured as if they were on others.
func (d *daemon) electionWarnings() (list []string) {
	for _, s := range d.designator.Statuses() {
		for _, o := range s.Others {
			if o.Note.GatewayMAC != s.Self.Note.GatewayMAC {
				list = append(list, fmt.Sprintf("segment %s: gateway %s answers with MAC %s, this one with %s: give both the same gateway.mac",
					s.Segment, gatewayName(o), o.Note.GatewayMAC, s.Self.Note.GatewayMAC))
			}
		}
	}
	return list
}

// designatedAt names the gateway that answers for a host of a segment here, "" where the gateways elect none.
func (d *daemon) designatedAt(tenant route.TenantID, key route.Key) string {
	s, ok := segmentOf(d.config.Load(), tenant, key.Prefix.Addr())
	if !ok || s.Gateway.Election == nil {
		return ""
	}
	for _, e := range d.designator.Statuses() {
		if e.Segment != s.Name {
			continue
		}
		first, known := e.Designated()
		switch {
		case !known:
			return "nobody"
		case e.State == designate.Designated:
			return "this gateway"
		}
		return gatewayName(first)
	}
	return ""
}

// Drain implements api.Operator: what is announced is withdrawn, and other gateways on our segments step in. What still comes is forwarded.
func (o operator) Drain(out bool) {
	o.d.drained.Store(out)
	o.d.bgp.Withhold(out)
	o.d.rerank()
}
