package api_test

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"roam/loader/api"
	"roam/loader/api/apitest"
	"roam/loader/event"
)

func document(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile("../../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return doc
}

// The document and the server know the same endpoints.
func TestDocumentedEndpoints(t *testing.T) {
	var documented, served []string
	for path, item := range document(t).Paths.Map() {
		for method := range item.Operations() {
			documented = append(documented, method+" "+path)
		}
	}
	code, err := os.ReadFile("server.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`"([A-Z]+ /v1/[^"]*)"`).FindAllStringSubmatch(string(code), -1) {
		served = append(served, strings.ReplaceAll(m[1], "{host}", "{address}"))
	}
	slices.Sort(documented)
	slices.Sort(served)
	equal(t, documented, served)
}

func equal(t *testing.T, got, want []string) {
	t.Helper()
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
}

// The schemas have the fields of the messages, and require those that are always there.
func TestDocumentedMessages(t *testing.T) {
	schemas := document(t).Components.Schemas
	messages := []any{
		api.Error{},
		api.Status{},
		api.Port{},
		api.Table{},
		api.Source{},
		api.Tenant{},
		api.Segment{},
		api.SegmentGateway{},
		api.Locator{},
		api.Route{},
		api.Local{},
		api.NewRoute{},
		api.Injected{},
		api.Progress{},
		api.PutProgress{},
		api.RouteChange{},
		api.Found{},
		api.Host{},
		api.Move{},
		api.Clear{},
		api.Drain{},
		api.Site{},
		api.SiteLocator{},
		api.Session{},
		api.Counters{},
		api.ReasonCount{},
		api.RefusedCount{},
		api.ShadowReport{},
		api.ShadowHost{},
		api.ShadowSign{},
		api.ShadowGroup{},
		api.ShadowCut{},
		api.LocatorCount{},
		api.ExplainRequest{},
		api.Explanation{},
		api.ExplainStep{},
		api.PingRequest{},
		api.Ping{},
		api.Check{},
		api.Reloaded{},
		api.Event{},
		api.TracedPacket{},
		api.CheckMoves{},
		api.MoveCheck{},
		api.MovesChecked{},
		api.MoveChecked{},
	}
	for _, message := range messages {
		kind := reflect.TypeOf(message)
		schema, ok := schemas[kind.Name()]
		if !ok {
			t.Errorf("%s is not documented", kind.Name())
			continue
		}
		var fields, always []string
		for i := range kind.NumField() {
			name, options, _ := strings.Cut(kind.Field(i).Tag.Get("json"), ",")
			if name == "-" {
				continue
			}
			fields = append(fields, kind.Name()+"."+name)
			if options == "" {
				always = append(always, name)
			}
		}
		var documented []string
		for name := range maps.Keys(schema.Value.Properties) {
			documented = append(documented, kind.Name()+"."+name)
		}
		slices.Sort(fields)
		slices.Sort(documented)
		equal(t, documented, fields)
		if kind.Name() == "Locator" {
			continue // as input it may leave out what it always has as output
		}
		for _, name := range always {
			if !slices.Contains(schema.Value.Required, name) {
				t.Errorf("%s.%s is always there, the document does not say so", kind.Name(), name)
			}
		}
	}
	if len(schemas) != len(messages) {
		t.Errorf("%d schemas for %d messages", len(schemas), len(messages))
	}
}

// Requests that the document describes are taken, and what comes back is as it says.
func TestDocumentedAnswers(t *testing.T) {
	doc := document(t)
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	openapi3filter.RegisterBodyDecoder("application/jsonl", firstLine)
	handler := server(&apitest.Daemon{Checks: api.List[api.Check]{{Name: "mtu", Subject: "wan0", Level: api.LevelOK, Found: "2000"}}})
	for _, test := range []struct{ method, path, contentType, body string }{
		{"POST", "/v1/routes", "application/json", `{"prefix":"10.1.0.7","via":["192.0.2.2",{"address":"192.0.2.3","weight":7}],"mac":"02:00:00:00:00:07"}`},
		{"POST", "/v1/routes", "application/json", `{"prefix":"10.1.0.8/32","tenant":"blue","site":"dc2","pinned":true}`},
		{"POST", "/v1/routes/import", "text/csv", "10.2.0.1/32,default,192.0.2.2,vxlan,1,100\n"},
		{"POST", "/v1/routes/import", "application/jsonl", `{"prefix":"10.2.0.2","local":true}`},
		{"POST", "/v1/routes/put", "application/jsonl", `{"prefix":"10.2.0.3","via":["192.0.2.2"]}`},
		{"POST", "/v1/routes/put", "application/jsonl", `{"prefix":"10.2.0.3","withdraw":true}`},
		{"POST", "/v1/routes/put", "application/jsonl", `{"prefix":"10.2.0.3"}`},
		{"GET", "/v1/routes?best=true&within=10.0.0.0/8&site=dc2", "", ""},
		{"GET", "/v1/routes/lookup?address=10.1.0.7&tenant=default", "", ""},
		{"GET", "/v1/routes/export?format=csv", "", ""},
		{"GET", "/v1/routes/export?format=jsonl", "", ""},
		{"GET", "/v1/hosts?tenant=blue", "", ""},
		{"GET", "/v1/hosts/10.1.0.7", "", ""},
		{"GET", "/v1/hosts/10.9.9.9", "", ""},
		{"POST", "/v1/hosts/move", "application/json", `{"address":"10.1.0.7","to":"dc1"}`},
		{"POST", "/v1/hosts/check", "application/json", `{"moves":[{"address":"10.1.0.7","tenant":"default","mac":"02:00:00:00:00:07","to":"dc1"}]}`},
		{"POST", "/v1/gateway/drain", "application/json", `{"drained":true}`},
		{"DELETE", "/v1/routes?prefix=10.1.0.7", "", ""},
		{"DELETE", "/v1/routes?prefix=10.1.0.99", "", ""},
		{"POST", "/v1/routes/flush", "", ""},
		{"GET", "/v1/status", "", ""},
		{"GET", "/v1/sites", "", ""},
		{"GET", "/v1/sessions", "", ""},
		{"GET", "/v1/counters", "", ""},
		{"GET", "/v1/doctor", "", ""},
		{"GET", "/v1/events?after=0", "", ""},
		{"GET", "/v1/trace?host=10.1.0.7&tenant=blue&reason=drop,fwd_encap&locator=192.0.2.2&sample=1&bytes=64&count=2&seconds=2.5", "", ""},
		{"POST", "/v1/reload", "", ""},
		{"POST", "/v1/explain", "application/json", `{"source":"10.1.0.7","destination":"10.1.0.8","protocol":"tcp","port":80}`},
		{"POST", "/v1/ping", "application/json", `{"locator":"192.0.2.2","size":1400,"df":true,"timeout_seconds":0.5}`},
		{"POST", "/v1/ping", "application/json", `{"locator":"192.0.2.3"}`},
		{"POST", "/v1/ping", "application/json", `{"locator":"192.0.2.9"}`},
	} {
		r := httptest.NewRequest(test.method, "http://roamd"+test.path, strings.NewReader(test.body))
		if test.contentType != "" {
			r.Header.Set("Content-Type", test.contentType)
		}
		route, params, err := router.FindRoute(r)
		if err != nil {
			t.Errorf("%s %s: %v", test.method, test.path, err)
			continue
		}
		input := &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route}
		if err := openapi3filter.ValidateRequest(t.Context(), input); err != nil {
			t.Errorf("%s %s: request: %v", test.method, test.path, err)
		}
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, r)
		err = openapi3filter.ValidateResponse(t.Context(), &openapi3filter.ResponseValidationInput{
			RequestValidationInput: input, Status: answer.Code, Header: answer.Header(), Body: answer.Result().Body,
			Options: &openapi3filter.Options{IncludeResponseStatus: true},
		})
		if err != nil {
			t.Errorf("%s %s: answer %s: %v", test.method, test.path, answer.Body, err)
		}
	}
}

// The document names the kinds of events that there are.
func TestDocumentedKinds(t *testing.T) {
	var documented, known []string
	for _, kind := range document(t).Components.Schemas["Event"].Value.Properties["kind"].Value.Enum {
		documented = append(documented, kind.(string))
	}
	for _, kind := range event.Kinds {
		known = append(known, string(kind))
	}
	equal(t, documented, known)
}

// firstLine decodes the first line of JSON lines: all are of one schema.
func firstLine(body io.Reader, header http.Header, schema *openapi3.SchemaRef, encoding openapi3filter.EncodingFn) (any, error) {
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return openapi3filter.RegisteredBodyDecoder("application/json")(strings.NewReader(line), header, schema, encoding)
}
