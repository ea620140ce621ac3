package rib

import (
	"context"
	"encoding/binary"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"roam/loader/route"
)

type nullSink struct{ n int }

func (*nullSink) Name() string { return "null" }

func (s *nullSink) Apply(_ context.Context, d []route.Decision) error {
	s.n += len(d)
	return nil
}

// manyHosts returns n scattered host claims, half of them IPv6, to four sites.
func manyHosts(n int) []route.Change {
	var in route.Interner
	changes := make([]route.Change, n)
	for i := range changes {
		x := uint32(i) * 0x9E3779B1
		site := byte(i % 4)
		via := in.Via([]route.Locator{{Address: netip.AddrFrom4([4]byte{192, 0, 2, site + 1}), Priority: 1, Weight: 100}})
		var addr netip.Addr
		if i%2 == 0 {
			var b [4]byte
			binary.BigEndian.PutUint32(b[:], x)
			addr = netip.AddrFrom4(b)
		} else {
			b := [16]byte{0x20, 0x01, 0xd, 0xb8}
			binary.BigEndian.PutUint32(b[12:], x)
			addr = netip.AddrFrom16(b)
		}
		changes[i] = route.Change{Claim: route.Claim{
			Key:  route.Key{Tenant: 1, Prefix: netip.PrefixFrom(addr, addr.BitLen())},
			Site: "dc2", Via: via,
		}}
	}
	return changes
}

func rssAnon(tb testing.TB) int {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		tb.Fatal(err)
	}
	for _, line := range strings.Split(string(status), "\n") {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "RssAnon:" {
			kb, err := strconv.Atoi(f[1])
			if err != nil {
				tb.Fatal(err)
			}
			return kb << 10
		}
	}
	tb.Fatal("no RssAnon in /proc/self/status")
	return 0
}

// cpuTime is what the process has used; on a busy machine it tells more than the clock.
func cpuTime(tb testing.TB) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkImport reports a million hosts in one call, to a RIB with a sink that does nothing.
func BenchmarkImport(b *testing.B) {
	const n = 1_000_000
	changes := manyHosts(n)
	for b.Loop() {
		b.StopTimer()
		debug.FreeOSMemory()
		before := rssAnon(b)
		ctx, cancel := context.WithCancel(context.Background())
		r := New(Options{})
		to := r.Reporter("api", 4)
		sink := &nullSink{}
		r.AddSink(sink)
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		busy := cpuTime(b)
		b.StartTimer()
		if err := to.Report(ctx, changes); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		b.ReportMetric((cpuTime(b) - busy).Seconds(), "cpu-s/op")
		if sink.n != n {
			b.Fatalf("sink took %d decisions of %d", sink.n, n)
		}
		peak := rssAnon(b)
		debug.FreeOSMemory()
		settled := rssAnon(b)
		b.ReportMetric(float64(peak-before)/n, "rss-peak/host")
		b.ReportMetric(float64(settled-before)/n, "rss/host")
		runtime.KeepAlive(changes)
		cancel()
		<-done
		b.StartTimer()
	}
}

// BenchmarkMove is the cost of one change among a million hosts, with its round trip to the goroutine.
func BenchmarkMove(b *testing.B) {
	changes := manyHosts(1_000_000)
	ctx, cancel := context.WithCancel(context.Background())
	r := New(Options{})
	to := r.Reporter("api", 4)
	r.AddSink(&nullSink{})
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	if err := to.Report(ctx, changes); err != nil {
		b.Fatal(err)
	}
	i := 0
	for b.Loop() {
		c := changes[i%len(changes)]
		c.Sequence++
		if err := to.Report(ctx, []route.Change{c}); err != nil {
			b.Fatal(err)
		}
		i++
	}
	cancel()
	<-done
}

// BenchmarkWalk streams a million routes while another source goes on; it tells the longest wait of one change.
func BenchmarkWalk(b *testing.B) {
	const n = 1_000_000
	ctx, cancel := context.WithCancel(context.Background())
	r := New(Options{})
	to, other := r.Reporter("api", 4), r.Reporter("fib", 2)
	r.AddSink(&nullSink{})
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	changes := manyHosts(n)
	if err := to.Report(ctx, changes); err != nil {
		b.Fatal(err)
	}
	var longest time.Duration
	for b.Loop() {
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				start := time.Now()
				if err := other.Report(ctx, changes[i%n:i%n+1]); err != nil {
					b.Error(err)
				}
				longest = max(longest, time.Since(start))
			}
		}()
		seen := 0
		if err := r.Walk(ctx, Filter{}, func(Entry) error { seen++; return nil }); err != nil {
			b.Fatal(err)
		}
		close(stop)
		<-stopped
		if seen != n {
			b.Fatalf("saw %d of %d", seen, n)
		}
	}
	b.ReportMetric(float64(longest.Microseconds())/1000, "longest-wait-ms")
	cancel()
	<-done
}
