package api

import (
	"fmt"
	"net/http"

	"roam/loader/route"
)

// hosts lists where every known host lives: the winning claims of single addresses.
func (s *Server) hosts(w http.ResponseWriter, r *http.Request) error {
	values, err := query(r, "tenant")
	if err != nil {
		return err
	}
	filter := Filter{Hosts: true, Best: true}
	if filter.Tenant, err = s.filterTenant(values.Get("tenant")); err != nil {
		return err
	}
	out := newStream(w, string(JSONL))
	links := make(links)
	err = s.backend.Walk(r.Context(), filter, func(c *Claim) error { return out.line(hostOf(s.route(c, links), c.Mobility)) })
	return s.end(out, r, err)
}

func hostOf(r Route, m Mobility) Host {
	return Host{
		State: m.State, Until: m.Until,
		Address: r.Prefix.Addr(), Tenant: r.Tenant, Here: r.Local != nil, Site: r.Site, Via: r.Via, Local: r.Local,
		MAC: r.MAC, Source: r.Source, Sequence: r.Sequence, Pinned: r.Pinned, AgeSeconds: r.AgeSeconds,
	}
}

func (s *Server) host(w http.ResponseWriter, r *http.Request) error {
	values, err := query(r, "tenant")
	if err != nil {
		return err
	}
	a, tenant, err := s.address(r.PathValue("host"), values.Get("tenant"))
	if err != nil {
		return err
	}
	claims, err := s.backend.Lookup(r.Context(), tenant, a)
	if err != nil {
		return err
	}
	if len(claims) == 0 || !claims[0].Host() {
		return &Error{
			Message: fmt.Sprintf("no host %s is known in tenant %s", a, s.backend.TenantName(tenant)),
			Hint:    fmt.Sprintf("roamctl route get %s shows what covers it", a),
			Status:  http.StatusNotFound,
		}
	}
	h := hostOf(s.route(&claims[0], make(links)), claims[0].Mobility)
	h.Designated = claims[0].Mobility.Designated
	for _, e := range s.backend.Since(0).Events {
		if e.Subject == a.String() && e.Tenant == h.Tenant {
			h.History = append(h.History, Event(e))
		}
	}
	return reply(w, h)
}

// clear frees a host that moved too often.
func (s *Server) clear(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	var c Clear
	if err := body(w, r, &c); err != nil {
		return err
	}
	a, tenant, err := s.address(c.Address.String(), c.Tenant)
	if err != nil {
		return err
	}
	if !s.backend.Clear(route.KeyOf(tenant, a)) {
		return &Error{
			Message: fmt.Sprintf("host %s of tenant %s is not frozen", a, s.backend.TenantName(tenant)),
			Hint:    "roamctl host list shows what each host is doing",
			Status:  http.StatusNotFound,
		}
	}
	return reply(w, Clear{Address: a, Tenant: s.backend.TenantName(tenant)})
}

// checkMoves says what would become of hosts that move.
func (s *Server) checkMoves(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	var asked CheckMoves
	if err := body(w, r, &asked); err != nil {
		return err
	}
	status, err := s.backend.Status(r.Context())
	if err != nil {
		return err
	}
	for i := range asked.Moves {
		m := &asked.Moves[i]
		a, tenant, err := s.address(m.Address.String(), m.Tenant)
		if err != nil {
			return err
		}
		if _, err := route.ParseMAC(m.MAC); err != nil {
			return wrong(err, "")
		}
		m.Address, m.Tenant = a, s.backend.TenantName(tenant)
	}
	return reply(w, MovesChecked{Site: status.Site, Moves: s.backend.CheckMoves(asked.Moves)})
}

// move injects where a host lives from now on. What is known of its MAC address moves with it.
func (s *Server) move(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	var m Move
	if err := body(w, r, &m); err != nil {
		return err
	}
	if m.To == "" {
		return wrong(fmt.Errorf("no site is named to move to"), "roamctl site list shows the configured sites")
	}
	a, tenant, err := s.address(m.Address.String(), m.Tenant)
	if err != nil {
		return err
	}
	c := route.Change{Claim: route.Claim{Key: route.KeyOf(tenant, a), Site: m.To}}
	if err := (&resolver{names: s.backend.Names}).site(m.To, &c); err != nil {
		return err
	}
	claims, err := s.backend.Lookup(r.Context(), tenant, a)
	if err != nil {
		return err
	}
	for i := range claims {
		if claims[i].Key == c.Key && !claims[i].MAC.IsZero() {
			c.MAC = claims[i].MAC
			break
		}
	}
	if err := s.backend.Inject(r.Context(), []route.Change{c}); err != nil {
		return err
	}
	return reply(w, Injected{Added: 1})
}
