package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"roam/loader/api"
	"roam/loader/config"
	"roam/loader/datapath"
	"roam/loader/route"
	"roam/maps"
)

// operator implements api.Operator.
type operator struct{ d *daemon }

// Explain runs the real program on a packet and tells what it found on its way.
func (o operator) Explain(ctx context.Context, r api.ExplainRequest) (api.Explanation, error) {
	c := o.d.config.Load()
	tenant, ok := c.TenantNamed(r.Tenant)
	if !ok {
		return api.Explanation{}, &api.Error{Message: fmt.Sprintf("no tenant %q", r.Tenant), Hint: "roamctl status lists the tenants", Status: 404}
	}
	at, frame, err := o.packet(c, tenant, r)
	if err != nil {
		return api.Explanation{}, err
	}
	e, err := o.d.gateway.Explain(frame, at)
	if err != nil {
		return api.Explanation{}, err
	}
	out := api.Explanation{
		Verdict: string(e.Verdict), Reason: e.Reason, Text: sentence(e), Input: decode(frame), Egress: e.Egress.String(),
	}
	if e.Verdict != maps.Dropped {
		out.Output, out.Frame = decode(e.Frame), e.Frame
	}
	q := askedOf(frame, e.Report.Decapsulated != 0)
	said := policies(c, tenant, q.src, q.dst)
	out.Steps = o.steps(ctx, q, e, said)
	if r.Interface == "" && len(r.Packet) == 0 {
		out.Steps[0].Why = o.elsewhere(ctx, tenant.ID, r.Source)
	}
	if len(said) > 0 && len(r.Packet) == 0 {
		back, err := o.back(c, tenant, r)
		if err != nil {
			return api.Explanation{}, err
		}
		out.Steps = append(out.Steps, back)
	}
	return out, nil
}

// packet builds the frame to explain, or takes the one that was handed in, and finds the port where it arrives.
func (o operator) packet(c *config.Config, t *config.Tenant, r api.ExplainRequest) (datapath.PortRef, []byte, error) {
	at := datapath.PortRef{Name: r.Interface, VLAN: r.VLAN}
	if len(r.Packet) > 0 {
		if at.Name == "" {
			src, _, _ := addressesOf(r.Packet)
			at = arrivalPort(c, t, src)
		}
		return at, r.Packet, nil
	}
	if !r.Source.IsValid() || !r.Destination.IsValid() || r.Source.Is4() != r.Destination.Is4() {
		return at, nil, &api.Error{Message: "source and destination must be two addresses of one family", Status: 400}
	}
	if at.Name == "" {
		at = arrivalPort(c, t, r.Source)
	}
	proto, err := protocolOf(r.Protocol, r.Source.Is6())
	if err != nil {
		return at, nil, err
	}
	q := question{
		src: r.Source, dst: r.Destination, proto: proto, port: r.Port, ttl: 64, vlan: at.VLAN, payload: 56,
		srcMAC: route.MAC{2, 0, 0, 0, 0, 0xfe}, dstMAC: o.d.gateway.MACAt(at),
	}
	frame, err := q.frame()
	return at, frame, err
}

// arrivalPort is where a packet from an address comes in: its segment's access port, or else an uplink.
func arrivalPort(c *config.Config, t *config.Tenant, src netip.Addr) datapath.PortRef {
	if s, ok := segmentOf(c, t.ID, src); ok {
		return accessRef(s)
	}
	if len(t.Uplinks) > 0 {
		return datapath.PortRef{Name: t.Uplinks[0].Interface, VLAN: t.Uplinks[0].VLAN}
	}
	if len(t.Segments) > 0 {
		return accessRef(t.Segments[0])
	}
	return datapath.PortRef{}
}

// byPolicy is where the next hop of a walk's report comes from: see struct walk_report.
const byPolicy = 3

