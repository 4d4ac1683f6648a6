package main

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/token"
)

// anyTarget is an address of the operation, of which nothing is there.
func (o operation) anyTarget() string {
	target := strings.NewReplacer("{id}", unknownID, "{name}", "none", "{scope}", "key").Replace(o.path)
	for _, p := range o.parameters {
		if p.in == "query" && p.required {
			target += "?" + p.name + "=" + unknownID
		}
	}
	return target
}

// bodies that are fit for the operations which take one and are about
// something that must be there.
var fitBodies = map[string]string{
	"PATCH /v1/accounts/{id}": `{}`, "POST /v1/accounts/{id}/import": `{"path":"/x"}`, "POST /v1/jobs/{id}/steps/{name}/settle": `{"happened":true}`,
	"POST /v1/messages/{id}/actions": `{"action_type":"star"}`, "PUT /v1/rules/{id}": aRule, "PATCH /v1/rules/{id}": `{}`,
}

// What is wrong in the same way is refused in the same way, by whatever
// operation.
func TestEveryOperationRefusesAlike(t *testing.T) {
	t.Parallel()
	const most = 1000
	f := newFixture(t, func(s *service) { s.maxBody, s.maxMessage = most, most })
	c, err := theContract()
	if err != nil {
		t.Fatal(err)
	}
	methods := map[string][]string{}
	for _, o := range c.list {
		methods[o.path] = append(methods[o.path], o.method)
		if o.method == http.MethodGet {
			methods[o.path] = append(methods[o.path], http.MethodHead)
		}
	}
	for _, o := range c.list {
		name, target := o.method+" "+o.path, o.anyTarget()
		expect := func(what string, got answer, status int, code, field string) {
			t.Helper()
			if got.status != status || !strings.Contains(got.raw, `"code":"`+code+`"`) || field != "" && !strings.Contains(got.raw, `"field":"`+field+`"`) {
				t.Errorf("%s: %s: %d %s, want %d %s %s", name, what, got.status, got.raw, status, code, field)
			}
		}
		for media := range o.bodies {
			fit := map[string]string{inJSON: `{}`, inMail: "Subject: x\n\ny", inForm: "token=x"}[media]
			wrong := [][]string{nil, {"text/plain"}, {media, media}, {"/"}}
			if media == inJSON {
				wrong = append(wrong, []string{"application/json; charset=latin1"}, []string{"application/problem+json"})
			}
			for _, types := range wrong {
				var headers []string
				for _, typ := range types {
					headers = append(headers, "Content-Type", typ)
				}
				expect(fmt.Sprintf("Content-Type %q", types), f.call(o.method, target, fit, headers...), 415, "unsupported_media_type", "")
			}
			large := strings.Repeat(" ", max(most, maxLogin)+1)
			expect("a large body", f.call(o.method, target, large, "Content-Type", media), 413, "too_large", "")
			hidden := struct{ io.Reader }{strings.NewReader(large)} // which hides its length
			expect("a large body in chunks", send(t, o.method, f.url+target, hidden, "Content-Type", media), 413, "too_large", "")
			if media == inJSON {
				for body, field := range map[string]string{`{"frobnicate":1}`: "frobnicate", `[]`: "body", `null`: "body"} {
					expect(body, f.call(o.method, target, body, "Content-Type", media), 400, "invalid", field)
				}
				for _, body := range []string{"", "{", "{}{}"} {
					expect(fmt.Sprintf("%q", body), f.call(o.method, target, body, "Content-Type", media), 400, "malformed_json", "body")
				}
				expect("Latin-1", f.call(o.method, target, "{\"a\":\"caf\xe9\"}", "Content-Type", media), 400, "invalid_utf8", "body")
			}
		}
		if strings.HasPrefix(o.path, "/v1/") {
			with := "?frobnicate=1"
			if strings.Contains(target, "?") {
				with = "&frobnicate=1"
			}
			r := sample{path: target + with, body: fitBodies[name]}
			for media := range o.bodies {
				r.media = media
				r.body = map[bool]string{true: r.body, false: "{}"}[r.body != ""]
			}
			expect("an unknown parameter", r.send(f, o.method), 400, "invalid", "frobnicate")
		}
		if strings.Contains(o.path, "{id}") || strings.Contains(o.path, "/cron/{name}") && o.method != http.MethodPut {
			expect("nothing there", sample{path: target, body: fitBodies[name]}.send(f, o.method), 404, "not_found", "")
		}
		if o.method == http.MethodGet && o.path != eventsPath {
			plain, odd := f.get(target), f.call("GET", target, "", "Accept", "application/cbor, image/*;q=0.5")
			if odd.status != plain.status || odd.header.Get("Content-Type") != plain.header.Get("Content-Type") {
				t.Errorf("%s: whoever takes only CBOR gets %d as %s", name, odd.status, odd.header.Get("Content-Type"))
			}
			if head := f.call("HEAD", target, ""); head.status != plain.status || head.raw != "" || head.header.Get("Content-Type") != plain.header.Get("Content-Type") {
				t.Errorf("%s: HEAD gets %d %v %q", name, head.status, head.header, head.raw)
			}
		}
	}
	for path, has := range methods {
		slices.Sort(has)
		target := operation{path: path}.anyTarget()
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FROBNICATE"} {
			if slices.Contains(has, method) {
				continue
			}
			got := f.call(method, target, "")
			if got.status != http.StatusMethodNotAllowed || method != "HEAD" && !strings.Contains(got.raw, `"method_not_allowed"`) || got.header.Get("Allow") != strings.Join(has, ", ") {
				t.Errorf("%s %s: %d %s, Allow %q, want %q", method, path, got.status, got.raw, got.header.Get("Allow"), has)
			}
		}
	}
}

