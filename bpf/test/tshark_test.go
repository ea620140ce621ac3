package bpftest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// dissected is what tshark makes of a frame.
type dissected struct {
	protocols string   // from the outside in, by colons
	faults    string   // malformed, and what else its expert says in earnest
	vni       string   // tenant number of the tunnel, by whatever name the encapsulation gives it
	checksums []string // of every layer that has one: 0 bad, 1 good, 2 not verified, 3 not there
}

// dissect has tshark take the frames apart and validate their checksums.
func dissect(t *testing.T, frames [][]byte) []dissected {
	t.Helper()
	path, err := exec.LookPath("tshark")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("tshark must be there: tools/need tshark")
		}
		t.Skip("no tshark on this machine: tools/need tshark")
	}
	var capture bytes.Buffer
	w := pcapgo.NewWriter(&capture)
	if err := w.WriteFileHeader(65535, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	for _, b := range frames {
		if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: time.Unix(1, 0), CaptureLength: len(b), Length: len(b)}, b); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "frames.pcap")
	if err := os.WriteFile(file, capture.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "-n", "-r", file, "-T", "fields", "-E", "separator=|", "-E", "occurrence=a",
		"-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE",
		"-e", "frame.protocols", "-e", "_ws.malformed", "-e", "vxlan.vni", "-e", "geneve.vni", "-e", "gre.key", "-e", "lisp-data.iid", "-e", "ip.checksum.status", "-e", "udp.checksum.status",
		"-e", "tcp.checksum.status", "-e", "icmp.checksum.status", "-e", "icmpv6.checksum.status")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	var list []dissected
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimRight(line, "\n"), "|")
		d := dissected{protocols: f[0], faults: f[1]}
		for _, number := range f[2:6] {
			if number != "" {
				n, err := strconv.ParseUint(number, 0, 32)
				if err != nil {
					t.Fatal(err)
				}
				d.vni = fmt.Sprint(n)
			}
		}
		for _, status := range f[6:] {
			if status != "" {
				d.checksums = append(d.checksums, strings.Split(status, ",")...)
			}
		}
		list = append(list, d)
	}
	if len(list) != len(frames) {
		t.Fatalf("%d frames, %d dissected", len(frames), len(list))
	}
	return list
}

// Another implementation reads what leaves here: every encapsulation, and errors to senders.
func TestDissected(t *testing.T) {
	w := site(t, onLAN)
	var frames [][]byte
	var names, stacks, numbers []string
	add := func(name, stack, vni string, in frame) {
		_, out, err := w.run(in.bytes())
		if err != nil {
			t.Fatal(err)
		}
		frames, names, stacks = append(frames, out), append(names, name), append(stacks, stack)
		numbers = append(numbers, vni)
	}
	layer := [...]string{"ip", "ipv6"}
	for _, f := range families {
		for _, e := range everyEncapsulation() {
			for _, outer := range families {
				in := w.base(f, reached(via, e, outer))
				in.ip = syn(in.ip, 8960, true)
				name := fmt.Sprintf("%s over %s, %s inside", e, outer, f)
				if e == encGUE { // which tshark does not know: see TestDissectedGUE
					add(name, "eth:ethertype:"+layer[outer]+":udp:data", "", in)
					continue
				}
				vni := ""
				if e.hasVNI() {
					vni = fmt.Sprint(vni1)
				}
				add(name, "eth:ethertype:"+layer[outer]+tsharkNames[e]+layer[f]+":tcp", vni, in)
			}
		}
		in := w.base(f, atB4)
		in.ip = syn(in.ip, 1000, false)
		in.ip.ttl = 1
		add("time exceeded, "+f.String(), "eth:ethertype:"+[...]string{"ip:icmp:ip", "ipv6:icmpv6:ipv6"}[f]+":tcp", "", in)
		in = w.sized(f, atB4, 1600)
		in.ip.flags = layers.IPv4DontFragment
		add("too big, "+f.String(), "eth:ethertype:"+[...]string{"ip:icmp:ip", "ipv6:icmpv6:ipv6"}[f]+":data", "", in)
	}
	for i, d := range dissect(t, frames) {
		if d.protocols != stacks[i] || d.vni != numbers[i] || d.faults != "" {
			t.Errorf("%s: %s, tenant %q %s, want %s, %q\n%s", names[i], d.protocols, d.vni, d.faults, stacks[i], numbers[i], describe(frames[i]))
		}
		good := 0
		for _, status := range d.checksums {
			if status == "1" {
				good++
			}
		}
		if slices.Contains(d.checksums, "0") || good == 0 {
			t.Errorf("%s: checksums %v\n%s", names[i], d.checksums, describe(frames[i]))
		}
	}
}

// tsharkNames are the layers between the outer IP header and the inner one, as tshark names them: VXLAN-GPE's it does not name, but
// finds its tenant number.
var tsharkNames = [encapsulations]string{
	encVXLAN: ":udp:vxlan:eth:ethertype:", encGPE: ":udp:", encGeneve: ":udp:geneve:", encGeneveEthernet: ":udp:geneve:eth:ethertype:",
	encGRE: ":gre:", encGREKey: ":gre:", encIP: ":", encLISP: ":udp:lisp-data:",
}

// What tshark does not read, gopacket does.
func TestDissectedGUE(t *testing.T) {
	w := site(t, onLAN)
	for _, f := range families {
		for _, outer := range families {
			in := w.base(f, reached(via, encGUE, outer))
			_, out, err := w.run(in.bytes())
			if err != nil {
				t.Fatal(err)
			}
			p := gopacket.NewPacket(out, layers.LayerTypeEthernet, gopacket.Default)
			u, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
			if !ok || u.DstPort != 6080 {
				t.Fatalf("no UDP to 6080:\n%s", describe(out))
			}
			var gue layers.AGUEVar0
			if err := gue.DecodeFromBytes(u.Payload, gopacket.NilDecodeFeedback); err != nil {
				t.Fatal(err)
			}
			if gue.C || gue.Flags != 0 || len(gue.Extensions) != 0 || gue.Protocol != layers.IPProtocol(f.protocol()) {
				t.Errorf("%s over %s: %+v", f, outer, gue)
			}
			if !bytes.Equal(gue.Data, in.ip.hop().bytes()) {
				t.Errorf("%s over %s: the packet inside differs", f, outer)
			}
			if outer == v6 {
				if err := u.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
					t.Fatal(err)
				}
				if err, r := u.VerifyChecksum(); err != nil || !r.Valid {
					t.Errorf("%s over %s: %v %+v", f, outer, err, r)
				}
			}
		}
	}
}
