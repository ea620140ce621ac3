package main

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"roam/lab"
)

// drawings show the topology of each role.
var drawings = map[string]string{
	"default": `
     site dc1                                               site dc2

  h11 .11   h12 .12                                      h21 .21   h22 .22
    |         |                                            |         |
  ==+=========+==+== lan1     10.1.0.0/24     lan2 ==+=====+=========+==
                 |         2001:db8:1::/64           |
             lan0|                                   |lan0
  out---r1---up0[gw1]wan0---------( wan )---------wan0[gw2]
                     192.0.2.1           192.0.2.2`,
	"stick": `
     site dc1                                               site dc2

  h11 .11  h12 .12  r1 .254---out                        h21 .21   h22 .22
    |        |        |                                    |         |
  ==+========+====+===+== lan1   10.1.0.0/24  lan2 ==+=====+=========+==
                  |           2001:db8:1::/64        |
              lan0|                                  |lan0
                [gw1]wan0---------( wan )---------wan0[gw2]
                     192.0.2.1           192.0.2.2`,
}

var roleTitles = map[string]string{
	"default": "Roam as the hosts' default router",
	"stick":   "Roam on a stick, beside an existing router r1",
}

// show builds the sites and plays the whole piece once; false if a claim did not hold.
func show(role string, bins lab.Binaries) (good bool) {
	p := &page{}
	defer func() {
		err := recover()
		p.close()
		if _, ours := err.(stopped); err != nil && !ours {
			panic(err)
		}
		good = !p.failed
	}()
	p.title("%s", roleTitles[role])
	fmt.Println(drawings[role] + "\n")
	s := lab.NewSites(p, bins, lab.Options{Role: role, Outside: true})
	(&piece{page: p, Sites: s}).play()
	return true
}

// piece is one performance.
type piece struct {
	*page
	*lab.Sites
}

func (d *piece) play() {
	d.start()
	d.everyPair()
	d.neighbours(d.H("h11"), d.H("h12"))
	d.outside(d.H("h11"), "still at dc1")
	before := [2]lab.Counters{d.GW[lab.DC1].Counters(), d.GW[lab.DC2].Counters()}
	capture := d.Switch.Capture("gw1-wan", "udp port 4789")
	d.move(d.H("h11"), lab.DC2)
	d.outside(d.H("h11"), "moved to dc2")
	d.move(d.H("h11"), lab.DC1)
	capture.Stop()
	d.counters(before)
	d.wire(capture)
}

func (d *piece) start() {
	begin := time.Now()
	d.Up()
	native := true
	var ports []string
	for _, g := range d.GW {
		for _, link := range g.Links() {
			if link == "lo" {
				continue
			}
			program, driver := g.XDP(link)
			native = native && program != 0 && driver
			ports = append(ports, g.Name+":"+link)
		}
	}
	d.claim(native, "daemons", "two roamd answer after %v; native XDP on %s", round(time.Since(begin)),
		strings.Join(ports, " "))
}

// everyPair has each host ping each other one in both families.
func (d *piece) everyPair() {
	begin, answered, asked := time.Now(), 0, 0
	for _, a := range d.Hosts {
		for _, b := range d.Hosts {
			if a == b {
				continue
			}
			for _, ip := range b.IPs() {
				asked++
				if d.ping(a, ip.String()) {
					answered++
				}
			}
		}
	}
	d.claim(answered == asked, "reach", "every host pings every host, IPv4 and IPv6: %d of %d answered in %v",
		answered, asked, round(time.Since(begin)))
}

func (d *piece) ping(from *lab.Host, to string) bool {
	_, err := from.Try("ping", "-n", "-c", "1", "-w", "3", to)
	return err == nil
}

// longestGap is what a moving host may miss: most of it is the time between the moving of its cable and the last word to
// a gateway, and on a busy machine that is not only ours.
const longestGap = time.Second

