// The demo of `make demo`: two sites in network namespaces, the real daemons, and a host that moves between them under
// traffic. It prints what it measures and fails if anything it claims did not happen.
//
//	demo [-bin DIR] [-role default|stick|both]
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"roam/lab"
)

func main() {
	bin := flag.String("bin", filepath.Join(lab.Root(), "bin"), "folder of roamd and roamctl")
	role := flag.String("role", "both", "show Roam as `default` router, on a stick, or both")
	flag.Parse()
	roles := map[string][]string{"both": {"default", "stick"}, "default": {"default"}, "stick": {"stick"}}[*role]
	if roles == nil || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "the demo needs root: it makes network namespaces and loads BPF programs")
		os.Exit(1)
	}
	before := takeInventory()
	good := true
	for _, role := range roles {
		good = show(role, lab.In(*bin)) && good
	}
	good = before.report() && good
	if !good {
		fmt.Println("\nNOT everything claimed above held.")
		os.Exit(1)
	}
	fmt.Println("\nEverything claimed above held.")
}
