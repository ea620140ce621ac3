package lab_test

import (
	"testing"

	"roam/lab"
)

// TestStaleNeighbours has guests whose caches never learn: one still sends to the MAC of a gateway that stood where it came from,
// one to the MAC that its peer has at another site. Neither loses a packet.
func TestStaleNeighbours(t *testing.T) {
	const formerGateway = "00:50:56:aa:bb:cc"
	s := lab.NewSites(t, bins, lab.Options{Outside: true})
	s.GW[lab.DC1].Config.Foreign = []string{formerGateway}
	s.Up()
	h11, h12, h21 := s.H("h11"), s.H("h12"), s.H("h21")
	reach(t, s, [2]*lab.Host{h11, h21}, [2]*lab.Host{h12, h21}, [2]*lab.Host{h11, s.Out}, [2]*lab.Host{h21, h11})

	h11.IP(
		"neigh replace 10.1.0.1 lladdr "+formerGateway+" dev eth0 nud permanent",
		"neigh replace fe80::1 lladdr "+formerGateway+" dev eth0 nud permanent",
	)
	for i := range 2 {
		h12.IP("neigh replace " + h21.IPs()[i].String() + " lladdr " + h21.MAC + " dev eth0 nud permanent")
	}
	var list []*lab.Flow
	for i := range 2 {
		list = append(list,
			s.Flow(h11.Namespace, h11.IPs()[i], s.Out.Namespace, s.Out.IPs()[i], 200, 100),
			s.Flow(h12.Namespace, h12.IPs()[i], h21.Namespace, h21.IPs()[i], 200, 100))
	}
	progress(list, 200)
	lossless(t, s, list, 0, "stale caches")
}
