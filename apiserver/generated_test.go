package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/mail"
)

// generator makes requests from the description: valid ones, ones that are
// nearly valid, and hostile ones.
type generator struct {
	*rand.Rand
	document any
	ids      []string
}

var (
	hostile = []string{"", " ", "\x00", "\xff", "%", "../../x", "' OR 1=1 --", "<script>", "\u202e", "2024-01-02", "null", "[]", "{}", "-1", "9223372036854775808", "1e999", "NaN", "*", "\r\nX: y", strings.Repeat("x", 300), strings.Repeat("é", 3000), "🦆"}
	likely  = []string{"debug.echo", "q", "k", "7", "30s", "1h", "me@example.com", "@daily", "0 3 * * *", "UTC", "star", "archive", "global", "user.id=7", "queued", "failed", "maildir", "/var/mail/x", "hello", "Re: hello", "2026-01-02T03:04:05Z", "true"}
)

func pickOne[T any](g *generator, list []T) T { return list[g.IntN(len(list))] }

// text is a string that fits a schema, or does not.
func (g *generator) text(schema map[string]any) string {
	values, _ := schema["enum"].([]any)
	switch n := g.IntN(20); {
	case n == 0:
		return pickOne(g, hostile)
	case len(values) > 0 && n < 18:
		return fmt.Sprint(pickOne(g, values))
	case schema["format"] == "date-time" && n < 18:
		return time.UnixMilli(g.Int64N(4e12)).UTC().Format(time.RFC3339)
	case schema["format"] == "uuid" || n < 5:
		return pickOne(g, g.ids)
	}
	return pickOne(g, likely)
}

// value is what fits a schema, or does not.
func (g *generator) value(schema map[string]any, depth int) any {
	schema = resolve(g.document, schema)
	kind := schema["type"]
	if several, is := kind.([]any); is {
		kind = pickOne(g, several)
	}
	if g.IntN(25) == 0 || kind == nil {
		kind = pickOne(g, []any{"string", "integer", "boolean", "object", "array", "null"})
	}
	switch kind {
	case "string":
		return g.text(schema)
	case "integer", "number":
		return pickOne(g, []any{0, 1, 5, 50, 200, -1, 1 << 40, 1.5, json.Number("99999999999999999999")})
	case "boolean":
		return g.IntN(2) == 0
	case "array":
		list := []any{}
		for range g.IntN(4) {
			if depth < 5 {
				list = append(list, g.value(object(schema["items"]), depth+1))
			}
		}
		return list
	case "object":
		fields := map[string]any{}
		required, _ := schema["required"].([]any)
		for name, s := range object(schema["properties"]) {
			must := slices.Contains(required, any(name))
			if depth < 5 && (must && g.IntN(20) > 0 || !must && g.IntN(3) == 0) {
				fields[name] = g.value(object(s), depth+1)
			}
		}
		if g.IntN(30) == 0 || len(fields) == 0 && depth > 0 {
			fields[pickOne(g, append([]string{"op", "path", "folder", "label"}, hostile...))] = g.text(nil)
		}
		return fields
	}
	return nil
}

