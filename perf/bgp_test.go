package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// The measurement of BGP measures something at both gateways; how long anything takes is nobody's promise.
func TestBGP(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it makes network namespaces")
	}
	dir := t.TempDir()
	if err := runBGP(500, dir); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*", "bgp.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("results: %q, %v", files, err)
	}
	raw, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var r bgpResult
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Sides) != 2 {
		t.Fatalf("%d gateways are measured", len(r.Sides))
	}
	for _, s := range r.Sides {
		if s.Loaded <= 0 || s.Anonymous == 0 || s.Storm <= 0 || s.P50 <= 0 || s.P99 < s.P50 {
			t.Errorf("%+v", s)
		}
	}
}
