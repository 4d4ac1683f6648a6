package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
)

// listener is a caller of GET /v1/events.
type listener struct {
	t      *testing.T
	header http.Header
	body   *bufio.Scanner
	leave  func()
	lastID string
}

// block is what stands between two empty lines of a stream.
type block struct{ id, event, data, comment string }

// follow connects; headers are names and values in turn.
func follow(t *testing.T, address string, headers ...string) *listener {
	t.Helper()
	return followWith(t, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, address, headers...)
}

func followWith(t *testing.T, client *http.Client, address string, headers ...string) *listener {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, "GET", address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	got, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { got.Body.Close() })
	if got.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(got.Body)
		t.Fatalf("status %d: %s", got.StatusCode, body)
	}
	return &listener{t: t, header: got.Header, body: bufio.NewScanner(got.Body), leave: cancel}
}

// next reads a block; ok is false at the end of the stream.
func (l *listener) next() (b block, ok bool) {
	l.t.Helper()
	for l.body.Scan() {
		line := l.body.Text()
		if line == "" {
			if b.id != "" {
				l.lastID = b.id
			}
			return b, true
		}
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "id":
			b.id = value
		case "event":
			b.event = value
		case "data":
			b.data = value
		case "":
			b.comment = value
		default:
			l.t.Fatalf("a line is %q", line)
		}
	}
	return b, false
}

// event reads to the next block that has one.
func (l *listener) event() block {
	l.t.Helper()
	for {
		b, ok := l.next()
		if !ok {
			l.t.Fatalf("the stream ended: %v", l.body.Err())
		}
		if b.event != "" {
			return b
		}
	}
}

// jobs reads n events of jobs: the ids of their jobs with their states.
func (l *listener) jobs(n int) []string {
	l.t.Helper()
	out := make([]string, n)
	for i := range out {
		b := l.event()
		var e queue.Event
		if err := json.Unmarshal([]byte(b.data), &e); err != nil || b.event != "job" {
			l.t.Fatalf("got %+v, %v", b, err)
		}
		out[i] = e.JobID + " " + string(e.State)
	}
	return out
}

// begin reads the blocks with which a stream from the present begins.
func (l *listener) begin() {
	l.t.Helper()
	if b, ok := l.next(); !ok || b.comment == "" {
		l.t.Fatalf("it begins with %+v", b)
	}
	if b, ok := l.next(); !ok || b.id == "" || b.event != "" {
		l.t.Fatalf("it goes on with %+v", b)
	}
}

func (f *fixture) follow(query string, headers ...string) *listener {
	f.t.Helper()
	return follow(f.t, f.url+"/v1/events"+query, headers...)
}

// enqueue stores a job and returns its id.
func (f *fixture) enqueue(typ, name string) string {
	f.t.Helper()
	return f.post("/v1/jobs", fmt.Sprintf(`{"type":%q,"queue":%q}`, typ, name)).is(201)["id"].(string)
}

var eventID = regexp.MustCompile(`^[0-9a-f]{16}-[1-9][0-9]*$`)

func TestEventsFollowTheJobs(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.enqueue("before", "q")
	l := f.follow("")
	for name, want := range map[string]string{
		"Content-Type": "text/event-stream", "Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no", "Content-Length": "", "Content-Encoding": "",
		"X-Content-Type-Options": "nosniff",
	} {
		if got := l.header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	l.begin()
	start := l.lastID
	id := f.enqueue("x", "q")
	b := l.event()
	if b.event != "job" || !eventID.MatchString(b.id) {
		t.Errorf("got %+v", b)
	}
	var data map[string]any
	if err := json.Unmarshal([]byte(b.data), &data); err != nil {
		t.Fatal(err)
	}
	at, _ := data["at"].(string)
	if keys := slices.Sorted(maps.Keys(data)); strings.Join(keys, " ") != "at job_id queue run state type" || !stamp.MatchString(at) ||
		data["job_id"] != id || data["type"] != "x" || data["queue"] != "q" || data["state"] != "queued" || data["run"] != 0.0 {
		t.Errorf("got %s", b.data)
	}
	f.post("/v1/jobs/"+id+"/cancel", "").is(200)
	if got := l.jobs(1); got[0] != id+" canceled" {
		t.Errorf("got %s", got)
	}
	end := l.lastID
	l.leave()
	both := []string{id + " queued", id + " canceled"}

	t.Run("and again from an id, in the header or the query", func(t *testing.T) {
		t.Parallel()
		for _, l := range []*listener{
			follow(t, f.url+eventsPath, "Last-Event-ID", start),
			follow(t, f.url+eventsPath+"?last_event_id="+start),
			follow(t, f.url+eventsPath+"?last_event_id="+end, "Last-Event-ID", start), // the header is the newer one
		} {
			if got := l.jobs(2); !slices.Equal(got, both) || l.lastID != end {
				t.Errorf("got %s, last id %s, want %s", got, l.lastID, end)
			}
		}
		if got := follow(t, f.url+eventsPath, "Last-Event-ID", b.id).jobs(1); got[0] != both[1] {
			t.Errorf("got %s", got)
		}
	})
	t.Run("of some jobs only", func(t *testing.T) {
		t.Parallel()
		f.enqueue("y", "r")
		for _, query := range []string{"type=x", "queue=q", "job=" + id, "type=x&queue=q&job=" + id} {
			if got := follow(t, f.url+eventsPath+"?"+query, "Last-Event-ID", start).jobs(2); !slices.Equal(got, both) {
				t.Errorf("%s: got %s", query, got)
			}
		}
	})
	t.Run("with a reset where the log does not go on from the id", func(t *testing.T) {
		t.Parallel()
		for _, last := range []string{"0011223344556677-1", "nonsense", strings.Split(end, "-")[0] + "-99999"} {
			l := follow(t, f.url+eventsPath, "Last-Event-ID", last)
			b := l.event()
			var n streamNotice
			if err := json.Unmarshal([]byte(b.data), &n); err != nil || b.event != "reset" || !eventID.MatchString(b.id) || n.Code != "unknown_id" || n.Detail == "" {
				t.Errorf("%s: got %+v, %v", last, b, err)
			}
			l.leave()
			late := f.enqueue("late"+last[:1], "s")
			if got := follow(t, f.url+eventsPath+"?queue=s&type=late"+last[:1], "Last-Event-ID", l.lastID).jobs(1); got[0] != late+" queued" {
				t.Errorf("after the reset: %s", got)
			}
		}
	})
	t.Run("and refuse what they do not know", func(t *testing.T) {
		t.Parallel()
		f.get("/v1/events?state=failed").problem(400, "invalid", "state")
		f.get("/v1/events?type=%ff").problem(400, "invalid_utf8", "")
	})
	t.Run("and tell HEAD what they are", func(t *testing.T) {
		t.Parallel()
		client := &http.Client{Timeout: patience, Transport: &http.Transport{MaxConnsPerHost: 1}}
		defer client.CloseIdleConnections()
		got, err := client.Head(f.url + eventsPath)
		if err != nil || got.StatusCode != 200 || got.Header.Get("Content-Type") != "text/event-stream" {
			t.Fatalf("got %v, %v", got, err)
		}
		got.Body.Close()
		if got, err = client.Get(f.url + "/livez"); err != nil { // on the same connection: the answer to HEAD has ended
			t.Fatal(err)
		}
		got.Body.Close()
	})
}

func TestAHeartbeatMovesTheIDOn(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(s *service) { s.heartbeat = 10 * time.Millisecond })
	l := f.follow("?type=wanted")
	l.begin()
	start := l.lastID
	f.enqueue("unwanted", "q")
	for l.lastID == start {
		if b, ok := l.next(); !ok || b.event != "" {
			t.Fatalf("got %+v", b)
		}
	}
	if queue.ParseEventID(l.lastID).Seq != queue.ParseEventID(start).Seq+1 {
		t.Errorf("from %s to %s", start, l.lastID)
	}
}

func TestAStreamOutlivesTheTimeLimitsOfRequests(t *testing.T) {
	t.Parallel()
	s, _ := newService(t, &safeBuffer{})
	s.heartbeat = 20 * time.Millisecond
	h, err := newHandler(s)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(h)
	server.Config.ReadTimeout, server.Config.WriteTimeout = 200*time.Millisecond, 200*time.Millisecond
	server.Start()
	t.Cleanup(server.Close)
	l := follow(t, server.URL+eventsPath)
	l.begin()
	for beats := 0; beats < 50; { // a second at least
		b, ok := l.next()
		if !ok {
			t.Fatalf("the stream ended after %d heartbeats: %v", beats, l.body.Err())
		}
		if b.comment != "" {
			beats++
		}
	}
	e, err := s.queue.Enqueue(t.Context(), job.New{Type: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if got := l.jobs(1); got[0] != e.ID+" queued" {
		t.Errorf("got %s", got)
	}
}

func TestAListenerThatDoesNotReadIsEnded(t *testing.T) {
	t.Parallel()
	s, _ := newService(t, &safeBuffer{})
	h, err := newHandler(s)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(h)
	// Little may be under way, so that the server feels that nobody reads.
	server.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		_ = c.(*net.TCPConn).SetWriteBuffer(64 << 10)
		return ctx
	}
	server.Start()
	t.Cleanup(server.Close)
	narrow := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err == nil {
			_ = c.(*net.TCPConn).SetReadBuffer(64 << 10)
		}
		return c, err
	}}}
	l := followWith(t, narrow, server.URL+eventsPath)
	l.begin()
	another := follow(t, server.URL+eventsPath)
	another.begin()
	const batches, each = 2, 8_000
	for range batches {
		if _, err := s.queue.EnqueueMany(t.Context(), slices.Repeat([]job.New{{Type: "x"}}, each)); err != nil {
			t.Fatal(err)
		}
		another.jobs(each) // so they were handed to all listeners
	}
	var b block
	seen := 0
	for b = l.event(); b.event == "job"; b = l.event() {
		seen++
	}
	if b.event != "end" || !strings.Contains(b.data, `"code":"slow_consumer"`) || seen >= batches*each {
		t.Fatalf("after %d events: %+v", seen, b)
	}
	if b, ok := l.next(); ok {
		t.Errorf("after the end came %+v", b)
	}
	last := queue.ParseEventID(l.lastID).Seq
	rest := follow(t, server.URL+eventsPath, "Last-Event-ID", l.lastID)
	for ; seen < batches*each; seen++ {
		rest.event()
		if last++; queue.ParseEventID(rest.lastID).Seq != last {
			t.Fatalf("event %d has the id %s, want the number %d", seen, rest.lastID, last)
		}
	}
}