// steps tells the walk in the order in which the program went it; said is what policies of egress say.
func (o operator) steps(ctx context.Context, q asked, e datapath.Explained, said []api.ExplainStep) []api.ExplainStep {
	list := []api.ExplainStep{{Step: "port", Found: "arrived at " + e.Ingress.String()}}
	add := func(step, found, why string) {
		list = append(list, api.ExplainStep{Step: step, Found: found, Why: why})
	}
	tenant := route.TenantID(e.Report.Tenant)
	if e.Report.Decapsulated != 0 {
		add("decap", "came through the tunnel from "+e.From.String(), "")
	}
	if tenant != 0 {
		add("tenant", names(o).TenantName(tenant), "")
	}
	switch {
	case !q.dst.IsValid():
	case turned[e.Reason]: // what the report knows is of the answer
		if why := o.winner(ctx, tenant, q.dst); why != "" {
			add("lookup", fmt.Sprintf("%s has a route", q.dst), why)
		}
	case e.Report.Routed == 1:
		add("lookup", fmt.Sprintf("%s is in the host table: %s%s", q.dst, kindName(e), o.behind(ctx, tenant, q.dst)), o.winner(ctx, tenant, q.dst))
	case e.Report.Routed == 2:
		add("lookup", fmt.Sprintf("%s is covered by a prefix: %s", q.dst, kindName(e)), o.winner(ctx, tenant, q.dst))
	case e.Report.Routed == byPolicy:
		add("lookup", fmt.Sprintf("%s: by the way of a policy, whatever the routes say: %s", q.dst, kindName(e)), "")
	case e.Reason == "pass_no_route" || e.Reason == "drop_isolated":
		add("lookup", fmt.Sprintf("%s is no host we know, and no prefix covers it", q.dst), "")
	}
	list = append(list, said...)
	if e.Reason == "drop_source" && q.src.IsValid() {
		add("source", fmt.Sprintf("%s does not live behind %s", q.src, e.From), o.winner(ctx, tenant, q.src))
	}
	if e.Locator.IsValid() && !turned[e.Reason] {
		add("adjacency", "tunnel to "+e.Locator.String(), o.reached(e.Locator))
	}
	if mtu := o.carried(e); mtu != 0 {
		add("mtu", fmt.Sprintf("packet of %d bytes, the way out carries %d", q.length, mtu), "")
	}
	if told := askedOf(e.Frame, false); turned[e.Reason] && e.Verdict == maps.Forwarded && told.dst.IsValid() {
		add("answer", "an ICMP error goes to "+told.dst.String(), "")
	}
	add("verdict", fmt.Sprintf("%s (%s, %s)", e.Verdict, e.Reason, e.Action), sentence(e))
	return list
}

// elsewhere warns that a packet was built that does not arrive so: its sender does not live here.
func (o operator) elsewhere(ctx context.Context, tenant route.TenantID, src netip.Addr) string {
	entries, err := o.d.rib.Get(ctx, tenant, src)
	if err != nil || len(entries) == 0 || entries[0].Via == nil {
		return ""
	}
	at := entries[0].Via.Locators[0].Address
	return fmt.Sprintf("assumed: %s lives behind %s, where its packets enter; ask there, and give what leaves there to explain --packet here", src, at)
}

// turned are the ends of a packet that made the program try to answer with an ICMP error.
var turned = map[string]bool{"fwd_too_big": true, "fwd_expired": true, "drop_ttl": true, "drop_mtu": true}

// reached says how a locator is reached, or why it is not.
func (o operator) reached(locator netip.Addr) string {
	for _, s := range o.d.gateway.Locators() {
		switch {
		case s.Address != locator:
		case s.Up:
			return fmt.Sprintf("next hop %s on %s", s.NextHop, s.Interface)
		default:
			return s.Why
		}
	}
	return ""
}

