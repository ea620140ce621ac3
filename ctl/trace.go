package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"roam/loader/api"
)

// wholeFrame is more than the data path keeps of a frame.
const wholeFrame = 256

// traceFlags are what both commands ask for.
func traceFlags(more ...cli.Flag) []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "host", Usage: "only from or to `ADDRESS`; of what is in a tunnel, the inner one"},
		&cli.StringFlag{Name: "tenant", Aliases: []string{"t"}, Usage: "only of `TENANT`; of every one where left out"},
		&cli.StringSliceFlag{Name: "reason", Usage: "only by `REASON`, such as drop_ttl, or fwd, pass or drop for all of a family; may be repeated"},
		&cli.StringFlag{Name: "locator", Usage: "only by a tunnel from or to `LOCATOR`"},
		&cli.Uint64Flag{Name: "sample", Usage: "only one packet in `N`, chosen at random"},
		&cli.Uint64Flag{Name: "count", Aliases: []string{"n"}, Usage: "end after `N` packets"},
		&cli.DurationFlag{Name: "duration", Usage: "end after `TIME`, such as 10s"},
	}, more...)
}

func traceCommand() *cli.Command {
	return command("trace", "what happens to packets, one a line, as it happens", "", func(c *cli.Context) error {
		request, err := traceRequest(c)
		if err != nil {
			return err
		}
		return followPackets(c, request, "packets", func(p api.TracedPacket) error {
			if c.Bool("json") || asJSON(c) {
				return json.NewEncoder(c.App.Writer).Encode(p)
			}
			_, err := io.WriteString(c.App.Writer, packetLine(p)+"\n")
			return err
		})
	}, traceFlags(&cli.BoolFlag{Name: "json", Usage: "as lines of JSON, as -o json"})...)
}

func captureCommand() *cli.Command {
	return command("capture", "packets as they come in and go out, with what happened to them, into a pcapng file", "", func(c *cli.Context) error {
		request, err := traceRequest(c)
		if err != nil {
			return err
		}
		if request.Bytes = int(c.Uint("bytes")); request.Bytes < 1 || request.Bytes > wholeFrame {
			return usage(fmt.Sprintf("use from 1 to %d", wholeFrame), "%d bytes of a frame cannot be had", request.Bytes)
		}
		if c.String("write") == "" {
			return usage("give -w FILE, or -w - for the standard output", "the capture has no file to go to")
		}
		return capture(c, request)
	}, traceFlags(
		&cli.StringFlag{Name: "write", Aliases: []string{"w"}, Usage: "`FILE` to write; - is the standard output"},
		&cli.UintFlag{Name: "bytes", Value: wholeFrame, Usage: "keep `N` bytes of each frame"})...)
}

func traceRequest(c *cli.Context) (r api.TraceRequest, err error) {
	for name, to := range map[string]*netip.Addr{"host": &r.Host, "locator": &r.Locator} {
		if text := c.String(name); text != "" {
			if *to, err = netip.ParseAddr(text); err != nil || to.Zone() != "" {
				return r, usage("write it like 10.1.0.7 or 2001:db8:1::7", "--%s: %q is no address", name, text)
			}
		}
	}
	if n := c.Uint64("sample"); n >= 1<<32 {
		return r, usage("", "--sample: %d is too many: no packet would be chosen for days", n)
	}
	if c.IsSet("sample") && c.Uint64("sample") == 0 {
		return r, usage("use 1, or leave it out, for every packet", "--sample: one packet in 0 cannot be chosen")
	}
	if c.Duration("duration") < 0 {
		return r, usage("", "--duration: %v lies in the past", c.Duration("duration"))
	}
	r.Reasons, r.Sample, r.Count, r.For = c.StringSlice("reason"), uint32(c.Uint64("sample")), c.Uint64("count"), c.Duration("duration")
	return r, nil
}

// followPackets asks for packets until there is an end to them, be it ours, and says how many there were and were lost.
func followPackets(c *cli.Context, request api.TraceRequest, what string, f func(api.TracedPacket) error) error {
	var packets, lost uint64
	err := client(c).Trace(c.Context, request, c.String("tenant"), func(p api.TracedPacket) error {
		lost = p.Lost
		if p.Reason == "" {
			return nil
		}
		packets++
		return f(p)
	})
	if errors.Is(err, context.Canceled) {
		err = nil // that is how it may end
	}
	if err == nil || packets > 0 {
		fmt.Fprintf(c.App.ErrWriter, "%d %s, %d lost\n", packets, what, lost)
	}
	return err
}

// packetLine is one packet as text. Columns are as wide as they usually are: nothing can be aligned with what is yet to come.
func packetLine(p api.TracedPacket) string {
	ports := p.In
	if p.Out != "" {
		ports += " -> " + p.Out
	}
	return strings.TrimRight(fmt.Sprintf("%s  %-16s  %-14s  %-8s  %-40s  %s", p.Time.Local().Format("15:04:05.000000"), p.Reason, ports,
		orDash(p.Tenant), packetText(p), lengthText(p)+tunnelText(p)), " ")
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

var protocolNames = map[uint8]string{1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}

func packetText(p api.TracedPacket) string {
	if !p.Source.IsValid() {
		return "-"
	}
	end := func(a netip.Addr, port uint16) string {
		if port == 0 {
			return a.String()
		}
		return netip.AddrPortFrom(a, port).String()
	}
	text := end(p.Source, p.SourcePort) + " -> " + end(p.Destination, p.DestinationPort)
	if p.Protocol == 0 {
		return text
	}
	name, ok := protocolNames[p.Protocol]
	if !ok {
		name = fmt.Sprintf("protocol %d", p.Protocol)
	}
	return text + " " + name
}

func lengthText(p api.TracedPacket) string {
	if p.LengthAfter == p.Length {
		return fmt.Sprintf("%d bytes", p.Length)
	}
	return fmt.Sprintf("%d -> %d bytes", p.Length, p.LengthAfter)
}

func tunnelText(p api.TracedPacket) (text string) {
	if p.From.IsValid() {
		text += ", tunnel from " + p.From.String()
	}
	if p.To.IsValid() {
		text += ", tunnel to " + p.To.String()
	}
	return text
}

// capture writes packets into a file. What it holds when something fails is good as far as it goes.
func capture(c *cli.Context, request api.TraceRequest) (err error) {
	status, err := client(c).Status(c.Context)
	if err != nil {
		return err
	}
	out, name := c.App.Writer, c.String("write")
	if name == "-" {
		if _, screen := terminal(out); screen {
			return usage("give it a file, or pipe it into tshark -r -", "a capture is nothing to look at")
		}
	} else {
		f, err := os.Create(name)
		if err != nil {
			return &hinted{fmt.Errorf("write the capture: %w", err), "name a file in a folder that there is and that you may write to, or - for the standard output"}
		}
		defer func() {
			if e := f.Close(); err == nil && e != nil {
				err = fmt.Errorf("write the capture: %w", e)
			}
		}()
		out = f
	}
	w, err := newPacketFile(out, status)
	if err != nil {
		return err
	}
	return followPackets(c, request, "packets captured", w.write)
}
