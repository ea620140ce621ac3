package api

import (
	"context"
	"errors"
	"fmt"

	"roam/loader/route"
)

// keeper brings changes into journal and RIB. A long change, which the RIB takes part by part, is reported from a goroutine of its own; short ones of
// other keys are written behind it meanwhile, and pass it on the way. What differs in no key may come in either order, so that journal and RIB agree
// all the same. Whoever waits for an answer before he goes on sees his changes in his order.
type keeper struct {
	*Source
	journal *journal
	disk    *disk
	to      route.Reporter
	bulk    *bulk // the long change that is under way, or nil
}

// bulk is a long change that has been written and is being reported.
type bulk struct {
	work
	before, after int64 // size of the journal without it and with it
	reported      chan error
}

// run returns when ctx has ended and nothing is under way.
func (k *keeper) run(ctx context.Context) {
	defer k.disk.finish()
	for {
		long, reported := k.long, (chan error)(nil)
		if k.bulk != nil {
			long, reported = nil, k.bulk.reported
		}
		select {
		case <-ctx.Done():
			k.awaitBulk(ctx)
			return
		case err := <-k.disk.synced:
			k.disk.answer(err)
		case err := <-reported:
			k.endBulk(ctx, err)
		case w := <-k.short:
			k.do(ctx, w)
		case w := <-long:
			k.do(ctx, w)
		}
		if k.bulk == nil && k.journal.wasteful() {
			k.disk.finish()
			k.compact(ctx, k.journal)
		}
	}
}

func (k *keeper) do(ctx context.Context, w work) {
	if k.bulk != nil && k.bulk.shares(w.changes) {
		k.awaitBulk(ctx)
	}
	switch err := k.take(ctx, w); {
	case err != nil:
		w.done <- err
	case k.bulk == nil || k.bulk.done != w.done: // else it has only begun
		k.disk.await(w.done)
	}
}

// take writes and reports a change, or begins to.
func (k *keeper) take(ctx context.Context, w work) error {
	if w.flush != nil {
		return w.flush(ctx, k.journal, k.to)
	}
	for i := range w.changes {
		if !w.changes[i].Withdraw {
			continue
		}
		if err := k.mustHave(ctx, w.changes[i].Key); err != nil {
			return err
		}
	}
	before := k.journal.size
	if err := k.journal.append(w.changes); err != nil {
		return fmt.Errorf("keep injected routes: %w: nothing was changed", err)
	}
	if len(w.changes) > short {
		k.report(ctx, &bulk{work: w, before: before, after: k.journal.size, reported: make(chan error, 1)})
		return nil
	}
	if err := k.to.Report(ctx, w.changes); err != nil {
		return errors.Join(err, k.takeBack(ctx, before, k.journal.size))
	}
	return nil
}

func (k *keeper) report(ctx context.Context, b *bulk) {
	k.bulk = b
	go func() { b.reported <- k.to.Report(ctx, b.changes) }()
}

// awaitBulk lets no change pass any more.
func (k *keeper) awaitBulk(ctx context.Context) {
	if k.bulk != nil {
		k.endBulk(ctx, <-k.bulk.reported)
	}
}

func (k *keeper) endBulk(ctx context.Context, err error) {
	b := k.bulk
	k.bulk = nil
	if err != nil {
		b.done <- errors.Join(err, k.takeBack(ctx, b.before, b.after))
		return
	}
	k.disk.await(b.done)
}

// takeBack takes a change that the RIB has refused out of the journal. What has been written behind it stays: then the journal is written anew, from what
// the RIB holds.
func (k *keeper) takeBack(ctx context.Context, before, after int64) error {
	if k.journal.size == after {
		return k.journal.cut(before)
	}
	k.disk.finish()
	err := k.journal.rewrite(func(write func(*route.Claim) error) error { return k.held.Each(ctx, write) })
	if err != nil {
		k.journal.broken = fmt.Errorf("take a refused change out of %s: %w: restart the daemon once the disk is well", k.path, err)
	}
	return k.journal.broken
}

// shares tells whether one of the keys of a few changes is among those of the long one.
func (b *bulk) shares(few []route.Change) bool {
	for i := range few {
		for k := range b.changes {
			if b.changes[k].Key == few[i].Key {
				return true
			}
		}
	}
	return false
}
