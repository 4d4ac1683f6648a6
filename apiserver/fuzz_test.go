package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/httpd"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/token"
)

const (
	fuzzToken   = "open-sesame-0123456789-open-sesame"
	fuzzOrigin  = "https://mail.example"
	fuzzJob     = "0193f1a0-8c5e-7abc-8def-0123456789ab"
	fuzzAccount = "ACCOUNT" // stands for the id of an account in a target
)

// Whatever is asked of the API, it answers in JSON: never with status 5xx, with
// a problem and its code where it refuses, with nothing but 401 to callers
// without the token, which neither an answer nor the log ever repeats.
func FuzzAPI(f *testing.F) {
	log := &safeBuffer{}
	s, _ := newService(f, log)
	s.tokens, s.origins = token.NewKeyring(fuzzToken), []string{fuzzOrigin}
	handler, err := newHandler(s)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := s.queue.Enqueue(f.Context(), job.New{ID: fuzzJob, Type: job.DebugEcho}); err != nil {
		f.Fatal(err)
	}
	account, err := s.mail.CreateAccount(f.Context(), mail.NewAccount{Provider: "maildir", Email: "me@example.com", Config: json.RawMessage(`{"path":"/var/mail/me"}`)})
	if err != nil {
		f.Fatal(err)
	}
	routes, err := s.routes(http.NewServeMux())
	if err != nil {
		f.Fatal(err)
	}
	seeds(f, routes.patterns)

	f.Fuzz(func(t *testing.T, method, target, headers string, body []byte) {
		target = strings.ReplaceAll(target, fuzzAccount, account.ID)
		for _, token := range []string{"", fuzzToken} {
			r := request(method, target, headers, token, body)
			if r == nil {
				return // nothing that a server would hand on
			}
			log.take()
			ctx, leave := context.WithCancel(r.Context())
			w := &leaving{httptest.NewRecorder(), leave}
			handler.ServeHTTP(w, r.WithContext(ctx))
			leave()
			answered(t, r, w.ResponseRecorder, token)
			logged(t, log.take())
		}
		forget(t, s.queue.DB(), account.ID)
	})
}

// leaving is a caller who has seen enough as soon as a part of the answer is
// sent: a stream has no end.
type leaving struct {
	*httptest.ResponseRecorder
	leave func()
}

func (l *leaving) Flush() {
	l.ResponseRecorder.Flush()
	l.leave()
}

// placeholder is a part of a path that the caller fills in.
var placeholder = regexp.MustCompile(`\{[^}]+\}`)