// request is one call of an operation.
func (g *generator) request(o operation, base string) (method, target string, header http.Header, body []byte) {
	path, query, header := o.path, url.Values{}, http.Header{}
	for _, p := range o.parameters {
		switch {
		case p.in == "path":
			v := g.text(p.schema)
			if p.name == "id" && g.IntN(10) > 0 {
				v = pickOne(g, g.ids)
			}
			path = strings.ReplaceAll(path, "{"+p.name+"}", url.PathEscape(v))
		case !p.required && g.IntN(4) > 0:
		case p.in == "query":
			for range 1 + g.IntN(20)/19 {
				query.Add(p.name, fmt.Sprint(g.scalar(p.schema)))
			}
		case p.in == "header":
			header.Set(p.name, strings.Map(func(r rune) rune {
				if r < ' ' || r == 0x7f {
					return -1
				}
				return r
			}, g.text(p.schema)))
		}
	}
	if g.IntN(40) == 0 {
		query.Set(pickOne(g, hostile), pickOne(g, hostile))
	}
	for media, schema := range o.bodies {
		header.Set("Content-Type", media)
		switch {
		case strings.HasSuffix(media, "json"):
			body, _ = json.Marshal(g.value(schema, 0)) // what was made can be encoded
			if g.IntN(20) == 0 && len(body) > 0 {
				body[g.IntN(len(body))] = byte(g.IntN(256))
			}
		case media == "application/x-www-form-urlencoded":
			body = []byte("token=" + url.QueryEscape(g.text(nil)))
		default:
			body = []byte("Subject: " + g.text(nil) + "\r\n\r\n" + g.text(nil))
		}
	}
	if g.IntN(50) == 0 {
		header.Set("Content-Type", pickOne(g, []string{"text/plain", "", "application/json; charset=latin1"}))
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return o.method, base + path, header, body
}

func (g *generator) scalar(schema map[string]any) any {
	switch schema["type"] {
	case "integer":
		return pickOne(g, []any{1, 50, 200, 0, 201, "x"})
	case "boolean":
		return pickOne(g, []any{true, false, "maybe"})
	}
	return g.text(schema)
}

// learn keeps the ids of what an answer shows, to ask for it later.
func (g *generator) learn(body []byte) {
	var one struct{ ID string }
	if json.Unmarshal(body, &one) == nil && job.IsUUID(one.ID) {
		if len(g.ids) > 200 {
			g.ids = slices.Delete(g.ids, 0, 100)
		}
		g.ids = append(g.ids, one.ID)
	}
}

// Whatever the description allows, nearly allows or does not, no answer has a
// status of 5xx, every one comes in time and is as described, and at the end
// the database keeps its rules. POSTROOM_API_FUZZ is for how long, such as 10m.
func TestRequestsMadeFromTheDescription(t *testing.T) {
	t.Parallel()
	s, _ := newService(t, &safeBuffer{})
	handler, err := newHandler(s)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	c, err := theContract()
	if err != nil {
		t.Fatal(err)
	}
	account, err := s.mail.CreateAccount(t.Context(), mail.NewAccount{Provider: "maildir", Email: "first@example.com", Config: json.RawMessage(`{"path":"/var/mail/me"}`)})
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(7)
	rounds, until := 12, time.Time{}
	if given := os.Getenv("POSTROOM_API_FUZZ"); given != "" {
		d, err := time.ParseDuration(given)
		if err != nil {
			t.Fatal(err)
		}
		seed, until = uint64(time.Now().UnixNano()), time.Now().Add(d) //nolint:gosec // after 1970
	}
	t.Logf("seed %d", seed)
	g := &generator{Rand: rand.New(rand.NewPCG(seed, seed)), document: c.document, ids: []string{account.ID}} //nolint:gosec // repeatable
	client := &http.Client{Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(client.CloseIdleConnections)
	sent, fine, slowest := 0, map[string]int{}, time.Duration(0)
	for round := 0; round < rounds || time.Now().Before(until); round++ {
		for _, o := range c.list {
			if o.path == eventsPath {
				continue // an answer without an end: FuzzAPI has it
			}
			method, target, header, body := g.request(o, server.URL)
			r, err := http.NewRequestWithContext(t.Context(), method, target, bytes.NewReader(body))
			if err != nil {
				continue // nothing that a client would send
			}
			r.Header = header
			begin := time.Now()
			res, err := client.Do(r)
			if err != nil {
				t.Fatalf("%s %s %q: %v", method, target, body, err)
			}
			var answer bytes.Buffer
			_, err = answer.ReadFrom(res.Body)
			_ = res.Body.Close() // it was read to its end
			if err != nil {
				t.Fatalf("%s %s: %v", method, target, err)
			}
			slowest = max(slowest, time.Since(begin))
			sent++
			if res.StatusCode >= http.StatusInternalServerError {
				t.Errorf("%s %s %q: %d %s", method, target, body, res.StatusCode, &answer)
			}
			if res.StatusCode < http.StatusBadRequest {
				fine[o.method+" "+o.path]++
			}
			holds(t, method, r.URL, res.StatusCode, res.Header, answer.Bytes())
			if t.Failed() {
				t.Fatalf("seed %d, request %d: %s %s %q", seed, sent, method, target, body)
			}
			g.learn(answer.Bytes())
		}
	}
	t.Logf("%d requests, %d of %d operations with success, the slowest answer after %v", sent, len(fine), len(c.list)-1, slowest)
	rep, err := s.queue.Verify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range rep.Violations {
		t.Errorf("%s: %s: %s", v.Rule, v.What, v.Detail)
	}
}
