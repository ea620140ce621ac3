package api_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"roam/loader/api"
	"roam/loader/api/apitest"
)

// putAll sends a list and returns the lines that were refused, and the last line of the answer.
func putAll(t *testing.T, c *api.Client, list io.Reader) (refused []api.PutProgress, last api.PutProgress, err error) {
	t.Helper()
	err = c.Put(t.Context(), list, func(p api.PutProgress) error {
		if last = p; p.Line != 0 {
			refused = append(refused, p)
		}
		return nil
	})
	return refused, last, err
}

// Every line that is wrong is named, and the others are in force.
func TestPut(t *testing.T) {
	d := &apitest.Daemon{}
	socket, _ := serve(t, d)
	c := client(t, socket)
	list := `{"prefix":"10.1.0.1","via":["192.0.2.2"]}
# a comment

{"prefix":"10.1.0.2","via":["192.0.2.2"]}
{"prefix":"10.1.0.300","via":["192.0.2.2"]}
hello
{"prefix":"10.1.0.3","tenant":"red","via":["192.0.2.2"]}
{"prefix":"10.1.0.2/32","withdraw":true}
{"prefix":"10.1.0.9","withdraw":true}
{"prefix":"10.1.0.4","tenant":"blue","site":"dc2","withdraw":false}
` + `{"prefix":"10.1.0.5","via":["192.0.2.2"],"site":"` + strings.Repeat("x", 600<<10) + "\"}\n" +
		`{"prefix":"10.1.0.1","via":["192.0.2.3"]}`
	refused, last, err := putAll(t, c, strings.NewReader(list))
	if err != nil {
		t.Fatal(err)
	}
	want := []api.PutProgress{
		{Line: 5, Error: `"10.1.0.300" is no prefix such as 10.1.0.7/32, 10.2.0.0/16 or 2001:db8:1::7/128`},
		{Line: 6, Error: `"hello" is no JSON object such as {"prefix":"10.1.0.7/32","via":["192.0.2.2"]}`},
		{Line: 7, Error: `no tenant is named "red"`, Hint: "roamctl status lists the tenants; add it to the configuration and reload"},
		{Line: 11, Error: "longer than 65536 bytes"},
	}
	if diff := cmp.Diff(want, refused); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(api.PutProgress{Read: 12, Added: 4, Removed: 1, Refused: 4, Done: true}, last); diff != "" {
		t.Error(diff)
	}
	var out bytes.Buffer
	if err := c.Export(t.Context(), "csv", "", &out); err != nil {
		t.Fatal(err)
	}
	exported := "prefix,tenant,locator,encap,priority,weight,site\n10.1.0.1/32,default,192.0.2.3,vxlan,1,100,\n" +
		"10.1.0.4/32,blue,192.0.2.2,vxlan,1,100,dc2\n10.1.0.4/32,blue,2001:db8:ff::2,vxlan,1,100,dc2\n"
	if diff := cmp.Diff(exported, out.String()); diff != "" {
		t.Error(diff)
	}
	if status, body := raw(t, socket, "POST", "/v1/routes/put", "text/csv", "10.1.0.1,default,192.0.2.2\n"); status != 415 {
		t.Errorf("a CSV list: %d %s", status, body)
	}
}

// A change is in force at once, while the list goes on.
func TestPutTrickles(t *testing.T) {
	d := &apitest.Daemon{}
	socket, _ := serve(t, d)
	c := client(t, socket)
	from, to := io.Pipe()
	answers := make(chan api.PutProgress)
	ended := make(chan error, 1)
	go func() {
		ended <- c.Put(t.Context(), from, func(p api.PutProgress) error { answers <- p; return nil })
	}()
	for i := range 5 {
		fmt.Fprintf(to, "{\"prefix\":\"10.1.0.%d\",\"via\":[\"192.0.2.2\"]}\n", i+1)
		if p := <-answers; p.Read != i+1 || p.Added != i+1 || d.Injected() != i+1 {
			t.Fatalf("after line %d: %+v, %d routes", i+1, p, d.Injected())
		}
	}
	to.Close()
	if p := <-answers; !p.Done {
		t.Errorf("the end: %+v", p)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// What fails for none of the lines ends the put, with the reason.
func TestPutFails(t *testing.T) {
	d := &apitest.Daemon{Failure: &api.Error{Message: "the disk is full", Status: 507}}
	socket, _ := serve(t, d)
	_, _, err := putAll(t, client(t, socket), strings.NewReader(`{"prefix":"10.1.0.1","via":["192.0.2.2"]}`))
	if err == nil || err.Error() != "the disk is full" {
		t.Errorf("got %v", err)
	}
}

// A daemon that stops ends the put within its grace.
func TestPutStop(t *testing.T) {
	socket, stop := serve(t, &apitest.Daemon{})
	from, to := io.Pipe()
	ended := make(chan error, 1)
	begun := make(chan struct{}, 1)
	c := client(t, socket)
	go func() {
		ended <- c.Put(t.Context(), from, func(api.PutProgress) error { begun <- struct{}{}; return nil })
	}()
	fmt.Fprintln(to, `{"prefix":"10.1.0.1","via":["192.0.2.2"]}`)
	<-begun
	stop()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a put that was broken off ended well")
		}
	case <-time.After(10 * time.Second):
		t.Error("the put goes on")
	}
	to.Close()
}
