package api

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"

	"roam/loader/route"
)

// routes lists what every source claims.
func (s *Server) routes(w http.ResponseWriter, r *http.Request) error {
	values, err := query(r, "tenant", "source", "site", "within", "best")
	if err != nil {
		return err
	}
	filter := Filter{Source: values.Get("source"), Site: values.Get("site")}
	if filter.Tenant, err = s.filterTenant(values.Get("tenant")); err != nil {
		return err
	}
	if within := values.Get("within"); within != "" {
		if filter.Within, err = ParsePrefix(within); err != nil {
			return wrong(err, "")
		}
	}
	if filter.Best, err = flag(values, "best"); err != nil {
		return err
	}
	out := newStream(w, string(JSONL))
	links := make(links)
	err = s.backend.Walk(r.Context(), filter, func(c *Claim) error { return out.line(s.route(c, links)) })
	return s.end(out, r, err)
}

// end closes a stream, with the error that ended it if any.
func (s *Server) end(out *stream, r *http.Request, err error) error {
	if err != nil {
		s.fail(out, r, err)
		return nil
	}
	_ = out.flush() // a client that has gone hears nothing
	return nil
}

// filterTenant is the tenant to filter by; none where none is named.
func (s *Server) filterTenant(name string) (route.TenantID, error) {
	if name == "" {
		return 0, nil
	}
	return (&resolver{names: s.backend.Names}).tenant(name)
}

// links remembers the names of interfaces during one request.
type links map[int]string

func (l links) name(index int) string {
	if index == 0 {
		return ""
	}
	name, ok := l[index]
	if !ok {
		name = "#" + strconv.Itoa(index) // gone
		if i, err := net.InterfaceByIndex(index); err == nil {
			name = i.Name
		}
		l[index] = name
	}
	return name
}

func (s *Server) route(c *Claim, links links) Route {
	m := Route{
		Prefix: c.Prefix, Tenant: s.backend.TenantName(c.Tenant),
		Via: locatorsOf(c.Via), Local: localOf(c.Local, links), Reject: c.Reject,
		Source: c.Source, Preference: c.Preference, Site: c.Site, Sequence: c.Sequence, Pinned: c.Pinned, Best: c.Best,
		AgeSeconds: c.Age.Seconds(),
	}
	if !c.MAC.IsZero() {
		m.MAC = c.MAC.String()
	}
	if c.Why != nil {
		m.Why = c.Why()
	}
	return m
}

func localOf(l *route.Local, links links) *Local {
	if l == nil {
		return nil
	}
	return &Local{Interface: links.name(l.Link), VLAN: l.VLAN}
}

// address reads the address and the tenant that a request names.
func (s *Server) address(address, tenant string) (netip.Addr, route.TenantID, error) {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return a, 0, wrong(fmt.Errorf("%.60q is no address such as 10.1.0.7 or 2001:db8:1::7", address), "")
	}
	if err := route.ValidHost(a); err != nil {
		return a, 0, wrong(err, "")
	}
	id, err := (&resolver{names: s.backend.Names}).tenant(tenant)
	return a, id, err
}

func (s *Server) lookup(w http.ResponseWriter, r *http.Request) error {
	values, err := query(r, "address", "tenant")
	if err != nil {
		return err
	}
	a, tenant, err := s.address(values.Get("address"), values.Get("tenant"))
	if err != nil {
		return err
	}
	claims, err := s.backend.Lookup(r.Context(), tenant, a)
	if err != nil {
		return err
	}
	found := Found{Address: a, Tenant: s.backend.TenantName(tenant), Routes: []Route{}}
	links := make(links)
	for i := range claims {
		found.Routes = append(found.Routes, s.route(&claims[i], links))
	}
	return reply(w, found)
}

func (s *Server) add(w http.ResponseWriter, r *http.Request) error {
	var n NewRoute
	if _, err := query(r); err != nil {
		return err
	}
	if err := body(w, r, &n); err != nil {
		return err
	}
	c, err := (&resolver{names: s.backend.Names}).change(&n)
	if err != nil {
		return wrong(err, "")
	}
	if err := s.backend.Inject(r.Context(), []route.Change{c}); err != nil {
		return err
	}
	return reply(w, Injected{Added: 1})
}

func (s *Server) remove(w http.ResponseWriter, r *http.Request) error {
	values, err := query(r, "prefix", "tenant")
	if err != nil {
		return err
	}
	if !values.Has("prefix") {
		return wrong(fmt.Errorf("no prefix is named"), "POST /v1/routes/flush withdraws everything")
	}
	p, err := ParsePrefix(values.Get("prefix"))
	if err != nil {
		return wrong(err, "")
	}
	tenant, err := (&resolver{names: s.backend.Names}).tenant(values.Get("tenant"))
	if err != nil {
		return err
	}
	c := route.Change{Claim: route.Claim{Key: route.Key{Tenant: tenant, Prefix: p}}, Withdraw: true}
	if err := s.backend.Inject(r.Context(), []route.Change{c}); err != nil {
		return err
	}
	return reply(w, Injected{Removed: 1})
}

func (s *Server) flush(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	n, err := s.backend.Flush(r.Context())
	if err != nil {
		return err
	}
	return reply(w, Injected{Removed: n})
}