// move moves a host under two TCP streams and four pings.
func (d *piece) move(h *lab.Host, site int) {
	h12, h21 := d.H("h12"), d.H("h21")
	const rate = 512 << 10
	streams := []*lab.Stream{
		d.Stream(h21.Namespace, h.Namespace, h.IP4, rate),
		d.Stream(h12.Namespace, h.Namespace, h.IP6, rate),
	}
	var echoes []*lab.Echo
	for _, from := range []*lab.Host{h12, h21} {
		for _, ip := range h.IPs() {
			echoes = append(echoes, d.Echo(from.Namespace, ip, 10*time.Millisecond))
		}
	}
	progress := func() {
		for i, e := range echoes {
			e.AwaitReplies([]int{100, 10}[min(i, 1)], 20*time.Second)
		}
	}
	progress()
	begin := time.Now()
	d.Move(h, site)
	told := time.Since(begin)
	progress()
	d.say("move", "%s from %s to %s: cable moved, then `roamctl host move` on both gateways, done after %v.\n"+
		"No connection may break, no silence last %v:", h.Name, lab.SiteNames[1-site], lab.SiteNames[site], round(told), longestGap)
	for _, e := range echoes {
		r := e.Stop()
		d.claim(r.Duplicated == 0 && r.Gap < longestGap, "", "%-27s every 10 ms: %d sent, %d lost, longest gap %v",
			e, r.Sent, r.Lost(), round(r.Gap))
	}
	for _, stream := range streams {
		r := stream.Stop()
		d.claim(r.Whole, "", "%s: %v", stream, r)
	}
}

// outside has a host beyond the subnet and one of ours reach each other.
func (d *piece) outside(h *lab.Host, where string) {
	in, out := 0, 0
	for i := range 2 {
		if d.ping(d.Out, h.IPs()[i].String()) {
			in++
		}
		if d.ping(h, d.Out.IPs()[i].String()) {
			out++
		}
	}
	d.claim(in == 2 && out == 2, "outside", "%s beyond r1 and %s, %s, ping each other: %d of 4 answered",
		d.Out.IP4, h.Name, where, in+out)
}

// neighbours shows that hosts at one site need no gateway.
func (d *piece) neighbours(a, b *lab.Host) {
	g := d.GW[a.Site]
	d.ping(a, b.IP4.String())
	before := g.Counters()
	f := d.Flow(a.Namespace, a.IP4, b.Namespace, b.IP4, 1000, 100)
	f.AwaitArrivals(500, 10*time.Second)
	r := f.Stop()
	moved := g.Counters().Since(before)
	handled := moved["fwd_encap"] + moved["fwd_deliver"] + moved["pass_no_route"]
	d.claim(r.Lost() == 0 && handled == 0, "neighbours", "%s to %s, both at %s: %d packets, %d lost, %d handled by %s",
		a.Name, b.Name, lab.SiteNames[a.Site], r.Sent, r.Lost(), handled, g.Name)
}

func (d *piece) counters(before [2]lab.Counters) {
	for site, g := range d.GW {
		moved := g.Counters().Since(before[site])
		d.claim(moved["fwd_encap"] > 0 && moved["fwd_deliver"] > 0, "counters", "%s: %v", g.Name, moved)
	}
}

// wire shows one packet as tshark decodes it, after tshark has looked at all of them.
func (d *piece) wire(c *lab.Capture) {
	faults := c.Faults()
	packets := len(c.Fields("vxlan", "frame.number"))
	d.claim(packets > 0 && len(faults) == 0, "underlay", "%d tunnel packets captured, %d malformed or with a bad checksum",
		packets, len(faults))
	for _, fault := range faults[:min(3, len(faults))] {
		d.say("", "%s", fault)
	}
	rows := c.Fields("vxlan && ip.src == 192.0.2.1 && icmp.type == 8", "frame.number")
	if len(rows) == 0 {
		d.claim(false, "packet", "no echo request from gw1 in the capture")
		return
	}
	d.say("packet", "%s", digest(c.Tshark("frame.number == "+rows[0][0], "-V")))
}

var hexDump = regexp.MustCompile(`^[0-9a-f]{4}  `)

// digest keeps of tshark's long output the line of each header and the fields that tell whether a tunnel is right.
func digest(verbose string) string {
	var kept []string
	for line := range strings.Lines(verbose) {
		line = strings.TrimRight(line, "\n")
		field := strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "Frame") || strings.HasPrefix(line, "Data"):
		case line == field && !hexDump.MatchString(line):
			kept = append(kept, line)
		case strings.HasPrefix(field, "Time to Live") || strings.HasPrefix(field, "VXLAN Network Identifier") ||
			strings.HasSuffix(field, "Don't fragment") || strings.HasPrefix(field, "Checksum:"):
			kept = append(kept, "    "+field)
		}
	}
	return strings.Join(kept, "\n")
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
