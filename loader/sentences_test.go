package main

import (
	"fmt"
	"strings"
	"testing"

	"roam/loader/config"
	"roam/loader/route"
	"roam/maps"
)

// Every reason has its sentence, and no sentence is left over.
func TestEveryReasonHasASentence(t *testing.T) {
	names, err := maps.ReasonNames()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, name := range names[1:] {
		known[name] = true
		if sentences[name] == "" {
			t.Errorf("reason %s has no sentence in sentences.go", name)
		}
	}
	for name := range sentences {
		if !known[name] {
			t.Errorf("sentence for %s, which is no reason of bpf/abi.h", name)
		}
	}
}

// Behind NAT, what others send to is named, and encapsulations without ports are warned of, by whom they lead to.
func TestNATChecks(t *testing.T) {
	c, err := config.Parse("roamd.yaml", []byte(`site: cloud
underlay: {interfaces: [u], locators: [{address: 10.9.0.5, public: 192.0.2.9}, {address: "2001:db8:ff::9"}]}
sites:
  - {name: dc1, locators: [192.0.2.1, {address: 192.0.2.2, encap: gre}, {address: "2001:db8:ff::1", encap: ipip}]}
tenants: [{name: red}]
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{}
	d.config.Store(c)
	check := func(want string) {
		t.Helper()
		var got []string
		for _, c := range d.ownLocatorChecks() {
			if c.Name == "NAT" {
				got = append(got, fmt.Sprintf("%s %s: %s", c.Level, c.Subject, c.Found))
			}
		}
		if strings.Join(got, "\n") != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	check("warn 10.9.0.5: others send to 192.0.2.9, but gre (to 192.0.2.2) runs over no UDP: most NAT drops it, or mixes up who sent it")
	c.Sites[0].Locators[1].Encap = route.Geneve
	check("ok 10.9.0.5: others send to 192.0.2.9, and every encapsulation in the configuration runs over UDP")
}
