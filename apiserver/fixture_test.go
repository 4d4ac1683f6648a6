package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/config"
	"github.com/postroom/postroom/core/httpd"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/libsql/sqldtest"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/once"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
)

// asProgram makes the test binary be apiserver, for tests of the process.
const asProgram = "APISERVER_TEST_RUNS_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// fixture is the API over a fresh database, behind a real listener.
type fixture struct {
	t     *testing.T
	url   string
	place sqldtest.Place // of the database
	queue *queue.Queue
	db    *failing
	log   *safeBuffer

	handler http.Handler
}

// failing is a database that fails while it is told to.
type failing struct {
	libsql.DB
	reads, writes atomic.Pointer[libsql.Error]
}

// fail makes every call fail; with "" none any more.
func (d *failing) fail(class libsql.Class) {
	var err *libsql.Error
	if class != "" {
		err = &libsql.Error{Class: class}
	}
	d.reads.Store(err)
	d.writes.Store(err)
}

func (d *failing) Read(ctx context.Context, stmts ...libsql.Stmt) ([]libsql.Result, error) {
	if err := d.reads.Load(); err != nil {
		return nil, err
	}
	return d.DB.Read(ctx, stmts...)
}

func (d *failing) Write(ctx context.Context, b *libsql.Batch) ([]libsql.Result, error) {
	if err := d.writes.Load(); err != nil {
		return nil, err
	}
	return d.DB.Write(ctx, b)
}

func (d *failing) Merge(ctx context.Context, op *libsql.Op, items ...[]byte) ([]libsql.Row, error) {
	if err := d.writes.Load(); err != nil {
		return nil, err
	}
	return d.DB.Merge(ctx, op, items...)
}

// safeBuffer is a log that tests read while it is written.
type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// newService is the API's part over a fresh database, and that one's place.
func newService(t testing.TB, log io.Writer) (s service, place sqldtest.Place) {
	t.Helper()
	place = sqldtest.NewPlace(t)
	opt := libsql.Options{Path: place.Path, Synchronous: "normal"}
	if err := libsql.Migrate(t.Context(), opt); err != nil {
		t.Fatal(err)
	}
	opened, err := libsql.Open(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	db := &failing{DB: opened}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := db.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	q := queue.New(noting{db}, system.Real{}, job.Known())
	events := queue.NewEvents(q, func(error) {})
	t.Cleanup(events.Close)
	return service{
		queue: q, events: events, heartbeat: heartbeat, mail: mail.NewStore(noting{db}, q, mail.Policy{ApprovalExpiry: time.Hour}), answers: once.Store{DB: db}, log: zerolog.New(log),
		health:   httpd.Health{DB: db, Version: "test", Draining: func() bool { return false }},
		metrics:  http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("up 1\n")) }), // TestPrometheusReadsTheMetrics has the real page
		settings: config.Settings{Settings: []config.Shown{}},
		maxBody:  32 << 20, maxMessage: mail.MaxMessage,
	}, place
}

func newFixture(t *testing.T, change ...func(*service)) *fixture {
	t.Helper()
	log := &safeBuffer{}
	s, place := newService(t, log)
	for _, c := range change {
		c(&s)
	}
	h, err := newHandler(s)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return &fixture{t: t, url: server.URL, place: place, queue: s.queue, db: s.answers.DB.(*failing), log: log, handler: h}
}

// answer is what came back.
type answer struct {
	t      *testing.T
	status int
	header http.Header
	raw    string
}

// call sends a request; headers are names and values in turn.
func (f *fixture) call(method, path, body string, headers ...string) answer {
	f.t.Helper()
	return send(f.t, method, f.url+path, strings.NewReader(body), headers...)
}

// post sends JSON.
func (f *fixture) post(path, body string) answer {
	f.t.Helper()
	return f.call("POST", path, body, "Content-Type", "application/json")
}

// put sends JSON.
func (f *fixture) put(path, body string) answer {
	f.t.Helper()
	return f.call("PUT", path, body, "Content-Type", "application/json")
}

func (f *fixture) get(path string) answer {
	f.t.Helper()
	return f.call("GET", path, "")
}

func send(t *testing.T, method, url string, body io.Reader, headers ...string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
			continue
		}
		r.Header.Add(headers[i], headers[i+1])
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	got, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	raw, err := io.ReadAll(got.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got.Header.Get("Content-Encoding") == "" {
		holds(t, method, r.URL, got.StatusCode, got.Header, raw)
	}
	return answer{t, got.StatusCode, got.Header, string(raw)}
}

// is checks the status and decodes the body.
func (a answer) is(status int) map[string]any {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("status %d, want %d: %s", a.status, status, a.raw)
	}
	var v map[string]any
	if a.raw != "" {
		if err := json.Unmarshal([]byte(a.raw), &v); err != nil {
			a.t.Fatalf("%v: %s", err, a.raw)
		}
	}
	return v
}

// problem checks that the answer is a whole problem about a field; "" for
// none.
func (a answer) problem(status int, code, field string) {
	a.t.Helper()
	p := a.is(status)
	if ct := a.header.Get("Content-Type"); ct != "application/problem+json" {
		a.t.Errorf("Content-Type is %s", ct)
	}
	if p["code"] != code {
		a.t.Errorf("code is %v, want %s: %s", p["code"], code, a.raw)
	}
	if p["type"] != "about:blank" || p["title"] == "" || p["status"] != float64(status) || p["detail"] == "" || p["request_id"] != a.header.Get("X-Request-Id") {
		a.t.Errorf("the problem is not whole: %s", a.raw)
	}
	got := ""
	if list, ok := p["errors"].([]any); ok && len(list) > 0 {
		got, _ = list[0].(map[string]any)["field"].(string)
	}
	if got != field {
		a.t.Errorf("the field is %q, want %q: %s", got, field, a.raw)
	}
}
