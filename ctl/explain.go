package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"roam/loader/api"
)

func explainCommand() *cli.Command {
	return &cli.Command{
		Name: "explain", Usage: "run the real program on a packet and say, step by step, what it would do and why",
		ArgsUsage: "SRC DST | --packet FILE", HideHelpCommand: true, OnUsageError: onUsageError, Action: explain,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "proto", Usage: "of `PROTOCOL`: icmp, tcp, udp or a number", Value: "icmp"},
			&cli.UintFlag{Name: "port", Usage: "to destination `PORT`"},
			&cli.StringFlag{Name: "interface", Usage: "arriving on `INTERFACE`; that of the source's segment where left out"},
			&cli.UintFlag{Name: "vlan", Usage: "arriving with 802.1Q `TAG`"},
			&cli.StringFlag{Name: "packet", Usage: "the Ethernet frame in `FILE`: hexadecimal, pcap or pcapng (its first packet); - for standard input"},
			tenantFlag(),
		},
	}
}

func explain(c *cli.Context) error {
	request := api.ExplainRequest{Tenant: c.String("tenant"), Interface: c.String("interface")}
	if c.Uint("port") > 65535 || c.Uint("vlan") > 4094 {
		return usage("a port is 0 to 65535, a VLAN 0 to 4094", "--port or --vlan is out of range")
	}
	request.VLAN = uint16(c.Uint("vlan"))
	var err error
	if c.String("packet") != "" {
		if c.NArg() > 0 || c.IsSet("proto") || c.IsSet("port") {
			return usage("give SRC DST, or --packet FILE", "both a packet and fields of one are given")
		}
		request.Packet, err = readPacket(c.String("packet"), c.App.Reader)
	} else {
		err = explainFields(c, &request)
	}
	if err != nil {
		return err
	}
	e, err := client(c).Explain(c.Context, request)
	if err != nil {
		return err
	}
	return show(c, e, func(w io.Writer) { explanation(w, &e) })
}

func explainFields(c *cli.Context, request *api.ExplainRequest) error {
	if c.NArg() != 2 {
		return usage("usage: roamctl explain SRC DST [--proto P] [--port N], or roamctl explain --packet FILE", "a source and a destination are needed, %d arguments are given", c.NArg())
	}
	var err error
	if request.Source, err = addressArgument(c, 0); err != nil {
		return err
	}
	if request.Destination, err = addressArgument(c, 1); err != nil {
		return err
	}
	if request.Source.Is4() != request.Destination.Is4() {
		return usage("give two of one family", "%s and %s are of different families", request.Source, request.Destination)
	}
	request.Protocol = strings.ToLower(c.String("proto"))
	request.Port = uint16(c.Uint("port"))
	if request.Port != 0 && !c.IsSet("proto") {
		request.Protocol = "tcp"
	}
	return nil
}

func explanation(w io.Writer, e *api.Explanation) {
	for i, header := range e.Input {
		fmt.Fprintf(w, "%*s%s\n", 2*i, "", header)
	}
	fmt.Fprintln(w)
	row(w, "STEP", "FOUND", "WHY")
	for _, s := range e.Steps {
		row(w, s.Step, s.Found, s.Why)
	}
	fmt.Fprintf(w, "\n%s (%s): %s\n", e.Verdict, e.Reason, e.Text)
	if len(e.Output) > 0 {
		to := "the kernel"
		if e.Egress != "" {
			to = e.Egress
		}
		fmt.Fprintf(w, "\nto %s as\n", to)
		for i, header := range e.Output {
			fmt.Fprintf(w, "%*s%s\n", 2*i, "", header)
		}
	}
}

// maxPacketFile bounds what is read to find one packet.
const maxPacketFile = 1 << 20

// readPacket reads the frame in a file: hexadecimal text, or the first one of a capture.
func readPacket(name string, stdin io.Reader) ([]byte, error) {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, &hinted{fmt.Errorf("read the packet: %w", err), "name a file that can be read, or - for the standard input"}
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxPacketFile))
	if err != nil {
		return nil, fmt.Errorf("read the packet: %w", err)
	}
	frame, isCapture, err := firstOfCapture(data)
	if isCapture || err != nil {
		return frame, err
	}
	text := strings.NewReplacer(" ", "", "\n", "", "\r", "", "\t", "", ":", "").Replace(strings.TrimPrefix(string(data), "0x"))
	frame, err = hex.DecodeString(text)
	if err != nil || len(frame) == 0 {
		return nil, fmt.Errorf("%s holds neither a capture nor an Ethernet frame in hexadecimal", name)
	}
	return frame, nil
}
