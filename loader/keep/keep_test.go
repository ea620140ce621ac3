package keep

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wake := make(chan struct{})
		start, told := time.Now(), []string(nil)
		var at []time.Duration
		answers := []error{errors.New("a"), errors.New("a"), errors.New("b"), nil}
		go func() {
			time.Sleep(2500 * time.Millisecond)
			wake <- struct{}{}
		}()
		Up(t.Context(), time.Second, wake, func(context.Context) error {
			at = append(at, time.Since(start))
			return answers[len(at)-1]
		}, func(err error) { told = append(told, err.Error()) })
		if len(at) != 4 || at[1] != time.Second || at[2] != 2*time.Second || at[3] != 2500*time.Millisecond {
			t.Errorf("served at %v", at)
		}
		if len(told) != 2 || told[0] != "a" || told[1] != "b" {
			t.Errorf("told %v", told)
		}
	})
}

func TestSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		began, ended := map[int]int{}, map[int]int{}
		run := func(ctx context.Context, m int) {
			began[m]++
			<-ctx.Done()
			ended[m]++
		}
		var s Set[int]
		for _, members := range []map[int]bool{{1: true, 2: true}, {2: true, 3: true}, {1: true, 2: true}} {
			s.Be(ctx, members, run)
			synctest.Wait()
		}
		if began[1] != 2 || began[2] != 1 || began[3] != 1 || ended[1] != 1 || ended[2] != 0 || ended[3] != 1 {
			t.Errorf("began %v, ended %v", began, ended)
		}
		stop()
		s.Wait()
		if ended[1] != 2 || ended[2] != 1 {
			t.Errorf("ended %v", ended)
		}
	})
}
