// Package kernels_test is the kernel matrix: Debian kernels from the oldest that Roam promises to the newest, booted under
// qemu, with the packet tests inside and the real daemon on virtio_net. `make test-kernels` runs it.
package kernels_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"roam/lab"
)

// What is tested, built from the tree as it is, for machines that have no libraries.
var (
	builds      string // folder
	bins        lab.Binaries
	packetTests string // ./bpf/test
	tableTests  string // ./maps
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if len(lines()) == 0 {
		return m.Run() // which skips
	}
	err := os.Setenv("CGO_ENABLED", "0")
	if err == nil {
		builds, err = os.MkdirTemp("", "roam-bin-")
		defer os.RemoveAll(builds)
	}
	if err == nil {
		bins, err = lab.Build(builds, "kernels")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if *page != "" && code == 0 {
		if err := writePage(*page); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	if left := lab.Leftovers(os.Getpid()); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "FAIL: the tests left behind %q\n", left)
		return 1
	}
	return code
}

// lines are the kernels asked for, such as "5.10".
func lines() []string { return strings.Fields(os.Getenv("KERNELS")) }

func buildTests(t *testing.T, pkg string) string {
	t.Helper()
	path := filepath.Join(builds, filepath.Base(pkg)+".test")
	if out, err := exec.Command("go", "test", "-c", "-o", path, pkg).CombinedOutput(); err != nil {
		t.Fatalf("build the tests of %s: %v\n%s", pkg, err, out)
	}
	return path
}

func kernel(t *testing.T, line string) lab.Kernel {
	t.Helper()
	k, err := lab.FetchKernel(line)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }
