package route

import (
	"fmt"
	"strings"
)

// What a locator has when nobody said otherwise.
const (
	DefaultPriority = 1
	DefaultWeight   = 100
)

// Valid reports what is wrong with the encapsulation, or nil.
func (e Encap) Valid() error {
	if int(e) < len(encapNames) {
		return nil
	}
	return fmt.Errorf("unknown encapsulation %s: use one of %s", e, strings.Join(encapNames[:], ", "))
}

// Valid reports what is wrong with the locator, or nil.
func (l Locator) Valid() error {
	if err := ValidHost(l.Address); err != nil {
		return err
	}
	if err := l.Encap.Valid(); err != nil {
		return err
	}
	if l.Weight == 0 {
		return fmt.Errorf("weight 0 would carry nothing: use 1..255, or priority %d to take the locator out", Unusable)
	}
	return l.RouterMAC.Valid()
}

// Valid reports why the address can be no station's, or nil; "not known" is valid.
func (m MAC) Valid() error {
	if m[0]&1 != 0 {
		return fmt.Errorf("%s is a multicast MAC address: a station's has an even first byte", m)
	}
	return nil
}
