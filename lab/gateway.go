package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Gateway is a machine that runs roamd. Its pins live in a BPF file system of its own, which outlives the daemon and
// ends with the lab.
type Gateway struct {
	*Namespace
	Config Config
	Bins   Binaries
	Daemon *Process // the running one, or the last

	dir    string
	file   string            // of the configuration
	routes map[string]string // of the route file: prefix -> entries of via
}

// Gateway makes a machine ready to run roamd. The caller gives it interfaces, and completes Config before Up.
func (l *Lab) Gateway(name string, bins Binaries) *Gateway {
	l.Helper()
	l.must(bins.Check(), "gateway %s", name)
	g := &Gateway{
		Namespace: l.Namespace(name), Bins: bins, dir: filepath.Join(l.Dir, name), routes: map[string]string{},
	}
	g.file = filepath.Join(g.dir, "roamd.yaml")
	pins := l.BPFFS(filepath.Join(name, "bpf"))
	g.Config = Config{
		VNI: 7001, Role: "default", Hosts: 4096, Metrics: "127.0.0.1:9177", RouteFile: filepath.Join(g.dir, "routes.yaml"),
		Socket: filepath.Join(g.dir, "roamd.sock"), Pin: filepath.Join(pins, "roam"),
	}
	return g
}

// ConfigFile is where the daemon's configuration is.
func (g *Gateway) ConfigFile() string { return g.file }

// WriteConfig writes the configuration file; Reload or Up has the daemon read it.
func (g *Gateway) WriteConfig() {
	g.lab.Helper()
	text, err := g.Config.YAML()
	g.lab.must(err, "write configuration of %s", g.Name)
	g.lab.must(os.WriteFile(g.file, []byte(text), 0o600), "write configuration of %s", g.Name)
}

// Start runs the daemon without waiting for it.
func (g *Gateway) Start() {
	g.lab.Helper()
	g.Daemon = g.Namespace.Start(g.Bins.Daemon, "--config", g.file)
}

// Up writes the configuration and the route file, starts the daemon and waits until it answers.
func (g *Gateway) Up() {
	g.lab.Helper()
	g.Launch()
	g.AwaitReady()
}

// Launch is Up without the wait: for daemons that are ready only together.
func (g *Gateway) Launch() {
	g.lab.Helper()
	g.WriteConfig()
	g.writeRoutes()
	g.Start()
}

// AwaitReady waits until the daemon answers, has heard its sources out, and forwards on every port.
func (g *Gateway) AwaitReady() {
	g.lab.Helper()
	daemon := g.Daemon
	g.lab.Until(time.Minute, "roamd of "+g.Name+" gets ready", func() error {
		if !daemon.Running() {
			g.lab.Fatalf("roamd of %s ended: %v%s", g.Name, daemon.err, daemon.Tail(40))
		}
		return g.ready()
	})
}

func (g *Gateway) ready() error {
	out, err := g.Ctl("-o", "json", "status")
	if err != nil {
		return err
	}
	return Ready(out)
}

// Ready says what a daemon with this status (roamctl -o json status) is still missing: a native port, a segment where it is known who answers, a source.
func Ready(out string) error {
	var status struct {
		Ports []struct {
			Interface string `json:"interface"`
			Mode      string `json:"mode"`
			Error     string `json:"error"`
		} `json:"ports"`
		Segments []struct {
			Name  string `json:"name"`
			State string `json:"state"`
		} `json:"segments"`
		Sources []struct {
			Name   string `json:"name"`
			Synced bool   `json:"synced"`
		} `json:"sources"`
	}
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		return fmt.Errorf("decode status: %w", err)
	}
	for _, port := range status.Ports {
		if port.Mode != "native" {
			return fmt.Errorf("port %s is in mode %q: %s", port.Interface, port.Mode, port.Error)
		}
	}
	for _, segment := range status.Segments {
		if segment.State != "designated" && segment.State != "standby" {
			return fmt.Errorf("segment %s: this gateway is %s", segment.Name, segment.State)
		}
	}
	for _, source := range status.Sources {
		if !source.Synced {
			return fmt.Errorf("source %s has not reported yet", source.Name)
		}
	}
	if len(status.Ports) == 0 || len(status.Sources) == 0 {
		return fmt.Errorf("no ports or no sources in %s", out)
	}
	return nil
}

