package maps

import (
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const benchHosts = 1 << 20

// BenchmarkHostsPutAll inserts a million hosts into an empty table for a million, in the order of their
// addresses and at random; settling is timed apart.
func BenchmarkHostsPutAll(b *testing.B) {
	for _, c := range []struct {
		name   string
		v6     bool
		random bool
	}{{"IPv4", false, false}, {"IPv6", true, false}, {"IPv4 random", false, true}, {"IPv6 random", true, true}} {
		b.Run(c.name, func(b *testing.B) {
			g := newGrace(b)
			hosts := make([]HostValue, benchHosts)
			for i := range hosts {
				k := testHost(c.v6, i)
				hosts[i] = HostValue{k.space, k.addr, 17}
			}
			if c.random {
				rand.Shuffle(len(hosts), func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
			}
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			waiting, cpu := 0, time.Duration(0)
			for range b.N {
				b.StopTimer()
				m, err := CreateHostMaps(benchHosts)
				if err != nil {
					b.Fatal(err)
				}
				h, err := OpenHosts(m, g)
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				cpu -= threadTime(b)
				if _, err := h.PutAll(hosts); err != nil {
					b.Fatal(err)
				}
				cpu += threadTime(b)
				b.StopTimer()
				waiting += h.Waiting()
				_ = h.Close()
				_ = m.Close()
			}
			b.ReportMetric(float64(cpu.Milliseconds())/float64(b.N), "cpu-ms/op")
			b.ReportMetric(float64(waiting)/float64(b.N), "waiting")
		})
	}
}

// threadTime is the processor time of this thread: on a machine that others use too, elapsed time says little.
func threadTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkHosts times what else takes a table of a million hosts of each family some time.
func BenchmarkHosts(b *testing.B) {
	g := newGrace(b)
	m, h := createHosts(b, g, benchHosts)
	for i := range benchHosts {
		mustPut(b, h, testHost(false, i), 17)
		mustPut(b, h, testHost(true, i), 17)
	}
	b.Run("Settle", func(b *testing.B) {
		for range b.N {
			mustSettle(b, h)
		}
	})
	b.Run("Replace", func(b *testing.B) {
		for i := range b.N {
			mustPut(b, h, testHost(false, i*7919%benchHosts), 18)
		}
	})
	b.Run("Open", func(b *testing.B) {
		for range b.N {
			other, err := OpenHosts(m, g)
			if err != nil {
				b.Fatal(err)
			}
			_ = other.Close()
		}
	})
	b.Run("Grow", func(b *testing.B) {
		for range b.N {
			next, err := h.Grow(2 * benchHosts)
			if err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			_ = next.Close()
			_ = h.AbortGrow()
			b.StartTimer()
		}
	})
	b.Run("Each", func(b *testing.B) {
		for range b.N {
			n := 0
			h.Each(func(uint16, netip.Addr, uint32) bool { n++; return true })
		}
	})
}
