package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"roam/lab"
)

// inventory is what the demo must leave as it found it.
type inventory struct {
	links    []string // in the machine's own namespace
	programs []string // XDP there
}

func takeInventory() inventory {
	var inv inventory
	links, err := netlink.LinkList()
	if err != nil {
		fmt.Fprintf(os.Stderr, "list interfaces: %v\n", err)
	}
	for _, link := range links {
		name := link.Attrs().Name
		inv.links = append(inv.links, name)
		if xdp := link.Attrs().Xdp; xdp != nil && xdp.Attached {
			inv.programs = append(inv.programs, fmt.Sprintf("%s:%d", name, xdp.ProgId))
		}
	}
	return inv
}

// report compares the machine with what it was, and says whether it is the same.
func (before inventory) report() bool {
	p := &page{}
	p.title("What is left behind")
	after := takeInventory()
	own := lab.Leftovers(os.Getpid())
	p.claim(len(own) == 0, "ours", "namespaces, mounted pins, files of this run: %s", list(own))
	p.claim(slices.Equal(before.links, after.links), "links", "before: %s\nafter:  %s", list(before.links), list(after.links))
	p.claim(slices.Equal(before.programs, after.programs), "XDP", "before: %s; after: %s", list(before.programs), list(after.programs))
	return !p.failed
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, " ")
}
