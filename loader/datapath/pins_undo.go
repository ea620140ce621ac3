package datapath

import (
	"errors"
	"slices"
)

// Step is called before each step of a transaction with the step's name; an error makes the step fail. It is how tests make
// every step fail, or the process die there; in production it is nil.
type Step func(name string) error

func (s Step) before(name string) error {
	if s == nil {
		return nil
	}
	return s(name)
}

// undo remembers how to take back the steps of a transaction that have succeeded, and what to release at its end.
type undo struct {
	steps []func() error
	ends  []func() error
}

func (u *undo) add(step func() error) { u.steps = append(u.steps, step) }

// atEnd has release run when the transaction is over, either way.
func (u *undo) atEnd(release func() error) { u.ends = append(u.ends, release) }

// keep forgets the steps: the transaction is committed.
func (u *undo) keep() {
	u.steps = nil
	_ = u.end()
}

// onError takes the steps back, last one first, if *err says that the transaction failed, and joins what fails in
// doing so.
func (u *undo) onError(err *error) {
	if *err == nil {
		return
	}
	for _, step := range slices.Backward(u.steps) {
		*err = errors.Join(*err, step())
	}
	u.steps = nil
	*err = errors.Join(*err, u.end())
}

func (u *undo) end() error {
	var err error
	for _, release := range slices.Backward(u.ends) {
		err = errors.Join(err, release())
	}
	u.ends = nil
	return err
}