// Restart kills the daemon as a crash would and starts it again; traffic goes on meanwhile.
func (g *Gateway) Restart() {
	g.lab.Helper()
	g.Daemon.Kill()
	g.Start()
	g.AwaitReady()
}

// Stop ends the daemon in an orderly way; forwarding goes on.
func (g *Gateway) Stop() {
	g.lab.Helper()
	if err := g.Daemon.Stop(syscall.SIGTERM); err != nil {
		g.lab.Fatalf("stop roamd of %s: %v%s", g.Name, err, g.Daemon.Tail(40))
	}
}

// Ctl runs roamctl against the daemon for at most half a minute and returns its standard output. The error holds what
// it said on standard error.
func (g *Gateway) Ctl(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := g.Command(ctx, g.Bins.Ctl, append([]string{"--socket", g.Config.Socket}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("roamctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// MustCtl is Ctl that fails the test.
func (g *Gateway) MustCtl(args ...string) string {
	g.lab.Helper()
	out, err := g.Ctl(args...)
	g.lab.must(err, "on %s", g.Name)
	return out
}

// JSON runs a reading command with -o json and decodes what it prints.
func (g *Gateway) JSON(into any, args ...string) {
	g.lab.Helper()
	out := g.MustCtl(append([]string{"-o", "json"}, args...)...)
	g.lab.must(json.Unmarshal([]byte(out), into), "decode roamctl %s", strings.Join(args, " "))
}

// Route has the route file say that prefix is reached through the locators of a site, or says nothing about it if
// site is empty, and replaces the file in one step, which a running daemon notices.
func (g *Gateway) Route(prefix, site string) {
	g.lab.Helper()
	g.SetRoute(prefix, site)
	g.writeRoutes()
}

// SetRoute is Route that leaves the file as it is: Up writes it.
func (g *Gateway) SetRoute(prefix, site string) {
	g.lab.Helper()
	if site == "" {
		delete(g.routes, prefix)
		return
	}
	i := slices.IndexFunc(g.Config.Peers, func(p Peer) bool { return p.Site == site })
	if i < 0 {
		g.lab.Fatalf("%s knows no site %s", g.Name, site)
	}
	var via []string
	for _, loc := range g.Config.Peers[i].Locators {
		entry := fmt.Sprintf("{address: %q", loc.Address)
		if loc.Encap != "" {
			entry += ", encap: " + loc.Encap
		}
		if loc.RouterMAC != "" {
			entry += fmt.Sprintf(", router_mac: %q", loc.RouterMAC)
		}
		if loc.Priority != 0 {
			entry += fmt.Sprintf(", priority: %d", loc.Priority)
		}
		via = append(via, entry+"}")
	}
	g.routes[prefix] = strings.Join(via, ", ")
}

func (g *Gateway) writeRoutes() {
	g.lab.Helper()
	if g.Config.RouteFile == "" {
		return
	}
	var text strings.Builder
	for prefix, via := range g.routes {
		fmt.Fprintf(&text, "- {prefix: %q, via: [%s]}\n", prefix, via)
	}
	if text.Len() == 0 {
		text.WriteString("[]\n")
	}
	temporary := g.Config.RouteFile + ".new"
	g.lab.must(os.WriteFile(temporary, []byte(text.String()), 0o600), "write route file")
	g.lab.must(os.Rename(temporary, g.Config.RouteFile), "replace route file")
}

// HostRoute is the prefix of one address: "10.1.0.7/32".
func HostRoute(addr netip.Addr) string { return netip.PrefixFrom(addr, addr.BitLen()).String() }
