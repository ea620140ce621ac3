package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Prometheus is a real one that scrapes the gateways each second, over a management network of its own:
//
//	[gw1]--mgmt0 203.0.113.129---( mgmt )---mgmt0 203.0.113.130--[gw2]
//	                          203.0.113.254
//	                         [prometheus]
type Prometheus struct {
	*Namespace
	Started time.Time

	server *Process
	http   http.Client
}

// Prometheus cables one to both gateways and starts it with the given files of rules. Call it before Up.
func (s *Sites) Prometheus(rules ...string) *Prometheus {
	s.Helper()
	p := &Prometheus{Namespace: s.Namespace("prometheus"), Started: time.Now()}
	p.Bridge("mgmt", hostMTU)
	p.Addresses("mgmt", "203.0.113.254/25")
	var targets []string
	for i, g := range s.GW {
		s.Cable(End{In: g.Namespace, Name: "mgmt0"}, End{In: p.Namespace, Name: g.Name, Bridge: "mgmt"}, hostMTU, 1)
		address := fmt.Sprintf("203.0.113.%d", 129+i)
		g.Addresses("mgmt0", address+"/25")
		g.Config.Metrics = address + ":9177"
		targets = append(targets, fmt.Sprintf("%q", g.Config.Metrics))
	}
	config := filepath.Join(s.Dir, "prometheus.yaml")
	text := fmt.Sprintf(`global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%s]
scrape_configs: [{job_name: roam, static_configs: [{targets: [%s]}]}]
`, strings.Join(rules, ", "), strings.Join(targets, ", "))
	s.must(os.WriteFile(config, []byte(text), 0o600), "configure prometheus")
	const listen = "127.0.0.1:9090"
	p.server = p.Start("prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(s.Dir, "tsdb"),
		"--web.listen-address="+listen, "--log.level=warn")
	p.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (conn net.Conn, err error) {
		err = p.Do(func() (err error) {
			conn, err = new(net.Dialer).DialContext(ctx, "tcp", listen)
			return err
		})
		return conn, err
	}}
	s.Defer(p.http.CloseIdleConnections)
	s.Until(20*time.Second, "prometheus is ready", func() error { return p.get("/-/ready", nil, nil) })
	return p
}

func (p *Prometheus) get(path string, query url.Values, into any) error {
	answer, err := p.http.Get("http://prometheus" + path + "?" + query.Encode())
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, answer.Status, body)
	}
	if err != nil || into == nil {
		return err
	}
	return json.Unmarshal(body, into)
}

// Series is what a query found: labels, and points of time (Unix seconds) and value that are numbers.
type Series struct {
	Labels map[string]string
	Points [][2]float64
}

// Range runs a query over the run until then, with a value each second.
func (p *Prometheus) Range(expr string, until time.Time) (list []Series, err error) {
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Values [][2]any
			}
		}
	}
	err = p.get("/api/v1/query_range", url.Values{
		"query": {expr}, "step": {"1"}, "start": {p.Started.Format(time.RFC3339)}, "end": {until.Format(time.RFC3339)},
	}, &answer)
	for _, r := range answer.Data.Result {
		s := Series{Labels: r.Metric}
		for _, v := range r.Values {
			at, _ := v[0].(float64)
			text, _ := v[1].(string)
			if f, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(f) {
				s.Points = append(s.Points, [2]float64{at, f})
			}
		}
		if len(s.Points) > 0 {
			list = append(list, s)
		}
	}
	return list, err
}

// Firing returns the alerts that fire, each as its name and labels.
func (p *Prometheus) Firing() (list []map[string]string, err error) {
	var answer struct {
		Data struct {
			Alerts []struct {
				State  string
				Labels map[string]string
			}
		}
	}
	err = p.get("/api/v1/alerts", nil, &answer)
	for _, a := range answer.Data.Alerts {
		if a.State == "firing" {
			list = append(list, a.Labels)
		}
	}
	return list, err
}

// AwaitAlert waits until an alert fires for a gateway, or with fires false until it does no more.
func (p *Prometheus) AwaitAlert(g *Gateway, name string, fires bool) {
	p.lab.Helper()
	p.lab.Until(40*time.Second, fmt.Sprintf("alert %s of %s: firing %v", name, g.Name, fires), func() error {
		list, err := p.Firing()
		if err != nil {
			return err
		}
		for _, labels := range list {
			if labels["alertname"] == name && labels["instance"] == g.Config.Metrics {
				if fires {
					return nil
				}
				return fmt.Errorf("it fires: %v", labels)
			}
		}
		if fires {
			return fmt.Errorf("firing: %v", list)
		}
		return nil
	})
}

// Scrape gets a gateway's metrics once, as Prometheus would, and returns the text and how long it took.
func (g *Gateway) Scrape() (text string, took time.Duration) {
	g.lab.Helper()
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			err = g.Do(func() (err error) {
				conn, err = new(net.Dialer).DialContext(ctx, network, address)
				return err
			})
			return conn, err
		},
	}}
	start := time.Now()
	answer, err := client.Get("http://" + g.Config.Metrics + "/metrics")
	g.lab.must(err, "scrape %s", g.Name)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	g.lab.must(err, "scrape %s", g.Name)
	return string(body), time.Since(start)
}
