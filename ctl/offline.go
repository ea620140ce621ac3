package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"roam/loader/api"
)

// Forwarding outlives the daemon, and so does what can be read of it: its maps stay pinned. pins answers from them
// what needs no RIB. It opens nothing for writing.
type pins interface {
	Status() (api.Status, error)
	Counters() (api.Counters, error)
}

// openPins opens the maps under the folder that datapath.pin names. A build that cannot leaves it nil, and then a
// daemon that is down is an error like any other.
var openPins func(folder string) (pins, error)

// defaultPin is where the maps are unless the configuration says otherwise.
const defaultPin = "/sys/fs/bpf/roam"

// ask asks the daemon, and its pinned maps where it is down.
func ask[T any](c *cli.Context, daemon func(*api.Client) (T, error), instead func(pins) (T, error)) (T, error) {
	answer, err := daemon(client(c))
	var down *api.Unreachable
	if openPins == nil || !errors.As(err, &down) {
		return answer, err
	}
	p, failed := openPins(c.String("pin"))
	if failed != nil {
		return answer, err // the daemon is what is missing
	}
	fmt.Fprintf(c.App.ErrWriter, "roamctl: %v: read from the maps pinned in %s\n", err, c.String("pin"))
	return instead(p)
}
