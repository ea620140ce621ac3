// Package prometheus_test checks the recording and alerting rules: with promtool, and for what it does not look at.
package prometheus_test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

type rule struct {
	Record, Alert, Expr, For string
	Labels, Annotations      map[string]string
}

func rules(t *testing.T, file string) (list []rule) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var groups struct {
		Groups []struct {
			Name  string
			Rules []rule
		}
	}
	if err := yaml.UnmarshalWithOptions(text, &groups, yaml.Strict()); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	for _, g := range groups.Groups {
		list = append(list, g.Rules...)
	}
	return list
}

func TestRules(t *testing.T) {
	promtool(t, "check", "rules", "recording.yaml", "alerts.yaml")
	promtool(t, "test", "rules", "alerts_test.yaml")
}

func promtool(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("promtool", args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

var (
	heading = regexp.MustCompile(`(?m)^##+ (.+)$`)
	other   = regexp.MustCompile(`[^a-z0-9 -]`)
	tested  = regexp.MustCompile(`(?m)alertname: (\w+)$`)
)

// anchors are the places in a document that a link may name, as GitHub makes them.
func anchors(t *testing.T, file string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile("../../" + file)
	if err != nil {
		t.Errorf("runbook: %v", err)
	}
	places := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(string(text), -1) {
		places[strings.ReplaceAll(other.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")] = true
	}
	return places
}

// Every alert says how bad it is, what is wrong, and where it is written what to do; and it is tested to fire and to
// clear.
func TestAlerts(t *testing.T) {
	text, err := os.ReadFile("alerts_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	live, err := os.ReadFile("../../lab/test/observe_test.go")
	if err != nil {
		t.Fatal(err)
	}
	times := map[string]int{}
	for _, m := range tested.FindAllStringSubmatch(string(text), -1) {
		times[m[1]]++
	}
	for _, r := range rules(t, "alerts.yaml") {
		if s := r.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s: severity %q", r.Alert, s)
		}
		for _, name := range []string{"summary", "description"} {
			if r.Annotations[name] == "" {
				t.Errorf("%s: no %s", r.Alert, name)
			}
		}
		file, place, _ := strings.Cut(r.Annotations["runbook_url"], "#")
		if place == "" || !anchors(t, file)[place] {
			t.Errorf("%s: runbook %q leads nowhere", r.Alert, r.Annotations["runbook_url"])
		}
		if times[r.Alert] < 2 {
			t.Errorf("%s: alerts_test.yaml does not show that it fires and that it clears", r.Alert)
		}
		if !strings.Contains(string(live), `"`+r.Alert+`"`) {
			t.Errorf("%s: lab/test/observe_test.go does not bring it about", r.Alert)
		}
	}
}

func TestRecordings(t *testing.T) {
	name := regexp.MustCompile(`^[a-z_]+:roam_[a-z_]+:[a-z0-9_]+$`)
	for _, r := range rules(t, "recording.yaml") {
		if !name.MatchString(r.Record) {
			t.Errorf("%q is not level:metric:operation", r.Record)
		}
	}
}