// carried is the size of the largest packet that passes where this one was to go, 0 where it did not come so far.
func (o operator) carried(e datapath.Explained) int {
	switch e.Reason {
	case "fwd_too_big":
		return toldMTU(e.Frame)
	case "fwd_expired", "drop_ttl":
		return 0
	case "fwd_fragment": // the report's is that of the fragment port
		for _, s := range o.d.gateway.Locators() {
			if s.Address == e.Locator {
				return int(s.MTU)
			}
		}
	}
	return int(e.Report.Mtu)
}

// behind names the router through which a host in a fabric is reached.
func (o operator) behind(ctx context.Context, tenant route.TenantID, dst netip.Addr) string {
	entries, err := o.d.rib.Get(ctx, tenant, dst)
	if err != nil || len(entries) == 0 || entries[0].Local == nil || entries[0].Local.NextHop.IsZero() {
		return ""
	}
	return ", behind the fabric's router " + entries[0].Local.NextHop.String()
}

// winner says why the RIB chose what the table holds.
func (o operator) winner(ctx context.Context, tenant route.TenantID, dst netip.Addr) string {
	entries, err := o.d.rib.Get(ctx, tenant, dst)
	if err != nil || len(entries) == 0 {
		return ""
	}
	return entries[0].Why()
}

func kindName(e datapath.Explained) string {
	held := ""
	if e.Held {
		held = ", held after a move"
	}
	switch e.Kind {
	case maps.KindGateway:
		return "a shared gateway address"
	case maps.KindOwn:
		return "an address of this gateway"
	case maps.KindKernel:
		return "here, left to the kernel"
	case maps.KindBlackhole:
		return "to be dropped"
	case maps.KindUnresolved:
		return "elsewhere, its locator not resolved" + held
	case maps.KindAdjacency:
		return "elsewhere, one locator" + held
	case maps.KindSet:
		return fmt.Sprintf("elsewhere, several locators, flow hash %#08x%s", e.Report.Flow, held)
	case maps.KindLocal:
		return "here, on a segment of this gateway"
	}
	return "nothing"
}

// Doctor lists what an operator should know.
func (o operator) Doctor(ctx context.Context) (api.List[api.Check], error) {
	checks := api.List[api.Check]{}
	for _, f := range o.d.gateway.Doctor() {
		check := api.Check{Name: "port", Subject: f.Port, Level: api.LevelWarn, Found: f.What, Advice: f.Fix}
		if f.Port == "" {
			check.Name, check.Subject = "kernel", "machine"
		}
		switch f.Level {
		case datapath.LevelError:
			check.Level = api.LevelFail
		case datapath.LevelInfo:
			check.Level = api.LevelOK
		}
		checks = append(checks, check)
	}
	for _, l := range o.d.gateway.Locators() {
		check := api.Check{Name: "locator", Subject: l.Address.String(), Level: api.LevelOK}
		if l.Up {
			check.Found = fmt.Sprintf("next hop %s on %s, carries inner packets of %d bytes", l.NextHop, l.Interface, l.MTU)
		} else {
			check.Level, check.Found = api.LevelFail, l.Why
			check.Advice = "check the underlay: ip route get " + l.Address.String()
		}
		checks = append(checks, check)
	}
	dropping, err := o.d.dropping(ctx)
	checks = append(checks, slices.Concat(o.d.ownLocatorChecks(), o.d.ownAddressChecks(), o.d.groupChecks(), o.d.hookChecks())...)
	return append(checks, dropping...), err
}

// Reload applies the configuration anew.
func (o operator) Reload(ctx context.Context) (api.Reloaded, error) {
	ask := reload{make(chan reloaded, 1)}
	select {
	case o.d.reloads <- ask:
	case <-ctx.Done():
		return api.Reloaded{}, ctx.Err()
	}
	r := <-ask.answer
	if r.err != nil {
		return api.Reloaded{}, &api.Error{
			Message: r.err.Error(), Hint: "nothing was changed; correct the file and reload again", Status: 400,
		}
	}
	return api.Reloaded{Changes: append([]string{}, r.changes...), Warnings: append([]string{}, r.warnings...)}, nil
}