func seeds(f *testing.F, patterns []string) {
	const inJSON, inMail = "Content-Type: application/json\r\n", "Content-Type: message/rfc822\r\n"
	for _, p := range patterns {
		method, path, _ := strings.Cut(p, " ")
		f.Add(method, placeholder.ReplaceAllString(path, fuzzJob), inJSON, []byte(`{}`))
	}
	for _, body := range []string{
		`{"type":"debug.echo","payload":{"a":"2024-01-02"},"idempotency_key":"k","key_scope":"until","key_ttl":"1h","limit_key":"l","priority":5,"max_attempts":3,"queue":"q","delay":"30s"}`,
		`{"type":"x","id":"0193f1a0-8c5e-7abc-8def-0123456789ab","not_before":"9999-12-31T23:59:59-14:00"}`, `{"type":"x","not_before":"0001-01-01T00:00:00Z"}`,
		"{\"type\":\"caf\xe9\"}", `{"type":"\u0000"}`, `{"type":"\ud800"}`, `{"type":1}`, `{"type":"x","type":"y"}`, `{"Type":"x"}`, `{"type":"x","secret-field":1}`, `{"type":"x","priority":1e2}`,
		`{"type":"x","delay":"-1s"}`, `{"type":"x","delay":"2562047h"}`, `[]`, `null`, ``, `{`, `{}{}`, `"x"`, strings.Repeat(`{"payload":[`, 600), `{"type":"x","payload":` + strings.Repeat("[", 600) + strings.Repeat("]", 600) + `}`,
	} {
		f.Add("POST", "/v1/jobs", inJSON, []byte(body))
	}
	f.Add("POST", "/v1/jobs", inJSON+"Idempotency-Key: caf\xe9\r\n", []byte(`{"type":"x"}`))
	f.Add("POST", "/v1/jobs", "Content-Type: application/json; charset=latin1\r\n", []byte(`{"type":"x"}`))
	f.Add("POST", "/v1/jobs", inJSON+"Content-Encoding: gzip\r\nExpect: 100-continue\r\nTraceparent: 00-x\r\n", []byte("\x1f\x8b"))
	f.Add("POST", "/v1/jobs:batch", inJSON, []byte(`{"jobs":[{"type":"x"},{"type":"y","id":"1"}]}`))
	f.Add("POST", "/v1/jobs:batch", inJSON, []byte(`{"jobs":[{"type":"x","idempotency_key":"a"},{"type":"x","idempotency_key":"a"}]}`))
	f.Add("POST", "/v1/messages?account="+fuzzAccount, inMail, []byte("From: a@b\n\ncaf\xe9\x00"))
	f.Add("POST", "/v1/messages?account="+fuzzAccount+"&account=x", inMail, []byte("x"))
	f.Add("POST", "/v1/accounts", inJSON, []byte(`{"provider":"maildir","email":"you@example.com","display_name":"\u0000","config":{"path":"/\u00e9","queue":"q"}}`))
	f.Add("POST", "/v1/accounts", inJSON, []byte(`{"provider":"maildir","email":"a@b","config":{"path":"/x","path":"/y"}}`))
	f.Add("POST", "/v1/rules", inJSON, []byte(aRule))
	f.Add("POST", "/login", "Content-Type: "+inForm+"\r\nCookie: "+httpd.CookieName+"=%\r\n", []byte("token=a&token="+fuzzToken[:9]))
	f.Add("GET", "/ui/x", "", []byte{})
	f.Add("GET", "/ui/../v1/jobs", "Cookie: "+httpd.CookieName+"=\"a\\\"\r\n", []byte{})
	f.Add("POST", "/ui/login?wrong=1", "Origin: null\r\n", []byte{})
	f.Add("POST", "/v1/rules", inJSON, []byte(`{"name":"\u0000","scope":"sender","scope_ref":"a@b","conditions":{"op":"subject_regex","value":"("},"action_type":"move","action_parameters":{"folder":"../x"}}`))
	for _, target := range []string{
		"/v1/events?last_event_id=%0A&type=x", "/v1/events?x=1", "/v1/limits/key/*", "/v1/limits/x/y",
		"/v1/jobs?limit=0&state=x&cursor=%FF", "/v1/jobs?key=%00", "/v1/jobs?limit=9999999999999999999999", "/v1/jobs?state=queued&state=running", "/v1/jobs?x=1", "/v1/jobs?limit=%",
		"/v1/jobs?cursor=AAAAAAAAAAE", "/v1/jobs?key='%3B--", "//v1/jobs", "/v1/../v1/jobs", "/v1/jobs/", "/v1/jobs/%2e%2e", "/v1/jobs/a%2Fb", "/v1/jobs/%FF", "/v1/jobs/%00", "/%2e", "/v1/jobs/" + strings.Repeat("x", 5000),
		"http://other.example/v1/jobs", "*", "/v1/messages/x", "/v1/actions?status=queued&message=x", "/healthz?x=1", "/healthz/", "/openapi.json", "/v1/queues;x", "/v1/queues?a;b",
	} {
		f.Add("GET", target, "", []byte{})
	}
	for _, method := range []string{"HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "get", "\xff", "X", strings.Repeat("X", 3000)} {
		f.Add(method, "/v1/jobs", "Origin: "+fuzzOrigin+"\r\nAccess-Control-Request-Method: POST\r\n", []byte{})
	}
	for _, headers := range []string{
		"Host: \r\n", "Host: evil.example\r\nOrigin: null\r\nSec-Fetch-Site: cross-site\r\n", "X-Request-Id: \"><script>\r\n", "Accept: application/cbor\r\n", "Accept: application/json+x;q=0\r\n", "Accept-Language: \xff\r\n",
		"Transfer-Encoding: chunked\r\n", "Content-Length: 9\r\n", "Range: bytes=0-1\r\nIf-None-Match: *\r\n", "Connection: upgrade\r\nUpgrade: websocket\r\n", "X-Forwarded-For: ::1\r\n", "Prefer: return=minimal\r\n",
	} {
		f.Add("GET", "/v1/jobs", headers, []byte("x"))
	}
}

// request is what a server would make of these bytes; nil for what it refuses
// by itself.
func request(method, target, headers, token string, body []byte) *http.Request {
	var raw bytes.Buffer
	fmt.Fprintf(&raw, "%s %s HTTP/1.1\r\n%s", method, target, headers)
	if !strings.Contains(strings.ToLower(headers), "host:") {
		raw.WriteString("Host: localhost\r\n")
	}
	if token != "" {
		fmt.Fprintf(&raw, "Authorization: Bearer %s\r\n", token)
	}
	fmt.Fprintf(&raw, "Content-Length: %d\r\n\r\n%s", len(body), body)
	r, err := http.ReadRequest(bufio.NewReader(&raw))
	want := ""
	if token != "" {
		want = "Bearer " + token
	}
	if err != nil || strings.Join(r.Header.Values("Authorization"), ", ") != want {
		return nil
	}
	for name, values := range r.Header {
		if strings.ContainsFunc(name+strings.Join(values, ""), func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
			return nil
		}
	}
	r.RemoteAddr = "192.0.2.1:1234"
	return r
}

