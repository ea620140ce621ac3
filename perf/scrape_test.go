package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// The measurement of scrapes sends frames and scrapes; how fast is nobody's promise.
func TestScrape(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it makes network namespaces")
	}
	dir := t.TempDir()
	if err := runScrape(500, 2, dir); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*", "scrape.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("results: %q, %v", files, err)
	}
	raw, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var r scrapeResult
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	if r.Alone.Median <= 0 || r.Scraped.Median <= 0 || r.Ratio.Median <= 0 || r.Scrape.Median <= 0 || r.Series < 100 {
		t.Errorf("%+v", r)
	}
}
