package rib

import (
	"errors"
	"fmt"

	"roam/loader/route"
)

// maxLocators is what a next-hop set of the data path can spread over (SET_MEMBERS).
const maxLocators = 64

const maxVLAN = 4094

// validate finds the first change that cannot be held. It needs nothing of the RIB and runs in the caller.
func validate(changes []route.Change) error {
	for i := range changes {
		c := &changes[i]
		err := c.Key.Valid()
		if err == nil && !c.Withdraw {
			err = validClaim(&c.Claim)
		}
		if err != nil {
			return fmt.Errorf("change %d (%s): %w", i, c.Key, err)
		}
	}
	return nil
}

func validClaim(c *route.Claim) error {
	ways := 0
	for _, set := range [...]bool{c.Via != nil, c.Local != nil, c.Reject} {
		if set {
			ways++
		}
	}
	switch {
	case ways == 0:
		return errors.New("says neither via, local nor reject: say where packets go")
	case ways > 1:
		return errors.New("says more than one of via, local and reject: say one")
	case c.MAC[0]&1 != 0:
		return fmt.Errorf("%s is a group address, no host's MAC", c.MAC)
	case c.Local != nil && c.Local.Link < 0:
		return fmt.Errorf("interface index %d is negative", c.Local.Link)
	case c.Local != nil && max(c.Local.VLAN, c.Local.Inner) > maxVLAN:
		return fmt.Errorf("VLAN %d is outside 0..%d", max(c.Local.VLAN, c.Local.Inner), maxVLAN)
	case c.Via != nil:
		return validVia(c.Via)
	}
	return nil
}

func validVia(v *route.Via) error {
	if len(v.Locators) == 0 || len(v.Locators) > maxLocators {
		return fmt.Errorf("has %d locators: name 1 to %d", len(v.Locators), maxLocators)
	}
	for i, l := range v.Locators {
		a := l.Address
		switch {
		case !a.IsValid():
			return fmt.Errorf("locator %d has no address", i)
		case a.Is4In6():
			return fmt.Errorf("locator %s is an IPv4-mapped IPv6 address: write it as IPv4", a)
		case !a.IsGlobalUnicast():
			return fmt.Errorf("locator %s is no address a tunnel can end at", a)
		case a.Zone() != "":
			return fmt.Errorf("locator %s has a zone: leave it out", a)
		case l.Encap.Valid() != nil:
			return fmt.Errorf("locator %s: %w", a, l.Encap.Valid())
		case l.RouterMAC[0]&1 != 0:
			return fmt.Errorf("locator %s: router MAC %s is a group address", a, l.RouterMAC)
		}
		for _, m := range v.Locators[:i] {
			if m.Address == a && m.Encap == l.Encap && m.Port == l.Port {
				return fmt.Errorf("locator %s is named twice", a)
			}
		}
	}
	return nil
}
