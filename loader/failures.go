package main

import (
	"maps"
	"sync"
)

// failures remembers what does not work at the moment, by name, for status. Safe for concurrent use.
type failures struct {
	mu sync.Mutex
	by map[string]error
}

// set notes an error, or with nil that it is over.
func (f *failures) set(name string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.by == nil {
		f.by = map[string]error{}
	}
	if err == nil {
		delete(f.by, name)
		return
	}
	f.by[name] = err
}

func (f *failures) all() map[string]error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.by)
}
