// Command routes is an example of a program that feeds and follows roamd: nothing but the standard library, HTTP over the
// control socket, and JSON lines, as docs/openapi.yaml describes them.
//
//	routes /run/roam/roamd.sock put < changes.jsonl
//	routes /run/roam/roamd.sock watch
//
// put sends each line as it comes and says what was refused. watch keeps a table of what wins and prints each change of it.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: routes SOCKET put|watch")
	}
	roamd := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", os.Args[1])
		},
	}}
	var err error
	switch os.Args[2] {
	case "put":
		err = put(roamd, os.Stdin)
	case "watch":
		err = watch(roamd, os.Stdout)
	default:
		err = fmt.Errorf("%q is neither put nor watch", os.Args[2])
	}
	if err != nil {
		log.Fatal(err)
	}
}

// put sends changes, one JSON object a line: {"prefix":"10.1.0.7","via":["192.0.2.2"]} or {"prefix":"10.1.0.7","withdraw":true}.
// The request's body may stay open for as long as there may be changes; the answer is read meanwhile.
func put(roamd *http.Client, changes io.Reader) error {
	answer, err := roamd.Post("http://roamd/v1/routes/put", "application/jsonl", changes)
	if err != nil {
		return err
	}
	return lines(answer, func(line []byte) error {
		var p struct {
			Line                          int
			Error, Hint                   string
			Read, Added, Removed, Refused int
			Done                          bool
		}
		if err := json.Unmarshal(line, &p); err != nil {
			return err
		}
		switch {
		case p.Line > 0:
			log.Printf("line %d is refused: %s (%s)", p.Line, p.Error, p.Hint)
		case p.Error != "":
			return fmt.Errorf("roamd gave up: %s (%s)", p.Error, p.Hint)
		default: // the first p.Read lines are in force, and on disk
			log.Printf("%d lines: %d added, %d removed, %d refused", p.Read, p.Added, p.Removed, p.Refused)
		}
		return nil
	})
}

// key names a route.
type key struct{ Tenant, Prefix string }

// watch holds what wins for every prefix. A line "begin" means to start over: it comes first, and again after more changes
// than this program could read.
func watch(roamd *http.Client, out io.Writer) error {
	answer, err := roamd.Get("http://roamd/v1/routes/watch")
	if err != nil {
		return err
	}
	table := map[key]json.RawMessage{}
	return lines(answer, func(line []byte) error {
		var c struct {
			key
			Action, Source, Error string
		}
		if err := json.Unmarshal(line, &c); err != nil {
			return err
		}
		switch c.Action {
		case "begin":
			clear(table)
		case "set":
			table[c.key] = json.RawMessage(append([]byte(nil), line...))
		case "gone":
			delete(table, c.key)
		case "":
			return fmt.Errorf("roamd gave up: %s", c.Error)
		}
		_, err := fmt.Fprintf(out, "%s %s %s: %d routes\n", c.Action, c.Prefix, c.Source, len(table))
		return err
	})
}

// lines calls f with every line of an answer.
func lines(answer *http.Response, f func([]byte) error) error {
	defer answer.Body.Close()
	in := bufio.NewScanner(answer.Body)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", answer.Status, in.Bytes())
		}
		if err := f(in.Bytes()); err != nil {
			return err
		}
	}
	return in.Err()
}
