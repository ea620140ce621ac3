// Command cloud-adapter is an example of hooks.host_change: when a host comes to this site it assigns the host's address to the
// host's machine in a cloud's API, and when the host leaves it takes the address away. Nothing but the standard library.
//
//	CLOUD_API=http://192.0.2.80 CLOUD_INSTANCES=/etc/roam/instances.json cloud-adapter < change.json
//
// CLOUD_INSTANCES names a file that says which machine an address belongs to, {"10.1.0.21":"vm-21"}; clouds know that by tags, or
// by whoever moved the machine. The API is that of no cloud, but what they all have: PUT and DELETE of
// /instances/ID/addresses/ADDRESS. An adapter for a real one differs in one function, and in how it proves who it is.
//
// A change may come again, and only the newest of a host comes at all. So the program says what is to be so, and takes "it is so
// already" for success. Whatever else goes wrong it says and exits with 1; roamd runs it again.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// change is what roamd says, one JSON object on standard input; what is not needed here is left out.
type change struct {
	Event   string // the same where a change is repeated
	Site    string // where this gateway is
	Address string
	NewSite string `json:"new_site"` // where the host is now, empty for nowhere
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "cloud-adapter:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var c change
	if err := json.NewDecoder(os.Stdin).Decode(&c); err != nil {
		return fmt.Errorf("read the change: %w", err)
	}
	instance, err := instanceOf(c.Address)
	if err != nil {
		return err
	}
	if instance == "" {
		return nil // no machine of ours: nothing is to be done, now or later
	}
	method := http.MethodDelete
	if c.NewSite == c.Site {
		method = http.MethodPut
	}
	return call(ctx, method, "/instances/"+url.PathEscape(instance)+"/addresses/"+url.PathEscape(c.Address), c.Event)
}

func instanceOf(address string) (string, error) {
	text, err := os.ReadFile(os.Getenv("CLOUD_INSTANCES"))
	if err != nil {
		return "", fmt.Errorf("CLOUD_INSTANCES has to name a file: %w", err)
	}
	var instances map[string]string
	if err := json.Unmarshal(text, &instances); err != nil {
		return "", fmt.Errorf("%s: %w", os.Getenv("CLOUD_INSTANCES"), err)
	}
	return instances[address], nil
}

// call asks the API for one thing. An address that is assigned already (409), or was taken away before (404), is as it should be.
func call(ctx context.Context, method, path, event string) error {
	base := os.Getenv("CLOUD_API")
	if base == "" {
		return errors.New("CLOUD_API has to name the API, as http://192.0.2.80")
	}
	request, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(base, "/")+path, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Idempotency-Key", event)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 300))
	switch {
	case answer.StatusCode < 300,
		method == http.MethodPut && answer.StatusCode == http.StatusConflict,
		method == http.MethodDelete && answer.StatusCode == http.StatusNotFound:
		return nil
	}
	return fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, strings.TrimSpace(string(text)))
}
