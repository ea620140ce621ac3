package bfd

import (
	"crypto/sha1"
	"crypto/subtle"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/gopacket/gopacket/layers"
)

// Auth is keyed SHA1 (RFC 5880, section 6.7.4). Both ends have the same.
type Auth struct {
	Meticulous bool // each packet has a sequence number of its own: none can be replayed
	ID         uint8
	Key        string // 1 to 20 bytes
}

// MaxKey is the length of the longest key.
const MaxKey = sha1.Size

// The authentication section follows the fixed part: type, length, key id, a reserved byte, sequence number, digest.
const (
	authStart  = 24
	authLength = 8 + sha1.Size
)

// authenticator signs and checks the packets of one session. The zero value knows no Auth, and takes packets without.
type authenticator struct {
	auth     *Auth
	sequence uint32 // of the last packet sent

	known    bool // a sequence number was received
	received uint32
	forgetAt time.Time // the other end may begin anew
}

func newAuthenticator(a *Auth) authenticator { return authenticator{auth: a, sequence: rand.Uint32()} }

func (a *Auth) kind() layers.BFDAuthType {
	if a.Meticulous {
		return layers.BFDAuthTypeMeticulousKeyedSHA1
	}
	return layers.BFDAuthTypeKeyedSHA1
}

// padded is the key as the digest takes it.
func (a *Auth) padded() []byte {
	key := make([]byte, sha1.Size)
	copy(key, a.Key)
	return key
}

// prepare adds the section with the key in the place of the digest. The number rises with each packet also where that
// is not asked for.
func (a *authenticator) prepare(p *layers.BFD) {
	if a.auth == nil {
		return
	}
	a.sequence++
	p.AuthPresent = true
	p.AuthHeader = &layers.BFDAuthHeader{
		AuthType: a.auth.kind(), KeyID: layers.BFDAuthKeyID(a.auth.ID),
		SequenceNumber: layers.BFDAuthSequenceNumber(a.sequence), Data: a.auth.padded(),
	}
}

// sign replaces the key by the digest.
func (a *authenticator) sign(data []byte) {
	if a.auth == nil {
		return
	}
	digest := sha1.Sum(data)
	copy(data[authStart+8:], digest[:])
}

// check says why a packet is not authentic. One that is moves the window of numbers on.
func (a *authenticator) check(p *layers.BFD, now time.Time) error {
	switch {
	case a.auth == nil && !p.AuthPresent:
		return nil
	case a.auth == nil:
		return errors.New("it is authenticated, and we have no key")
	case !p.AuthPresent:
		return errors.New("it is not authenticated")
	}
	data := p.Contents
	if len(data) != authStart+authLength || data[authStart+1] != authLength {
		return errors.New("its authentication section has the wrong length")
	}
	if p.AuthHeader.AuthType != a.auth.kind() || uint8(p.AuthHeader.KeyID) != a.auth.ID {
		return errors.New("it is signed in another way, or with another key id")
	}
	sequence := uint32(p.AuthHeader.SequenceNumber)
	if a.known && now.Before(a.forgetAt) && !a.follows(sequence, uint8(p.DetectMultiplier)) {
		return errors.New("its sequence number is not in the window")
	}
	signed := append(append([]byte{}, data[:authStart+8]...), a.auth.padded()...)
	digest := sha1.Sum(signed)
	if subtle.ConstantTimeCompare(digest[:], data[authStart+8:]) != 1 {
		return errors.New("its digest is wrong: is the key the same on both ends?")
	}
	a.known, a.received = true, sequence
	return nil
}

// follows says whether a number is in the window after the last.
func (a *authenticator) follows(sequence uint32, multiplier uint8) bool {
	ahead := sequence - a.received // circular
	return ahead <= 3*uint32(multiplier) && (ahead > 0 || !a.auth.Meticulous)
}

// heard keeps the window for twice the detection time.
func (a *authenticator) heard(now time.Time, detection time.Duration) {
	a.forgetAt = now.Add(2 * detection)
}
