// Package due keeps what waits for its turn.
package due

import (
	"container/heap"
	"time"
)

// Turn is when it is the turn of whatever embeds it, which may wait in one queue at a time. The zero value is due, and in no queue.
type Turn struct {
	Due   time.Time // after a change of it, Put says so to the queue
	place int       // in the queue, counted from 1
}

// Waits says whether it is in a queue.
func (t *Turn) Waits() bool { return t.place > 0 }

func (t *Turn) turn() *Turn { return t }

// waiter is a pointer to what embeds a Turn.
type waiter interface {
	comparable
	turn() *Turn
}

// Queue has who is due first in front. The zero value is empty. Calls must not overlap.
type Queue[T waiter] struct{ all entries[T] }

// Len is how many wait.
func (q *Queue[T]) Len() int { return len(q.all) }

// First is who is due first, nil if nobody waits.
func (q *Queue[T]) First() (first T) {
	if len(q.all) > 0 {
		first = q.all[0]
	}
	return first
}

// Put has x wait, or wait again: until its Due.
func (q *Queue[T]) Put(x T) {
	if t := x.turn(); t.Waits() {
		heap.Fix(&q.all, t.place-1)
	} else {
		heap.Push(&q.all, x)
	}
}

// Remove has x wait no longer, if it does.
func (q *Queue[T]) Remove(x T) {
	if t := x.turn(); t.Waits() {
		heap.Remove(&q.all, t.place-1)
	}
}

// entries implement heap.Interface.
type entries[T waiter] []T

func (e entries[T]) Len() int           { return len(e) }
func (e entries[T]) Less(i, j int) bool { return e[i].turn().Due.Before(e[j].turn().Due) }
func (e entries[T]) Swap(i, j int) {
	e[i], e[j] = e[j], e[i]
	e[i].turn().place, e[j].turn().place = i+1, j+1
}

func (e *entries[T]) Push(x any) {
	*e = append(*e, x.(T))
	x.(T).turn().place = len(*e)
}

func (e *entries[T]) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	clear((*e)[last:])
	*e = (*e)[:last]
	x.turn().place = 0
	return x
}
