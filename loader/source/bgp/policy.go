package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/server"
)

// What the library's own policies do for us. On import they keep everything out of its table but what we announce: we
// read what neighbours say before policy and keep it in ours, so that a route of ours never competes with one of
// theirs, nothing is handed on from one neighbour to another, and a million routes are stored once less.
//
// On export they cannot match the prefix of an EVPN route. So the announcer marks a route with a large community for
// each neighbour that must not hear of it, because its export policy refuses it or packets are to come in at another site, and the
// policy here reads the marks and takes them off.

const markNotTo = 0x726f616d // "roam"

const (
	importPolicy = "ours-only"
	exportPolicy = "marks"
)

func setPolicies(ctx context.Context, s *server.BgpServer, c *Config) error {
	sets, statements := exportStatements(c)
	err := s.SetPolicies(ctx, &api.SetPoliciesRequest{
		DefinedSets: sets,
		Policies: []*api.Policy{
			{Name: importPolicy, Statements: []*api.Statement{{
				Name:       "ours",
				Conditions: &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL},
				Actions:    &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT},
			}}},
			{Name: exportPolicy, Statements: statements},
		},
	})
	if err != nil {
		return fmt.Errorf("set policies: %w", err)
	}
	for _, a := range []*api.PolicyAssignment{
		{
			Name: "global", Direction: api.PolicyDirection_POLICY_DIRECTION_IMPORT,
			Policies: []*api.Policy{{Name: importPolicy}}, DefaultAction: api.RouteAction_ROUTE_ACTION_REJECT,
		},
		{
			Name: "global", Direction: api.PolicyDirection_POLICY_DIRECTION_EXPORT,
			Policies: []*api.Policy{{Name: exportPolicy}}, DefaultAction: api.RouteAction_ROUTE_ACTION_ACCEPT,
		},
	} {
		if err := s.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: a}); err != nil {
			return fmt.Errorf("assign policies: %w", err)
		}
	}
	return nil
}

// exportStatements come in the order in which they are tried: who must not hear of it, what is added or changed for
// whom, and the end.
func exportStatements(c *Config) (sets []*api.DefinedSet, statements []*api.Statement) {
	marks := fmt.Sprintf("^%d:%d:", c.ASN, markNotTo)
	for i := range c.Neighbors {
		n := &c.Neighbors[i]
		to, mark := "to-"+n.Address.String(), "not-to-"+n.Address.String()
		sets = append(sets, &api.DefinedSet{
			DefinedType: api.DefinedType_DEFINED_TYPE_NEIGHBOR, Name: to,
			List: []string{netip.PrefixFrom(n.Address, n.Address.BitLen()).String()},
		})
		toIt := &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: to}
		if len(n.Export.Prefixes)+len(n.NextHops) > 0 {
			sets = append(sets, &api.DefinedSet{
				DefinedType: api.DefinedType_DEFINED_TYPE_LARGE_COMMUNITY, Name: mark, List: []string{fmt.Sprintf("%s%d$", marks, i)},
			})
			statements = append(statements, &api.Statement{
				Name:       mark,
				Conditions: &api.Conditions{NeighborSet: toIt, LargeCommunitySet: &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: mark}},
				Actions:    &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_REJECT},
			})
		}
		for _, hop := range n.NextHops {
			statements = append(statements, &api.Statement{
				Name:       fmt.Sprintf("%s-via-%s", to, hop),
				Conditions: &api.Conditions{NeighborSet: toIt, AfiSafiIn: []*api.Family{unicastOf(hop)}},
				Actions:    &api.Actions{Nexthop: &api.NexthopAction{Address: hop.String()}},
			})
		}
		for _, community := range n.Export.Communities {
			add := &api.CommunityAction{Type: api.CommunityAction_TYPE_ADD, Communities: []string{community}}
			actions := &api.Actions{Community: add}
			if strings.Count(community, ":") == 2 {
				actions = &api.Actions{LargeCommunity: add}
			}
			statements = append(statements, &api.Statement{
				Name: fmt.Sprintf("%s-with-%s", to, community), Conditions: &api.Conditions{NeighborSet: toIt}, Actions: actions,
			})
		}
	}
	return sets, append(statements, &api.Statement{
		Name:       "end",
		Conditions: &api.Conditions{},
		Actions: &api.Actions{
			LargeCommunity: &api.CommunityAction{Type: api.CommunityAction_TYPE_REMOVE, Communities: []string{marks + `\d+$`}},
			RouteAction:    api.RouteAction_ROUTE_ACTION_ACCEPT,
		},
	})
}

func unicastOf(hop netip.Addr) *api.Family {
	f := &api.Family{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST}
	if hop.Is6() {
		f.Afi = api.Family_AFI_IP6
	}
	return f
}