// problems has for each code of a problem a request that is answered with it.
var problems = map[string]func(f *fixture) answer{
	"invalid":        func(f *fixture) answer { return f.get("/v1/jobs?limit=0") },
	"invalid_utf8":   func(f *fixture) answer { return f.get("/v1/jobs/%FF") },
	"malformed_json": func(f *fixture) answer { return f.post("/v1/jobs", "{") },
	"unknown_job":    func(f *fixture) answer { return f.post("/v1/jobs", `{"type":"x","after":["`+unknownID+`"]}`) },
	"timeout":        slowBody,
	"unauthorized":   func(f *fixture) answer { return guarded(f).get("/v1/jobs") },
	"forbidden": func(f *fixture) answer {
		var secrets map[token.Role]string
		f = newFixture(f.t, func(s *service) { secrets = withTokens(f.t, s) })
		return f.call("POST", "/v1/queues/q/pause", "", "Authorization", "Bearer "+secrets[token.Read])
	},
	"too_many_failures": func(f *fixture) answer {
		f = guarded(f)
		for range 10 {
			f.call("GET", "/v1/jobs", "", "Authorization", "Bearer wrong").problem(401, "unauthorized", "")
		}
		return f.call("GET", "/v1/jobs", "", "Authorization", "Bearer wrong")
	},
	"cross_site":       func(f *fixture) answer { return f.call("GET", "/v1/jobs", "", "Origin", "https://evil.example") },
	"host_not_allowed": func(f *fixture) answer { return f.call("GET", "/v1/jobs", "", "Host", "evil.example") },
	"loopback_only": func(f *fixture) answer {
		r := httptest.NewRequestWithContext(f.t.Context(), "GET", "http://localhost/v1/jobs", nil) // its caller is 192.0.2.1
		w := httptest.NewRecorder()
		f.handler.ServeHTTP(w, r)
		return answer{f.t, w.Code, w.Header(), w.Body.String()}
	},
	"not_found":          func(f *fixture) answer { return f.get("/v1/jobs/" + unknownID) },
	"method_not_allowed": func(f *fixture) answer { return f.call("PUT", "/v1/jobs", "") },
	"too_large": func(f *fixture) answer {
		return f.post("/v1/jobs", `{"type":"x","payload":"`+strings.Repeat("x", 1<<20)+`"}`)
	},
	"unsupported_media_type": func(f *fixture) answer { return f.call("POST", "/v1/jobs", "{}") },
	"invalid_state":          func(f *fixture) answer { return f.call("POST", "/v1/jobs/"+f.enqueue("x", "q")+"/retry", "") },
	"key_in_use": func(f *fixture) answer {
		const held = `{"type":"x","idempotency_key":"k","key_scope":"active"}`
		id := f.post("/v1/jobs", held).is(201)["id"].(string)
		f.call("POST", "/v1/jobs/"+id+"/cancel", "").is(200)
		f.post("/v1/jobs", held).is(201)
		return f.call("POST", "/v1/jobs/"+id+"/retry", "")
	},
	"id_in_use": func(f *fixture) answer {
		f.post("/v1/jobs", `{"type":"x","id":"`+unknownID+`"}`).is(201)
		return f.post("/v1/jobs", `{"type":"y","id":"`+unknownID+`"}`)
	},
	"email_in_use": func(f *fixture) answer { f.account("me@example.com"); return f.post("/v1/accounts", anAccount) },
	"not_undoable": func(f *fixture) answer {
		r := acted("delete", "", "")(f)
		f.call("POST", r.path+"/approve", "").is(200)
		f.exec("UPDATE actions SET status = 'executing'")
		f.exec("UPDATE actions SET status = 'completed'")
		return f.call("POST", r.path+"/undo", "")
	},
	"idempotency_key_reused": func(f *fixture) answer {
		f.call("POST", "/v1/queues/a/pause", "", keyHeader, "k").is(200)
		return f.call("POST", "/v1/queues/b/pause", "", keyHeader, "k")
	},
	"request_under_way":    func(f *fixture) answer { return pausedAgain(f, "NULL") },
	"outcome_unknown":      func(f *fixture) answer { return pausedAgain(f, "0") },
	"internal":             failed(libsql.Corrupt),
	"database_busy":        failed(libsql.Busy),
	"database_unavailable": failed(libsql.Unavailable),
	"database_full":        failed(libsql.Full),
	"database_timeout":     failed(libsql.Canceled),
	"database_unknown":     failed(libsql.Unknown),
	"shutting_down":        failed(libsql.Closed),
}

