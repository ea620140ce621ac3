package main

import (
	"bytes"
	"context"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"roam/loader/api"
	"roam/loader/api/apitest"
)

// On a terminal packets are shown as they come, and in the end how many were lost. The manual shows the very same. ROAM_UPDATE=1
// writes it.
func TestTraceOfTheManual(t *testing.T) {
	local := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = local })
	d := daemon()
	d.Packets = append(apitest.Traffic(), api.TracedPacket{
		Time: apitest.Traffic()[1].Time.Add(1500 * time.Microsecond), Reason: "pass_arp", Verdict: "passed", Tenant: "default", In: "lan0",
		Source: netip.MustParseAddr("10.1.0.9"), Destination: netip.MustParseAddr("10.1.0.1"), Length: 60, LengthAfter: 60,
	})
	d.Lost = 3
	socket := serve(t, d)
	screenOfManual(t, "trace", onTerminal(t, socket, "trace", "--count", "3"))
}

// Who interrupts a trace or a capture has what there was until then, and the data path is left in peace.
func TestTraceInterrupted(t *testing.T) {
	for _, command := range []string{"trace", "capture -w -"} {
		d := daemon()
		d.Ended = make(chan struct{})
		socket := serve(t, d)
		ctx, interrupt := context.WithCancel(t.Context())
		out, in := io.Pipe()
		var stderr bytes.Buffer
		code := make(chan int, 1)
		go func() {
			code <- run(ctx, append([]string{"roamctl", "--socket", socket}, strings.Fields(command)...), nil, in, &stderr)
			in.Close()
		}()
		var text strings.Builder
		for buffer := make([]byte, 4096); !strings.Contains(text.String(), "drop_tunnel_loop"); {
			n, err := out.Read(buffer)
			if err != nil {
				t.Fatal(err)
			}
			text.Write(buffer[:n])
		}
		interrupt()
		go func() { _, _ = io.Copy(io.Discard, out) }()
		if c := <-code; c != 0 || !strings.Contains(stderr.String(), "2 packets") || !strings.Contains(stderr.String(), "0 lost") {
			t.Errorf("%s: exit status %d, %q", command, c, stderr.String())
		}
		select {
		case <-d.Ended:
		case <-time.After(10 * time.Second):
			t.Errorf("%s: it goes on at the daemon", command)
		}
	}
}