var aCode = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// answered checks what every answer must be.
func answered(t *testing.T, r *http.Request, w *httptest.ResponseRecorder, token string) {
	t.Helper()
	body, what := w.Body.Bytes(), r.Method+" "+r.RequestURI
	probe := slices.Contains(probes, r.URL.Path) && (r.Method == "GET" || r.Method == "HEAD")
	switch status := w.Code; {
	case probe && (status == http.StatusOK || status == http.StatusServiceUnavailable) && json.Valid(body): // a slow disk is no mistake
	case status >= 500:
		t.Fatalf("%s: status %d: %s", what, status, body)
	case status >= 400:
		var p struct {
			Type, Title, Detail, Code string
			Status                    int
			RequestID                 string `json:"request_id"`
		}
		if err := json.Unmarshal(body, &p); err != nil || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Fatalf("%s: no problem: %s %s, %v", what, w.Header().Get("Content-Type"), body, err)
		}
		if !aCode.MatchString(p.Code) || p.Status != status || p.Title == "" || p.Detail == "" || p.Type == "" || p.RequestID == "" || p.RequestID != w.Header().Get("X-Request-Id") {
			t.Errorf("%s: the problem is not whole: %s", what, body)
		}
	case status >= 300: // net/http's own, to the same path cleaned
		if to := w.Header().Get("Location"); !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") {
			t.Errorf("%s: sent on to %q", what, to)
		}
	case r.URL.Path == "/metrics" && strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain"):
	case r.URL.Path == eventsPath && w.Header().Get("Content-Type") == "text/event-stream":
	case len(body) > 0 && (!json.Valid(body) || w.Header().Get("Content-Type") != "application/json"):
		t.Errorf("%s: status %d: no JSON: %s %s", what, status, w.Header().Get("Content-Type"), body)
	}
	preflight := r.Method == "OPTIONS" && r.Header.Get("Origin") == fuzzOrigin && r.Header.Get("Access-Control-Request-Method") != ""
	page := strings.HasPrefix(r.URL.Path, uiPath) && (r.Method == "GET" || r.Method == "HEAD")
	free := r.Method == "POST" && (r.URL.Path == loginPath || r.URL.Path == logoutPath) || r.Method == "GET" && r.URL.Path == "/"
	if token == "" && w.Code != http.StatusUnauthorized && !preflight && !probe && !page && !free {
		t.Errorf("%s: status %d without a token", what, w.Code)
	}
	if token != "" && w.Code == http.StatusUnauthorized {
		t.Errorf("%s: refused with the token", what)
	}
	for name, values := range w.Header() {
		if strings.ContainsAny(strings.Join(values, ""), "\r\n\x00") {
			t.Errorf("%s: header %s is %q", what, name, values)
		}
	}
	if head := fmt.Sprint(w.Header()); bytes.Contains(body, []byte(fuzzToken)) || strings.Contains(head, fuzzToken) {
		t.Errorf("%s: the answer repeats the token: %s %s", what, head, body)
	}
	if w.Header().Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(w.Header().Get("Cache-Control"), "no-store") {
		t.Errorf("%s: not every header is there: %v", what, w.Header())
	}
}

// logged checks that a request is one line of fields that were all chosen.
func logged(t *testing.T, log string) {
	t.Helper()
	for line := range strings.Lines(log) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		for name := range fields {
			if !slices.Contains([]string{"level", "message", "method", "route", "status", "duration_ms", "bytes", "request_id", "trace_id", "span_id", "caller", "operation", "path", "state", "type", "queue", "ids", "changed", "replayed"}, name) {
				t.Errorf("the log says %s: %s", name, line)
			}
		}
		if len(line) > 2000 {
			t.Errorf("a request fills %d bytes of the log", len(line))
		}
	}
	if n := strings.Count(log, "\n") - strings.Count(log, `"message":"change made by hand"`); n != 1 {
		t.Errorf("%d lines for one request: %s", n, log)
	}
}

// forget keeps the database small and each input alone.
func forget(t *testing.T, db libsql.DB, account string) {
	t.Helper()
	var b libsql.Batch
	b.Exec("DELETE FROM jobs WHERE id <> ?", fuzzJob)
	b.Exec("DELETE FROM accounts WHERE id <> ?", account)
	for _, table := range []string{"job_keys", "deterministic_rules"} {
		b.Exec("DELETE FROM " + table)
	}
	if _, err := db.Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
}

func (b *safeBuffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	text := b.buf.String()
	b.buf.Reset()
	return text
}
