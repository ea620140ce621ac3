package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"roam/loader/api"
	"roam/loader/datapath"
	"roam/maps"
)

// tracer implements api.Tracer.
type tracer struct{ d *daemon }

// Trace begins to tell of packets.
func (t tracer) Trace(ctx context.Context, r api.TraceRequest) (api.Trace, error) {
	reasons, err := reasonsNamed(r.Reasons)
	if err != nil {
		return nil, err
	}
	trace, err := t.d.gateway.Trace(ctx, datapath.TraceSpec{
		Host: r.Host, Reasons: reasons, Tenant: r.Tenant, Locator: r.Locator, Sample: r.Sample, Bytes: min(r.Bytes, maps.TraceBytes),
	})
	switch {
	case errors.Is(err, datapath.ErrNoLocator):
		return nil, &api.Error{Message: err.Error(), Hint: "roamctl site list shows the locators", Status: http.StatusNotFound}
	case errors.Is(err, datapath.ErrTooManyTraces):
		return nil, &api.Error{Message: err.Error(), Hint: "end one of them", Status: http.StatusConflict}
	case err != nil:
		return nil, err
	}
	return newTelling(trace, names(t)), nil
}

// reasonsNamed finds reasons by their names, or by those of their families.
func reasonsNamed(wanted []string) (list []maps.Reason, err error) {
	all, err := maps.ReasonNames()
	if err != nil {
		return nil, err
	}
	for _, w := range wanted {
		found := false
		for n, name := range all {
			if name != "" && (name == w || strings.HasPrefix(name, w+"_") && !strings.Contains(w, "_")) {
				list, found = append(list, maps.Reason(n)), true
			}
		}
		if !found {
			return nil, &api.Error{
				Message: fmt.Sprintf("%.40q is no reason", w), Hint: "docs/reasons.md lists them; fwd, pass and drop are all of a family", Status: http.StatusBadRequest,
			}
		}
	}
	return list, nil
}

// telling implements api.Trace.
type telling struct {
	*datapath.Trace
	out chan api.TracedPacket
}

func newTelling(t *datapath.Trace, n names) telling {
	out := telling{t, make(chan api.TracedPacket, 256)}
	go func() {
		defer close(out.out)
		for p := range t.Packets {
			out.out <- packetOf(p, n)
		}
	}()
	return out
}

// Packets implements api.Trace: who has called Stop reads on until its end.
func (t telling) Packets() <-chan api.TracedPacket { return t.out }

func packetOf(p datapath.TracedPacket, n names) api.TracedPacket {
	out := api.TracedPacket{
		Time: p.When, Reason: p.Reason, Verdict: string(p.Verdict), In: p.In, Out: p.Out, Source: p.Src, Destination: p.Dst,
		Protocol: p.Proto, SourcePort: p.SrcPort, DestinationPort: p.DstPort, From: p.From, To: p.Locator,
		Length: p.Bytes, LengthAfter: p.BytesAfter, Before: p.Before, After: p.After,
	}
	if p.Tenant != 0 {
		out.Tenant = n.TenantName(p.Tenant)
	}
	return out
}
