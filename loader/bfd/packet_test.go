package bfd

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"time"
)

// TestLayout compares with bytes written down by hand from the figure in RFC 5880, section 4.1.
func TestLayout(t *testing.T) {
	s := end(up, 100*time.Millisecond, 3)
	s.discriminator = 0x01020304
	s.remoteDiscriminator = 0x05060708
	none := newAuthenticator(nil)
	got, err := encode(s.packet(false), &none)
	if err != nil {
		t.Fatal(err)
	}
	want := "20" + // version 1, no diagnostic
		"e0" + // Up, P
		"03" + "18" + // multiplier, length
		"01020304" + "05060708" +
		"000186a0" + "000186a0" + // 100 ms each
		"00000000" // no echo
	if hex.EncodeToString(got) != want {
		t.Errorf("packet\n%x, want\n%s", got, want)
	}
	p, err := decode(got)
	if err != nil || p.State != up || !p.Poll || p.MyDiscriminator != 0x01020304 {
		t.Errorf("read back: %+v, %v", p, err)
	}
}

// TestRefused: what section 6.8.6 has discarded.
func TestRefused(t *testing.T) {
	good, err := hex.DecodeString("20c003180000000900000007000186a0000186a000000000")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decode(good); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(b []byte) []byte{
		"version 2":             func(b []byte) []byte { b[0] = 0x40; return b },
		"too short":             func(b []byte) []byte { return b[:23] },
		"length below 24":       func(b []byte) []byte { b[3] = 23; return b },
		"length beyond the end": func(b []byte) []byte { b[3] = 25; return b },
		"multiplier 0":          func(b []byte) []byte { b[2] = 0; return b },
		"multipoint":            func(b []byte) []byte { b[1] |= 1; return b },
		"no discriminator":      func(b []byte) []byte { copy(b[4:], make([]byte, 4)); return b },
		"Up, and not to us":     func(b []byte) []byte { copy(b[8:], make([]byte, 4)); return b },
		"A without section":     func(b []byte) []byte { b[1] |= 4; return b },
		"A, section cut off":    func(b []byte) []byte { b[1] |= 4; b[3] = 28; return append(b, 4, 28, 1, 0) },
	} {
		if _, err := decode(change(bytes.Clone(good))); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
}

// TestAuth: keyed SHA1 in both manners, and everything that must not pass.
func TestAuth(t *testing.T) {
	for _, meticulous := range []bool{false, true} {
		auth := &Auth{Meticulous: meticulous, ID: 5, Key: "a secret"}
		sender, receiver := newAuthenticator(auth), newAuthenticator(auth)
		sender.sequence = 1<<32 - 3 // numbers go round
		message := func(a *authenticator) []byte {
			data, err := encode(*says(up), a)
			if err != nil {
				t.Fatal(err)
			}
			return data
		}
		now := epoch
		check := func(data []byte, want string) {
			t.Helper()
			p, err := decode(data)
			if err != nil {
				t.Fatal(err)
			}
			err = receiver.check(p, now)
			if err == nil {
				receiver.heard(now, 300*time.Millisecond)
			}
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("meticulous %v: %v, want %q", meticulous, err, want)
			}
		}
		var last []byte
		for range 5 {
			last = message(&sender)
			check(last, "")
		}
		if len(last) != 52 || last[24] != map[bool]byte{false: 4, true: 5}[meticulous] || last[25] != 28 || last[26] != 5 || last[27] != 0 {
			t.Errorf("section % x", last[24:])
		}
		replayed := ""
		if meticulous {
			replayed = "window"
		}
		check(last, replayed)
		early := bytes.Clone(last)
		for range 3*3 + 1 {
			last = message(&sender)
		}
		check(last, "window")
		check(early, replayed)
		now = now.Add(601 * time.Millisecond) // twice the detection time: it may have begun anew
		check(last, "")

		forged := message(&sender)
		forged[1] ^= 0x80
		check(forged, "digest")
		wrong := newAuthenticator(&Auth{Meticulous: meticulous, ID: 5, Key: "another"})
		wrong.sequence = sender.sequence
		check(message(&wrong), "digest")
		other := newAuthenticator(&Auth{Meticulous: meticulous, ID: 6, Key: "a secret"})
		check(message(&other), "key id")
		manner := newAuthenticator(&Auth{Meticulous: !meticulous, ID: 5, Key: "a secret"})
		check(message(&manner), "another way")
		none := newAuthenticator(nil)
		check(message(&none), "not authenticated")
		check(append(message(&sender), 0), "") // beyond the length: not part of the packet
	}
	receiver := newAuthenticator(nil)
	signer := newAuthenticator(&Auth{ID: 1, Key: "a"})
	data, _ := encode(*says(up), &signer)
	p, err := decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if receiver.check(p, epoch) == nil {
		t.Error("without a key a signed packet was taken")
	}
}

// FuzzReceive: whatever arrives, nothing breaks, and without the key nothing passes.
func FuzzReceive(f *testing.F) {
	signer := newAuthenticator(&Auth{Meticulous: true, ID: 1, Key: "one key"})
	none := newAuthenticator(nil)
	for _, a := range []*authenticator{&signer, &none} {
		data, err := encode(*says(up), a)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := decode(data)
		if err != nil {
			return
		}
		s := end(up, 100*time.Millisecond, 3)
		s.receive(p, epoch)
		if p.DetectMultiplier == 0 || s.detection() <= 0 || s.packet(false).MyDiscriminator != 7 {
			t.Errorf("%+v", s)
		}
		locked := newAuthenticator(&Auth{Meticulous: true, ID: 1, Key: "another key"})
		if locked.check(p, epoch) == nil {
			t.Error("passed without the key")
		}
	})
}
