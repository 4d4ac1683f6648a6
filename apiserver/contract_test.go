package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	gopath "path"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/postroom/postroom/core/httpd"
)

// contract is the description of the API, against which every answer that a
// test of this package gets is held.
type contract struct {
	mux        *http.ServeMux
	operations map[string]operation // by the mux's pattern
	list       []operation          // by path and method
	codes      []string             // of problems
	document   any
}

// operation is one of the description.
type operation struct {
	method, path string
	parameters   []parameter
	bodies       map[string]map[string]any            // schemas of the body, by media type
	answers      map[string]map[string]*schemaOrOther // by status and media type
}

type parameter struct {
	name, in string
	required bool
	schema   map[string]any
}

// schemaOrOther is the schema of an answer; nil for one that is not JSON.
type schemaOrOther struct{ *jsonschema.Schema }

// theContract is read once: it is the same for every service.
var theContract = sync.OnceValues(func() (*contract, error) {
	mux := http.NewServeMux()
	a, err := service{health: httpd.Health{Version: "test"}, log: zerolog.Nop()}.routes(mux)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(a.huma.OpenAPI())
	if err != nil {
		return nil, err
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource("openapi.json", document); err != nil {
		return nil, err
	}
	c := &contract{mux: mux, operations: map[string]operation{}, document: document}
	for path, item := range object(object(document)["paths"]) {
		for method, op := range object(item) {
			o, err := readOperation(compiler, path, method, object(op), document)
			if err != nil {
				return nil, fmt.Errorf("%s %s: %w", method, path, err)
			}
			pattern := o.method + " " + path
			if path == "/" {
				pattern += "{$}"
			}
			c.operations[pattern] = o
			c.list = append(c.list, o)
		}
	}
	problem := object(object(object(object(document)["components"])["schemas"])["Problem"])
	codes, _ := object(object(problem["properties"])["code"])["enum"].([]any)
	for _, code := range codes {
		c.codes = append(c.codes, fmt.Sprint(code))
	}
	slices.SortFunc(c.list, func(a, b operation) int { return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(a.method, b.method)) })
	return c, nil
})

func object(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

func readOperation(compiler *jsonschema.Compiler, path, method string, op map[string]any, document any) (operation, error) {
	o := operation{method: strings.ToUpper(method), path: path, bodies: map[string]map[string]any{}, answers: map[string]map[string]*schemaOrOther{}}
	list, _ := op["parameters"].([]any)
	for _, p := range list {
		p := object(p)
		required, _ := p["required"].(bool)
		o.parameters = append(o.parameters, parameter{p["name"].(string), p["in"].(string), required, resolve(document, object(p["schema"]))})
	}
	for media, content := range object(object(op["requestBody"])["content"]) {
		o.bodies[media] = resolve(document, object(object(content)["schema"]))
	}
	at := strings.NewReplacer("~", "~0", "/", "~1")
	for status, answer := range object(op["responses"]) {
		o.answers[status] = map[string]*schemaOrOther{}
		for media := range object(object(answer)["content"]) {
			o.answers[status][media] = nil
			if !strings.HasSuffix(media, "json") && media != "text/event-stream" { // of which it is the data of an event
				continue
			}
			s, err := compiler.Compile(fmt.Sprintf("openapi.json#/paths/%s/%s/responses/%s/content/%s/schema", at.Replace(path), method, status, at.Replace(media)))
			if err != nil {
				return o, err
			}
			o.answers[status][media] = &schemaOrOther{s}
		}
	}
	return o, nil
}

// resolve follows a reference within the document.
func resolve(document any, schema map[string]any) map[string]any {
	ref, is := schema["$ref"].(string)
	if !is {
		return schema
	}
	for name := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
		document = object(document)[name]
	}
	return object(document)
}

// breach is what in an answer is not as it is described; "" for nothing.
func (c *contract) breach(method string, path *url.URL, status int, header http.Header, body []byte) string {
	r := &http.Request{Method: method, Host: "localhost", URL: path}
	_, pattern := c.mux.Handler(r)
	o, described := c.operations[pattern]
	if !described || method == http.MethodHead || r.URL.Path != gopath.Clean(r.URL.Path) || // which the mux sends on to where it is clean
		strings.HasPrefix(pattern, "GET "+uiPath) {
		return ""
	}
	media, known := o.answers[fmt.Sprint(status)]
	if !known {
		media, known = o.answers["default"]
	}
	given, _, _ := mime.ParseMediaType(header.Get("Content-Type"))
	schema, has := media[given]
	switch {
	case !known:
		return fmt.Sprintf("%s: status %d is not described", pattern, status)
	case len(media) == 0 && len(body) == 0:
		return ""
	case !has:
		return fmt.Sprintf("%s: status %d as %q is not described", pattern, status, given)
	case schema == nil || given == "text/event-stream":
		return ""
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err == nil {
		err = schema.Validate(v)
	}
	if err != nil {
		return fmt.Sprintf("%s: status %d: %v\n%.2000s", pattern, status, err, body)
	}
	return ""
}

// unsound is what an error lacks that every one has, on whatever address; ""
// for nothing.
func (c *contract) unsound(method string, path *url.URL, status int, header http.Header, body []byte) string {
	if (status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable) && header.Get("Retry-After") == "" {
		return fmt.Sprintf("%s %s: status %d has no Retry-After", method, path, status)
	}
	if status < http.StatusBadRequest || method == http.MethodHead || slices.Contains(probes, path.Path) && status == http.StatusServiceUnavailable {
		return ""
	}
	var p httpd.Problem
	err := json.Unmarshal(body, &p)
	if err != nil || header.Get("Content-Type") != "application/problem+json" || p.Status != status || p.Title == "" || p.Detail == "" ||
		p.RequestID == "" || p.RequestID != header.Get("X-Request-Id") || !slices.Contains(c.codes, p.Code) {
		return fmt.Sprintf("%s %s: status %d: no sound problem: %v %s", method, path, status, header, body)
	}
	return ""
}

// holds fails the test if an answer is not as it is described.
func holds(t testing.TB, method string, path *url.URL, status int, header http.Header, body []byte) {
	t.Helper()
	c, err := theContract()
	if err != nil {
		t.Fatal(err)
	}
	if wrong := c.unsound(method, path, status, header, body); wrong != "" {
		t.Error(wrong)
	}
	if wrong := c.breach(method, path, status, header, body); wrong != "" {
		t.Error(wrong)
	}
}
