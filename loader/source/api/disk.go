package api

import "fmt"

// disk answers for changes once they have reached it. While it syncs, further ones are written and reported; the next sync is
// for all of them. Owned by the goroutine that owns the journal.
type disk struct {
	journal *journal
	synced  chan error   // how the sync that is under way ended
	syncing []chan error // who is answered by it; empty: none is under way
	waiting []chan error // who is answered by the next one
}

func newDisk(j *journal) *disk { return &disk{journal: j, synced: make(chan error)} }

// await answers done as soon as what was written until now is on the disk.
func (d *disk) await(done chan error) {
	d.waiting = append(d.waiting, done)
	d.next()
}

func (d *disk) next() {
	if len(d.syncing) > 0 || len(d.waiting) == 0 {
		return
	}
	d.syncing, d.waiting = d.waiting, nil
	file := d.journal.file
	go func() { d.synced <- file.Sync() }()
}

// answer takes the end of a sync. What failed is in force, and in the file for all that a restarted daemon can tell: it cannot be
// taken back without knowing what the disk holds, so nothing more is taken.
func (d *disk) answer(err error) {
	if err != nil {
		err = fmt.Errorf("keep injected routes: %w: the change is in force, but the machine may not remember it: "+
			"restart the daemon once the disk is well", err)
		d.journal.broken = err
		d.syncing, d.waiting = append(d.syncing, d.waiting...), nil
	}
	for _, done := range d.syncing {
		done <- err
	}
	d.syncing = nil
	d.next()
}

// finish waits until nothing is under way.
func (d *disk) finish() {
	for len(d.syncing) > 0 {
		d.answer(<-d.synced)
	}
}
