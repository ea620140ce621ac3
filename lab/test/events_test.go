package lab_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"roam/lab"
)

// happened are a gateway's events as roamctl tells them.
type happened struct {
	Kind, Subject, What, Why, Do string
	Time                         time.Time
	DetectionSeconds             float64 `json:"detection_seconds"`
	Detected, Announced          time.Time
	LastPacket                   time.Time `json:"last_packet"`
	FirstPacket                  time.Time `json:"first_packet"`
	EstimatedOutageSeconds       float64   `json:"estimated_outage_seconds"`
}

func events(g *lab.Gateway) (list []happened) {
	g.JSON(&list, "events")
	return list
}

// awaitEvent waits until a gateway tells of something.
func awaitEvent(s *lab.Sites, g *lab.Gateway, kind, subject string) happened {
	s.Helper()
	return awaitNthEvent(s, g, kind, subject, 1)
}

// awaitNthEvent waits until a gateway tells of something for the nth time.
func awaitNthEvent(s *lab.Sites, g *lab.Gateway, kind, subject string, n int) (found happened) {
	s.Helper()
	s.Until(10*time.Second, fmt.Sprintf("%s tells of %s of %s", g.Name, kind, subject), func() error {
		list := slices.DeleteFunc(events(g), func(e happened) bool { return e.Kind != kind || !strings.Contains(e.Subject, subject) })
		if len(list) < n {
			return fmt.Errorf("it tells of %+v", list)
		}
		found = list[n-1]
		return nil
	})
	return found
}

// TestEvents: what happens to a gateway is told in one vocabulary by the log, by roamctl events, and while it happens by
// roamctl events --follow.
func TestEvents(t *testing.T) {
	s := up(t, lab.Options{})
	h11, gw1 := s.H("h11"), s.GW[lab.DC1]
	reach(t, s, [2]*lab.Host{s.H("h12"), h11}, [2]*lab.Host{s.H("h21"), h11})
	story := gw1.Namespace.Start(gw1.Bins.Ctl, "--socket", gw1.Config.Socket, "-o", "json", "events", "--follow")
	for kind, subject := range map[string]string{"ready": "dc1", "port_up": "lan0", "locator_up": "192.0.2.2", "source_up": "file"} {
		awaitEvent(s, gw1, kind, subject)
	}

	s.Move(h11, lab.DC2)
	move := awaitEvent(s, gw1, "move", h11.IP4.String())
	if move.What != h11.IP4.String()+" moved from here to dc2" || !strings.HasPrefix(move.Why, "api wins") {
		t.Errorf("the move away: %+v", move)
	}
	if move := awaitEvent(s, s.GW[lab.DC2], "move", h11.IP6.String()); !strings.HasPrefix(move.What, h11.IP6.String()+" moved from dc1 to here") {
		t.Errorf("the move as dc2 sees it: %+v", move)
	}

	gw1.IP("route del 192.0.2.0/24 dev wan0")
	if down := awaitEvent(s, gw1, "locator_down", "192.0.2.2"); down.Why == "" || !strings.Contains(down.Do, "ip route get 192.0.2.2") {
		t.Errorf("the locator: %+v", down)
	}
	gw1.IP("route add 192.0.2.0/24 dev wan0 src 192.0.2.1")

	good := gw1.Config
	gw1.Config.VNI = 0
	gw1.WriteConfig()
	if _, err := gw1.Ctl("reload"); err == nil {
		t.Error("VNI 0 was accepted")
	}
	awaitEvent(s, gw1, "reload_failed", "roamd.yaml")
	gw1.Config = good
	gw1.Config.Hosts *= 2
	gw1.WriteConfig()
	gw1.MustCtl("reload")
	awaitEvent(s, gw1, "reload", "roamd.yaml")
	awaitEvent(s, gw1, "growth", "hosts")
	if err := os.WriteFile(gw1.Config.RouteFile, []byte("- {prefix: nonsense}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	awaitEvent(s, gw1, "source_down", "file")

	told := events(gw1)
	if err := story.Said(told[len(told)-1].What, 5*time.Second); err != nil {
		t.Error(err)
	}
	var followed []happened
	for lines := bufio.NewScanner(strings.NewReader(story.Output())); lines.Scan(); {
		var e happened
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("%v: %s", err, lines.Text())
		}
		followed = append(followed, e)
	}
	if len(followed) < len(told) || !slices.Equal(followed[:len(told)], told) {
		t.Errorf("followed %+v\nasked %+v", followed, told)
	}
	for _, e := range told {
		if !strings.Contains(gw1.Daemon.Output(), "event="+e.Kind) {
			t.Errorf("the log says nothing of %+v", e)
		}
	}

	if err := os.WriteFile(gw1.Config.RouteFile, []byte("[]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	gw1.Restart()
	awaitEvent(s, gw1, "upgrade", "")
}
