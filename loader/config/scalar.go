package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"roam/loader/route"
)

// name reads a name that appears on command lines, in labels and in paths.
func (v value) name() (string, bool) {
	s, ok := v.text()
	if !ok {
		return "", false
	}
	if len(s) == 0 || len(s) > 63 || strings.Trim(s, nameBytes) != "" || strings.ContainsAny(s[:1], "-._") {
		v.fail("%q is no name: use up to 63 letters, digits, '-', '_' and '.', starting with a letter or digit", s)
		return "", false
	}
	return s, true
}

const nameBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."

// link reads the name of a network interface, as the kernel would take it.
func (v value) link() (string, bool) {
	s, ok := v.text()
	if !ok {
		return "", false
	}
	if len(s) == 0 || len(s) > 15 || s == "." || s == ".." || strings.ContainsAny(s, "/: \t\n\r\v\f") {
		v.fail("%q is no interface name: it has 1 to 15 bytes without '/', ':' and spaces", s)
		return "", false
	}
	return s, true
}

// one reads one word of a few.
func one[T ~string](v value, fallback T, words ...T) T {
	s, ok := v.text()
	if !ok {
		return fallback
	}
	if slices.Contains(words, T(s)) {
		return T(s)
	}
	names := make([]string, len(words))
	for i, w := range words {
		names[i] = string(w)
	}
	v.fail("%q is unknown: use %s", s, strings.Join(names, " or "))
	return fallback
}

// boolean reads true or false; fallback stands for an absent one.
func (v value) boolean(fallback bool) bool {
	return one(v, strconv.FormatBool(fallback), "false", "true") == "true"
}

// number reads a decimal number within bounds; fallback stands for an absent one.
func (v value) number(fallback, least, most uint64) uint64 {
	s, ok := v.text()
	if !ok {
		return fallback
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		v.fail("%q is no decimal number from %d to %d", s, least, most)
		return fallback
	}
	return v.within(s, n, fallback, least, most)
}

func (v value) within(s string, n, fallback, least, most uint64) uint64 {
	if n < least || n > most {
		v.fail("%s is outside %d..%d", s, least, most)
		return fallback
	}
	return n
}

// count reads a number that may carry a binary suffix: 1M is 1048576.
func (v value) count(fallback, least, most uint64) uint64 {
	s, ok := v.text()
	if !ok {
		return fallback
	}
	digits := strings.TrimRight(s, "kKMGi")
	unit, known := map[string]uint64{"": 1, "k": 1 << 10, "K": 1 << 10, "Ki": 1 << 10, "M": 1 << 20, "Mi": 1 << 20, "G": 1 << 30, "Gi": 1 << 30}[s[len(digits):]]
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || !known {
		v.fail("%q is no size: write a number, or one with k, M or G, such as 1M for 1048576", s)
		return fallback
	}
	return v.within(s, n*unit, fallback, least, most)
}

// duration reads a time with its unit.
func (v value) duration(fallback, least, most time.Duration) time.Duration {
	s, ok := v.text()
	if !ok {
		return fallback
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		v.fail("%q is no duration: write a number with its unit, such as 500ms, 30s or 30m", s)
	case d < least || d > most:
		v.fail("%s is outside %v..%v", s, least, most)
	default:
		return d
	}
	return fallback
}

// address reads any address that is spelled canonically; what it may be used for is the caller's to check.
func (v value) address() (netip.Addr, bool) {
	s, ok := v.text()
	if !ok {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		v.fail("%q is no address such as 10.1.0.1 or \"2001:db8::1\"%s", s, lengthHint(s))
		return netip.Addr{}, false
	}
	return a, true
}

func lengthHint(s string) string {
	if _, err := netip.ParsePrefix(s); err == nil {
		return ": leave the length out"
	}
	return ""
}

// host reads an address that is routed: see route.ValidHost.
func (v value) host() (netip.Addr, bool) {
	a, ok := v.address()
	if !ok {
		return a, false
	}
	if err := route.ValidHost(a); err != nil {
		v.fail("%v", err)
		return a, false
	}
	return a, true
}

// prefix reads a prefix; a bare address is one of full length.
func (v value) prefix() (netip.Prefix, bool) {
	s, ok := v.text()
	if !ok {
		return netip.Prefix{}, false
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		v.fail("%q is no prefix such as 10.1.0.0/24 or \"2001:db8:1::/64\"", s)
		return p, false
	}
	if err := route.ValidPrefix(p); err != nil {
		v.fail("%v", err)
		return p, false
	}
	return p, true
}

// mac reads a station's MAC address.
func (v value) mac() (route.MAC, bool) {
	s, ok := v.text()
	if !ok {
		return route.MAC{}, false
	}
	m, err := route.ParseMAC(s)
	if err == nil {
		err = m.Valid()
	}
	if err == nil && m.IsZero() {
		err = fmt.Errorf("%q is no station's MAC address: leave the key out for the default", s)
	}
	if err != nil {
		v.fail("%v", err)
		return route.MAC{}, false
	}
	return m, true
}

// file reads an absolute path.
func (v value) file(fallback string) string {
	s, ok := v.text()
	if !ok {
		return fallback
	}
	if !filepath.IsAbs(s) {
		v.fail("%q is no absolute path: the daemon's working folder is not yours", s)
		return fallback
	}
	return filepath.Clean(s)
}
