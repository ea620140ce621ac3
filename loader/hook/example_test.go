package hook_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"roam/loader/hook"
)

// The adapter of docs/examples assigns and takes away, twice as well as once, and fails where the API does.
func TestExampleAdapter(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "cloud-adapter")
	if out, err := exec.Command("go", "build", "-o", program, "roam/docs/examples/cloud-adapter").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	instances := filepath.Join(dir, "instances.json")
	if err := os.WriteFile(instances, []byte(`{"10.1.0.21":"vm-21","2001:db8:1::21":"vm-21"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	assigned, broken, keys := map[string]bool{}, false, []string{}
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		keys = append(keys, r.Header.Get("Idempotency-Key"))
		has := assigned[r.URL.Path]
		switch {
		case broken:
			http.Error(w, "out of order", http.StatusServiceUnavailable)
		case r.Method == http.MethodPut && has:
			http.Error(w, "assigned already", http.StatusConflict)
		case r.Method == http.MethodDelete && !has:
			http.Error(w, "no such address", http.StatusNotFound)
		default:
			assigned[r.URL.Path] = r.Method == http.MethodPut
		}
	}))
	defer api.Close()
	run := func(address, newSite string) error {
		change, err := json.Marshal(hook.Change{Event: "17", Site: "cloud", Address: netip.MustParseAddr(address), NewSite: newSite})
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), program)
		cmd.Env, cmd.Stdin = append(os.Environ(), "CLOUD_API="+api.URL, "CLOUD_INSTANCES="+instances), bytes.NewReader(change)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	for _, step := range []struct {
		address, site string
		want          bool
	}{
		{"10.1.0.21", "cloud", true},
		{"10.1.0.21", "cloud", true},
		{"2001:db8:1::21", "cloud", true},
		{"10.1.0.21", "dc1", false},
		{"10.1.0.21", "", false},
		{"10.1.0.99", "cloud", false}, // nobody's machine
	} {
		if err := run(step.address, step.site); err != nil {
			t.Errorf("%+v: %v", step, err)
		}
		if got := assigned["/instances/vm-21/addresses/"+step.address]; got != step.want {
			t.Errorf("%+v: assigned %v", step, got)
		}
	}
	if len(keys) != 5 || keys[0] != "17" {
		t.Errorf("idempotency keys %q", keys)
	}
	broken = true
	if err := run("10.1.0.21", "cloud"); err == nil || !strings.Contains(err.Error(), "503 Service Unavailable: out of order") {
		t.Errorf("%v", err)
	}
}