func guarded(f *fixture) *fixture {
	f.t.Helper()
	return newFixture(f.t, func(s *service) { s.tokens = token.NewKeyring("configured") })
}

func failed(class libsql.Class) func(*fixture) answer {
	return func(f *fixture) answer {
		f.db.fail(class)
		return f.post("/v1/jobs", `{"type":"x"}`)
	}
}

// pausedAgain repeats a request whose status is set to what it is before there
// is an answer.
func pausedAgain(f *fixture, status string) answer {
	f.t.Helper()
	f.call("POST", "/v1/queues/a/pause", "", keyHeader, "k").is(200)
	f.exec("UPDATE request_keys SET answer = NULL, status = " + status)
	return f.call("POST", "/v1/queues/a/pause", "", keyHeader, "k")
}

// slowBody sends a part of a body and no more.
func slowBody(f *fixture) answer {
	server := httptest.NewUnstartedServer(f.handler)
	server.Config.ReadTimeout = 50 * time.Millisecond
	server.Start()
	f.t.Cleanup(server.Close)
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		f.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"); err != nil {
		f.t.Fatal(err)
	}
	got, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		f.t.Fatal(err)
	}
	raw, err := io.ReadAll(got.Body)
	_ = got.Body.Close() // it was read to its end
	if err != nil {
		f.t.Fatal(err)
	}
	return answer{f.t, got.StatusCode, got.Header, string(raw)}
}

// Every code of a problem is in the table of docs/api.md with its status, is
// in the description, and comes when it should.
func TestEveryProblemIsDocumentedAndComes(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	c, err := theContract()
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| (\\d{3}) \\| `(\\w+)` \\| .{10,} \\|$").FindAllStringSubmatch(string(page), -1) {
		documented[row[2]] = row[1]
	}
	if told, made := slices.Sorted(maps.Keys(documented)), slices.Sorted(maps.Keys(problems)); !slices.Equal(told, made) || !slices.Equal(told, slices.Sorted(slices.Values(c.codes))) {
		t.Errorf("docs/api.md has\n%v, the description\n%v, and made are\n%v", told, slices.Sorted(slices.Values(c.codes)), made)
	}
	for code, provoke := range problems {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			got := provoke(newFixture(t))
			if fmt.Sprint(got.status) != documented[code] || !strings.Contains(got.raw, `"code":"`+code+`"`) {
				t.Errorf("got %d %s, documented is %s", got.status, got.raw, documented[code])
			}
			r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
			if wrong := c.unsound(r.Method, r.URL, got.status, got.header, []byte(got.raw)); wrong != "" {
				t.Error(wrong)
			}
		})
	}
}
