package datapath

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"roam/loader/route"
)

// Routes are written while the kernel is asked how locators are reached; what leads to a locator that it was not asked for is found by the next look.
func TestSurveyHoldsNobodyUp(t *testing.T) {
	s := newSite(t)
	g := s.gateway(Spec{
		Mode: Native, Underlay: []string{"wan0"}, Own: []netip.Addr{netip.MustParseAddr("10.2.0.1")}, Tenants: []TenantSpec{{ID: 1, VNI: 1}},
	})
	defer s.closeGateway(g)
	asked, answer, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	g.resolver = func(own []netip.Addr, ports map[int]underlayPort, locators []netip.Addr) (*resolver, error) {
		close(asked)
		<-answer
		return newResolver(own, ports, locators)
	}
	go func() {
		done <- s.gw.Do(func() error {
			_, err := g.refresh(false)
			return err
		})
	}()
	<-asked
	g.resolver = newResolver
	s.in("apply", func() error {
		return g.Apply(t.Context(), []route.Decision{decision(1, "10.3.0.9/32", via("10.2.0.2"))})
	})
	for len(g.underlay.dirty) > 0 {
		<-g.underlay.dirty
	}
	close(answer)
	must(t, <-done)
	if len(g.underlay.dirty) == 0 {
		t.Error("nobody will look at the locator that came meanwhile")
	}
	s.Until(5*time.Second, "the locator is reached", func() error {
		return s.gw.Do(func() error {
			waiting, err := g.refresh(false)
			if waiting {
				err = errors.Join(err, errors.New("it is waited for"))
			}
			return err
		})
	})
	if l := g.Locators(); len(l) != 1 || !l[0].Up {
		t.Errorf("locators %+v", l)
	}
}
