package bpftest

import (
	"fmt"
	"os"
	"testing"

	"github.com/cilium/ebpf/rlimit"
)

func TestMain(m *testing.M) {
	if err := rlimit.RemoveMemlock(); err != nil { // before Linux 5.11, map memory counts against a limit
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	m.Run()
}
