// Command grafana writes Roam's dashboards, as Grafana imports them, into the folder it is started in.
//
// dashboards.go says what a dashboard shows, a line or two for each panel; model.go knows Grafana's JSON. The JSON is
// committed, so that nobody needs Go to import it, and a test compares it. lint_test.go holds the habits that keep
// dashboards useful, schema_test.go has Grafana's own types check them, and lab/test runs every query against a real
// Prometheus.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

//go:generate go run .

func main() {
	for _, d := range dashboards {
		text, err := render(d)
		if err == nil {
			err = os.WriteFile(d.file(), text, 0o644)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "grafana:", err)
			os.Exit(1)
		}
	}
}

// render is a dashboard's file.
func render(d dashboard) ([]byte, error) {
	text, err := json.MarshalIndent(d.model(), "", "  ")
	return append(text, '\n'), err
}
