package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Each dashboard, as a literal, is of the type that Grafana's own schema gives it. The schema and a compiler come from
// npm into the user's cache; where npm is missing, `make dashboards` fails instead of skipping (ROAM_SCHEMA=1).
func TestSchema(t *testing.T) {
	if _, err := exec.LookPath("npm"); err != nil {
		if os.Getenv("ROAM_SCHEMA") == "" {
			t.Skip("npm is not installed: install Node.js, then make dashboards")
		}
		t.Fatal("npm is not installed: install Node.js 18 or later")
	}
	dir := schemaFolder(t)
	good := map[string]string{}
	for _, d := range dashboards {
		text, err := render(d)
		if err != nil {
			t.Fatal(err)
		}
		good[d.name] = string(text)
	}
	if out, err := compile(dir, good); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	// The check can fail: a panel of no kind, a value of a wrong type, an option that is none, a field of a query likewise.
	for from, to := range map[string]string{
		`"timeseries"`: `"timeline"`, `"multi": true`: `"multi": "many"`, `"tooltip": {`: `"tooltips": {`, `"legendFormat"`: `"legend"`,
	} {
		broken := strings.Replace(good[fleet.name], from, to, 1)
		if broken == good[fleet.name] {
			t.Errorf("there is no %s to break", from)
		} else if _, err := compile(dir, map[string]string{"broken": broken}); err == nil {
			t.Errorf("accepted with %s for %s", to, from)
		}
	}
}

// schemaFolder has the packages of schema/package.json, from the cache where they are there already.
func schemaFolder(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "roam", "grafana-schema")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("schema/package.json")
	if err != nil {
		t.Fatal(err)
	}
	have, _ := os.ReadFile(filepath.Join(dir, "package.json"))
	if !bytes.Equal(have, want) || exec.Command("test", "-f", filepath.Join(dir, "node_modules/typescript/bin/tsc")).Run() != nil {
		if err := os.WriteFile(filepath.Join(dir, "package.json"), want, 0o644); err != nil {
			t.Fatal(err)
		}
		npm := exec.Command("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock")
		npm.Dir = dir
		if out, err := npm.CombinedOutput(); err != nil {
			t.Fatalf("npm install: %v\n%s", err, out)
		}
	}
	types, err := os.ReadFile("schema/types.ts")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "types.ts"), types, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// compile checks dashboards' texts as literals.
func compile(dir string, texts map[string]string) (string, error) {
	args := []string{
		"node_modules/typescript/bin/tsc", "--noEmit", "--strict", "--skipLibCheck", "--target", "es2022", "--module", "nodenext",
		"--moduleResolution", "nodenext",
	}
	for name, text := range texts {
		file := filepath.Join(dir, name+".ts")
		literal := fmt.Sprintf("import type { File } from './types';\nexport const dashboard: File = %s;\n", text)
		if err := os.WriteFile(file, []byte(literal), 0o644); err != nil {
			return "", err
		}
		defer os.Remove(file)
		args = append(args, file)
	}
	tsc := exec.Command("node", args...)
	tsc.Dir = dir
	out, err := tsc.CombinedOutput()
	return string(out), err
}
