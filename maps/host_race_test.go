package maps

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
)

// TestHostsConcurrent calls everything from several goroutines at once: each owns a part of the hosts and knows
// what they must be, whatever the others do; another settles, another grows the table again and again. It shows
// most under the race detector.
func TestHostsConcurrent(t *testing.T) {
	const owners, each, growths = 4, 100, 12
	r := seeded(t)
	g := newGrace(t)
	_, h := createHosts(t, g, owners*each*9/10)
	var work, back sync.WaitGroup
	stop := make(chan struct{})
	back.Go(func() {
		for {
			select {
			case <-h.Work():
				if err := h.Settle(); err != nil {
					t.Error(err)
				}
			case <-stop:
				return
			}
		}
	})
	back.Go(func() {
		defer close(stop)
		for n := range uint32(growths) {
			next, err := h.Grow(owners * each * (9 + n%2) / 10)
			if err != nil {
				t.Error(err)
				return
			}
			if n%3 == 0 {
				err = h.AbortGrow()
			} else {
				err = h.CommitGrow()
			}
			if err = errors.Join(err, next.Close()); err != nil {
				t.Error(err)
				return
			}
		}
	})
	twins := make([]map[host]uint32, owners)
	for owner := range twins {
		twins[owner] = make(map[host]uint32)
		own := rand.New(rand.NewPCG(r.Uint64(), 0))
		work.Go(func() {
			twin := twins[owner]
			for {
				select {
				case <-stop:
					return
				default:
				}
				k := testHost(own.IntN(2) == 0, owner*each+own.IntN(each))
				if got, _ := h.Get(k.space, k.addr); got != twin[k] {
					t.Errorf("Get(%v) = %d, want %d", k, got, twin[k])
					return
				}
				if twin[k] != 0 && own.IntN(3) == 0 {
					if !h.Delete(k.space, k.addr) {
						t.Errorf("Delete(%v) found nothing", k)
					}
					delete(twin, k)
					continue
				}
				value := 1 + own.Uint32N(maxValue)
				if err := h.Put(k.space, k.addr, value); err != nil {
					t.Errorf("Put(%v): %v", k, err)
					return
				}
				twin[k] = value
			}
		})
	}
	work.Wait()
	back.Wait()
	all := make(map[host]uint32)
	for _, twin := range twins {
		for k, v := range twin {
			all[k] = v
		}
	}
	mustSettle(t, h)
	checkSettled(t, h)
	compare(t, h, h.cur.maps, all)
	h.Each(func(uint16, netip.Addr, uint32) bool { return false })
}
