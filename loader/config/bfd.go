package config

import "time"

// Defaults of BFD. The TTL is not checked: how many hops are too many is known to the operator, and BIRD sends with 64.
const (
	defaultBFDInterval   = 100 * time.Millisecond
	defaultBFDMultiplier = 3
	defaultBFDMinTTL     = 1
	maxBFDKey            = 20 // RFC 5880, section 4.4
)

// BFD is how the locators of other gateways are watched (RFC 5880 and 5883).
type BFD struct {
	Interval   time.Duration
	Multiplier uint8
	MinTTL     uint8
	Auth       *BFDAuth // nil: none
}

// BFDAuthType is the manner of authentication.
type BFDAuthType string

// The manners of RFC 5880, section 6.7.4.
const (
	BFDSHA1           BFDAuthType = "sha1"
	BFDMeticulousSHA1 BFDAuthType = "meticulous-sha1"
)

// BFDAuth is a key that both ends have.
type BFDAuth struct {
	Type BFDAuthType
	ID   uint8
	Key  string
}

// bfd is off unless the key is there: a locator may belong to a gateway that does not speak it.
func (r *reader) bfd(v value) *BFD {
	if v.absent() {
		return nil
	}
	f := v.mapping("interval", "multiplier", "min_ttl", "auth")
	return &BFD{
		Interval:   f.get("interval").duration(defaultBFDInterval, 10*time.Millisecond, 10*time.Second),
		Multiplier: uint8(f.get("multiplier").number(defaultBFDMultiplier, 1, 50)),
		MinTTL:     uint8(f.get("min_ttl").number(defaultBFDMinTTL, 1, 255)),
		Auth:       bfdAuth(f.get("auth")),
	}
}

func bfdAuth(v value) *BFDAuth {
	if v.absent() {
		return nil
	}
	f := v.mapping("type", "id", "key")
	at := f.require("key", "give the key that both ends have")
	key, ok := at.text()
	if ok && (len(key) == 0 || len(key) > maxBFDKey) {
		at.fail("a key has 1 to %d bytes, this has %d", maxBFDKey, len(key))
	}
	return &BFDAuth{
		Type: one(f.get("type"), BFDMeticulousSHA1, BFDMeticulousSHA1, BFDSHA1),
		ID:   uint8(f.get("id").number(1, 0, 255)), Key: key,
	}
}
