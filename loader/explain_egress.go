package main

import (
	"cmp"
	"fmt"
	"net/netip"

	"roam/loader/api"
	"roam/loader/config"
	"roam/maps"
)

// policies tell what the policies of both ends say of what they exchange.
func policies(c *config.Config, t *config.Tenant, src, dst netip.Addr) (list []api.ExplainStep) {
	for _, pair := range [][2]netip.Addr{{src, dst}, {dst, src}} {
		if !pair[0].IsValid() || !pair[1].IsValid() {
			continue
		}
		p, s := t.PolicyOf(pair[0])
		way, ok := p.For(pair[1])
		if !ok {
			continue
		}
		at := "where it is"
		switch way.Via {
		case "":
			if way.Subnet {
				at = "as neighbours: they are in one subnet"
			}
		case c.Site:
			at = "by way of this site, " + c.Site
		default:
			at = "by way of " + way.Via
		}
		list = append(list, api.ExplainStep{
			Step: "egress", Found: fmt.Sprintf("%s exchanges packets with %s %s", pair[0], pair[1], at),
			Why: fmt.Sprintf("segment %s, egress %s: of hosts %s with %s", s.Name, s.Egress.Mode, p.From, way.Prefix),
		})
	}
	return list
}

// back is the step of a packet's answer, as the program has it, where somebody's policy is concerned: an answer that comes in by
// another gateway takes its way there.
func (o operator) back(c *config.Config, t *config.Tenant, r api.ExplainRequest) (api.ExplainStep, error) {
	r.Source, r.Destination, r.Interface, r.VLAN = r.Destination, r.Source, "", 0
	step := api.ExplainStep{Step: "back"}
	if _, ours := segmentOf(c, t.ID, r.Source); !ours && len(t.Uplinks) == 0 {
		step.Found = fmt.Sprintf("answers of %s come in by another gateway: explain them there", r.Source)
		return step, nil
	}
	at, frame, err := o.packet(c, t, r)
	if err != nil {
		return step, err
	}
	e, err := o.d.gateway.Explain(frame, at)
	if err != nil {
		return step, err
	}
	to := ""
	switch {
	case e.Locator.IsValid():
		to = " to " + siteName(c, e.Locator)
	case e.Verdict == maps.Forwarded:
		to = " to " + e.Egress.String()
	}
	step.Found = fmt.Sprintf("answers of %s that arrive at %s: %s%s", r.Source, at, e.Reason, to)
	if e.Report.Routed == byPolicy {
		step.Why = "by the way of a policy"
	}
	return step, nil
}

// siteName is the site of a locator, and its address.
func siteName(c *config.Config, a netip.Addr) string {
	_, site, _ := knownLocator(c, a)
	return cmp.Or(site, "tunnel end") + ", " + a.String()
}
