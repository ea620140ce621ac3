package maps

import (
	"fmt"
	"strings"
	"sync"

	"github.com/cilium/ebpf/btf"
)

// Verdict is the family of a reason, and by it the fate of a packet.
type Verdict string

// The three fates.
const (
	Forwarded Verdict = "forwarded"
	Passed    Verdict = "passed"
	Dropped   Verdict = "dropped"
)

var reasonNames = sync.OnceValues(func() ([]string, error) {
	spec, err := loadDatapath()
	if err != nil {
		return nil, err
	}
	var enum *btf.Enum
	if err := spec.Types.TypeByName("reason", &enum); err != nil {
		return nil, fmt.Errorf("read reasons from BTF: %w", err)
	}
	names := make([]string, datapathReasonREASON_MAX)
	for _, v := range enum.Values {
		if v.Value > 0 && v.Value < uint64(len(names)) {
			names[v.Value] = strings.ToLower(v.Name)
		}
	}
	return names, nil
})

// ReasonNames returns the name of each reason by number, as in the BTF of the program: "fwd_encap", "drop_ttl". Number
// 0 is no reason and has no name. Safe for concurrent use; the slice is shared and must not be changed.
func ReasonNames() ([]string, error) { return reasonNames() }

// ReasonName returns one reason's name, or its number where it has none.
func ReasonName(r Reason) string {
	names, err := reasonNames()
	if err == nil && int(r) < len(names) && names[r] != "" {
		return names[r]
	}
	return fmt.Sprintf("reason %d", uint32(r))
}

// VerdictOf returns the family of a reason by its name.
func VerdictOf(name string) Verdict {
	switch {
	case strings.HasPrefix(name, "fwd_"):
		return Forwarded
	case strings.HasPrefix(name, "pass_"):
		return Passed
	}
	return Dropped
}