func TestStreamsNeedTheDatabaseToBegin(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	l := f.follow("")
	l.begin()
	bringBack := f.place.TakeAway(t)
	f.get("/v1/events").problem(503, "database_unavailable", "")
	bringBack()
	id := f.enqueue("x", "q") // the one that is there has waited
	if got := l.jobs(1); got[0] != id+" queued" {
		t.Errorf("got %s", got)
	}
}

func TestAProcessEndsItsStreams(t *testing.T) {
	t.Parallel()
	p := startProcess(t, "app.drain_delay=0s")
	l := follow(t, p.url+eventsPath)
	l.begin()
	p.signal()
	if b := l.event(); b.event != "end" || !strings.Contains(b.data, `"code":"shutting_down"`) || b.id != l.lastID {
		t.Errorf("got %+v", b)
	}
	if b, ok := l.next(); ok {
		t.Errorf("after the end came %+v", b)
	}
	p.ends(exitFine)
	if log := p.log.String(); strings.Contains(log, "cut off") {
		t.Errorf("log:\n%s", log)
	}
}

// A backup that is put in place takes numbers back that were given out.
func TestARestoredBackupResetsTheListeners(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "postroom.db")
	start := func() *process { return startProcess(t, "paths.database="+path, "app.drain_delay=0s") }
	enqueue := func(p *process) string {
		return send(t, "POST", p.url+"/v1/jobs", strings.NewReader(`{"type":"x"}`), "Content-Type", "application/json").is(201)["id"].(string)
	}
	putBack := func(away string) {
		for _, suffix := range []string{"", "-wal", "-shm"} {
			if err := os.Rename(path+suffix, away+suffix); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
		for _, suffix := range []string{"-wal", ""} {
			data, err := os.ReadFile(away + suffix)
			if err == nil {
				err = os.WriteFile(path+suffix, data, 0o600)
			}
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
	}
	wantReset := func(l *listener, last queue.EventID) {
		t.Helper()
		b := l.event()
		if id := queue.ParseEventID(b.id); b.event != "reset" || id.Epoch == last.Epoch || id.Seq != last.Seq {
			t.Errorf("after %v came %+v", last, b)
		}
	}

	p := start()
	l := follow(t, p.url+eventsPath)
	l.begin()
	enqueue(p)
	l.jobs(1)
	putBack(path + ".away") // under the running process, and nobody writes
	wantReset(l, queue.ParseEventID(l.lastID))
	id := enqueue(p)
	if got := l.jobs(1); got[0] != id+" queued" {
		t.Errorf("then came %s", got)
	}

	for _, restored := range []bool{false, true} {
		last := l.lastID
		p.signal()
		p.ends(exitFine)
		if restored {
			putBack(path + ".away2")
		}
		p = start()
		l = follow(t, p.url+eventsPath, "Last-Event-ID", last)
		if restored {
			wantReset(l, queue.ParseEventID(last))
			continue
		}
		id := enqueue(p)
		if got := l.jobs(1); got[0] != id+" queued" {
			t.Errorf("after a restart came %s", got)
		}
	}
}

func TestStreamsGoThroughAProxy(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	to, err := url.Parse(f.url)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(httputil.NewSingleHostReverseProxy(to))
	t.Cleanup(proxy.Close)
	l := follow(t, proxy.URL+eventsPath)
	l.begin()
	id := f.enqueue("x", "q")
	if got := l.jobs(1); got[0] != id+" queued" {
		t.Errorf("got %s", got)
	}
}
