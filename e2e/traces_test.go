package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/core/telemetry/otlptest"
)

const collectorProgram = "../.cache/collector/collector"

// collector is OpenTelemetry's own, as a process, with a receiver behind it
// that keeps what it passes on.
type collector struct {
	*otlptest.Receiver
	http, grpc string // where it listens
}

func startCollector(s *system) *collector {
	s.Helper()
	needCollector(s)
	c := &collector{Receiver: otlptest.New(s), http: freeAddress(s), grpc: freeAddress(s)}
	config := filepath.Join(s.dir, "collector.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `
receivers:
  otlp: {protocols: {http: {endpoint: %q}, grpc: {endpoint: %q}}}
exporters:
  otlp_http: {endpoint: %q, sending_queue: {enabled: false}}
service:
  telemetry: {metrics: {level: none}}
  pipelines:
    traces: {receivers: [otlp], exporters: [otlp_http]}
    metrics: {receivers: [otlp], exporters: [otlp_http]}
`, c.http, c.grpc, c.Endpoint()), 0o600); err != nil {
		s.Fatal(err)
	}
	p := &process{Cmd: exec.Command(collectorProgram, "--config", "file:"+config), s: s, log: newLog(), done: make(chan struct{})}
	p.Stdout, p.Stderr = p.log, p.log
	s.begin(p, "collector")
	for _, address := range []string{c.http, c.grpc} {
		s.until("the collector listens", func() bool {
			conn, err := net.Dial("tcp", address)
			if err == nil {
				_ = conn.Close()
			}
			select {
			case <-p.done:
				s.Fatalf("the collector gave up: %s", p.log.tail(20))
			default:
			}
			return err == nil
		})
	}
	return c
}

func needCollector(tb testing.TB) {
	tb.Helper()
	if _, err := os.Stat(collectorProgram); err != nil {
		if os.Getenv("CI") != "" {
			tb.Fatalf("there is no collector (scripts/setup builds it): %v", err)
		}
		tb.Skip("there is no OpenTelemetry collector (scripts/setup builds it)")
	}
}

func freeAddress(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	_ = l.Close() // it was only asked which is free
	return l.Addr().String()
}

// spansOf waits until a trace has what is wanted, and returns it all.
func (c *collector) spansOf(tb testing.TB, trace string, enough func([]otlptest.Span) bool) []otlptest.Span {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 2*time.Minute)
	defer cancel()
	in := func(all []otlptest.Span) []otlptest.Span {
		return slices.DeleteFunc(slices.Clone(all), func(s otlptest.Span) bool { return s.TraceID != trace })
	}
	all, err := c.WaitFor(ctx, func(all []otlptest.Span) bool { return enough(in(all)) })
	if err != nil {
		for _, s := range in(all) {
			tb.Logf("%s (%s) under %s: %v", s.Name, s.SpanID, s.ParentID, s.Attributes)
		}
		tb.Fatal(err)
	}
	return in(all)
}

// postTraced posts as a client that is in the midst of a trace.
func (p *process) postTraced(path, contentType, body, traceParent string) reply {
	p.s.Helper()
	req, err := http.NewRequestWithContext(p.s.Context(), http.MethodPost, p.url+path, strings.NewReader(body))
	if err != nil {
		p.s.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Traceparent", traceParent)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		p.s.Fatal(err)
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode/100 != 2 {
		p.s.Fatalf("%s: %d %s, %v", path, res.StatusCode, out, err)
	}
	return reply{res.StatusCode, res.Header, out}
}

// find returns the spans of that name whose attribute has the value; any, if
// the attribute is "".
func find(spans []otlptest.Span, name, attribute string, value any) []otlptest.Span {
	return slices.DeleteFunc(slices.Clone(spans), func(s otlptest.Span) bool {
		return s.Name != name || attribute != "" && s.Attributes[attribute] != value
	})
}

// One trace tells a message's whole way: from the client's own span through
// the request to the change of its mailbox, over both protocols.
func TestOneTraceFromTheRequestToTheLastFollowUp(t *testing.T) {
	t.Parallel()
	for protocol, endpoint := range map[string]func(*collector) string{
		"http/protobuf": func(c *collector) string { return c.http },
		"grpc":          func(c *collector) string { return c.grpc },
	} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			s := newSystem(t, "QUEUE_DEBUG_JOBS=true")
			c := startCollector(s)
			s.env = append(s.env, "OTLP_ENDPOINT=http://"+endpoint(c), "TELEMETRY_OTLP_PROTOCOL="+protocol, "APP_ENV=prod")
			s.runner()
			api := s.server()
			account := api.account()
			if r := api.postJSON("/v1/rules", `{"name":"all","scope":"global","conditions":{"op":"sender_domain","value":"shop.example"},"action_type":"archive"}`); r.status != http.StatusCreated {
				t.Fatalf("%d %s", r.status, r.body)
			}

			const trace, client = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
			api.postTraced("/v1/messages?account="+account, "message/rfc822",
				"From: Shop <orders@shop.example>\r\nTo: me@example.org\r\nSubject: Your secret order\r\nMessage-ID: <1@shop.example>\r\n\r\nHello.\r\n",
				"00-"+trace+"-"+client+"-01")
			spans := c.spansOf(t, trace, func(in []otlptest.Span) bool {
				return len(find(in, "queue.job", "postroom.job.type", "action.execute")) == 1 && len(find(in, "POST /v1/messages", "", nil)) == 1 &&
					len(find(in, "queue.job", "postroom.job.type", "message.classify")) == 1 && len(find(in, "queue.job", "postroom.job.type", "message.ingest")) == 1
			})

			byID := map[string]otlptest.Span{}
			for _, span := range spans {
				byID[span.SpanID] = span
				for name, value := range span.Attributes {
					if text := fmt.Sprint(value); strings.Contains(text, "secret") {
						t.Errorf("%s: %s says %q", span.Name, name, text)
					}
				}
				for _, old := range []string{"http.method", "http.status_code", "http.target", "http.url", "net.peer.name", "messaging.destination", "messaging.operation", "messaging.message_id"} {
					if v, ok := span.Attributes[old]; ok {
						t.Errorf("%s has %s=%v, which the conventions have left behind", span.Name, old, v)
					}
				}
			}
			for _, span := range spans {
				if _, known := byID[span.ParentID]; !known && span.ParentID != client {
					t.Errorf("%s hangs on nothing: its parent %s did not come", span.Name, span.ParentID)
				}
			}
			// chain follows the parents of a span, itself first.
			chain := func(span otlptest.Span) (names []string) {
				for ok := true; ok; span, ok = byID[span.ParentID] {
					name := span.Name
					if typ, is := span.Attributes["postroom.job.type"]; is && name == "queue.job" {
						name += " " + typ.(string)
					}
					names = append(names, name)
				}
				return names
			}
			action := find(spans, "email.action", "", nil)
			if len(action) != 1 {
				t.Fatalf("%d spans email.action", len(action))
			}
			way := strings.Join(chain(action[0]), " < ")
			last := 0
			for _, name := range []string{"email.action", "queue.job action.execute", "email.classify", "queue.job message.classify", "email.receive", "queue.job message.ingest", "POST /v1/messages"} {
				at := strings.Index(way[last:], name)
				if at < 0 {
					t.Fatalf("the action's way is %s; %s is not on it, or not there", way, name)
				}
				last += at
			}

			has := func(span otlptest.Span, kind string, want map[string]any) {
				t.Helper()
				if span.Kind != kind {
					t.Errorf("%s is of kind %s, want %s", span.Name, span.Kind, kind)
				}
				for name, value := range want {
					if got, ok := span.Attributes[name]; !ok || value != nil && fmt.Sprint(got) != fmt.Sprint(value) {
						t.Errorf("%s has %s=%v, want %v", span.Name, name, got, value)
					}
				}
			}
			request := find(spans, "POST /v1/messages", "", nil)[0]
			if request.ParentID != client {
				t.Errorf("the request is not the client's child: %+v", request)
			}
			has(request, "server", map[string]any{"http.request.method": "POST", "http.route": "/v1/messages", "http.response.status_code": 202,
				"url.path": "/v1/messages", "url.scheme": "http", "server.address": nil, "network.protocol.version": nil})
			ingest := find(spans, "queue.job", "postroom.job.type", "message.ingest")[0]
			has(ingest, "consumer", map[string]any{"messaging.system": "postroom", "messaging.operation.type": "process", "messaging.operation.name": "process",
				"messaging.destination.name": "default", "messaging.message.id": nil, "postroom.job.attempt": 1})
			for service, span := range map[string]otlptest.Span{"apiserver": request, "queuerunner": ingest} {
				for name, want := range map[string]any{"service.name": nil, "service.version": nil, "service.instance.id": nil, "deployment.environment.name": "prod", "host.arch": nil, "os.type": "linux"} {
					if got := span.Resource[name]; got == nil || want != nil && got != want {
						t.Errorf("%s says %s=%v", service, name, got)
					}
				}
			}
			if request.Resource["service.instance.id"] == ingest.Resource["service.instance.id"] {
				t.Error("two services have one instance id")
			}
		})
	}
}

// Attempts of one job stand side by side under the call that stored it, each
// linked to the one before; a job that goes on for ever begins a trace per run, linked to that call. Who does
// not want to be recorded is not.
func TestTracesOfRetriesAndOfWhatIsNotSampled(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "QUEUE_DEBUG_JOBS=true")
	c := startCollector(s)
	s.env = append(s.env, "OTLP_ENDPOINT=http://"+c.http)
	runner := s.runner()
	api := s.server()
	none := s.server("-set", "telemetry.sample_ratio=0")
	stored := func(r reply) string {
		t.Helper()
		var j struct{ ID string }
		r.into(t, &j)
		return j.ID
	}
	const kept, dropped, other = "11111111111111111111111111111111", "22222222222222222222222222222222", "33333333333333333333333333333333"
	const parent = "-aaaaaaaaaaaaaaaa-0"
	job := `{"type":"debug.fail","payload":{"times":1}}`
	unwanted := stored(api.postTraced("/v1/jobs", "application/json", job, "00-"+dropped+parent+"0"))
	untold := stored(none.postJSON("/v1/jobs", `{"type":"debug.steps","payload":{"n":2}}`)) // the ratio decides
	told := stored(none.postTraced("/v1/jobs", "application/json", `{"type":"debug.steps","payload":{"n":2}}`, "00-"+other+parent+"1"))
	wanted := stored(api.postTraced("/v1/jobs", "application/json", job, "00-"+kept+parent+"1"))
	for _, id := range []string{unwanted, untold, told, wanted} {
		api.job(id)
	}
	spans := c.spansOf(t, kept, func(in []otlptest.Span) bool {
		return len(find(in, "queue.job", "", nil)) == 2 && len(find(in, "queue.enqueue", "", nil)) == 1
	})
	enqueue := find(spans, "queue.enqueue", "", nil)[0]
	if enqueue.Kind != "producer" || enqueue.Attributes["messaging.operation.type"] != "send" || enqueue.Attributes["messaging.operation.name"] != "enqueue" ||
		enqueue.Attributes["messaging.message.id"] != wanted || enqueue.Attributes["messaging.destination.name"] != "default" {
		t.Errorf("the call that stored it: %+v", enqueue)
	}
	for attempt, status := range map[int64]string{1: "error", 2: "unset"} {
		runs := find(spans, "queue.job", "postroom.job.attempt", attempt)
		if len(runs) != 1 || runs[0].ParentID != enqueue.SpanID || runs[0].Status != status {
			t.Errorf("attempt %d: %+v", attempt, runs)
		}
	}
	first, second := find(spans, "queue.job", "postroom.job.attempt", int64(1))[0], find(spans, "queue.job", "postroom.job.attempt", int64(2))[0]
	if len(first.Links) != 0 || len(second.Links) != 1 || second.Links[0].SpanID != first.SpanID || second.Links[0].TraceID != first.TraceID {
		t.Errorf("the retry is linked to %+v, the first attempt to %+v", second.Links, first.Links)
	}
	c.spansOf(t, other, func(in []otlptest.Span) bool {
		return len(find(in, "queue.job", "", nil)) == 1 && len(find(in, "queue.step", "", nil)) == 2
	})

	// account.sync snoozes from interval to interval.
	api.account()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	linked := func(all []otlptest.Span, again otlptest.Span) bool {
		return len(again.Links) > 0 && slices.ContainsFunc(all, func(s otlptest.Span) bool {
			return s.SpanID == again.Links[0].SpanID && s.TraceID == again.Links[0].TraceID && s.TraceID != again.TraceID
		})
	}
	all, err := c.WaitFor(ctx, func(all []otlptest.Span) bool { // each service sends its spans when it likes
		return slices.ContainsFunc(find(all, "queue.job", "postroom.job.type", "account.sync"), func(s otlptest.Span) bool { return linked(all, s) })
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, again := range find(all, "queue.job", "postroom.job.type", "account.sync") {
		if len(again.Links) > 0 && (again.ParentID != "" || !linked(all, again)) {
			t.Errorf("a later run of account.sync is linked to %+v, with parent %q", again.Links, again.ParentID)
		}
	}

	for _, p := range []*process{runner, api, none} { // which sends what is left
		p.stop()
	}
	for _, span := range c.Spans() {
		if id := span.Attributes["messaging.message.id"]; span.TraceID == dropped || id == unwanted || id == untold {
			t.Errorf("a span that nobody wanted: %+v", span)
		}
	}
}

// Work goes on and a shutdown ends whatever becomes of the collector.
func TestACollectorThatIsAwayHoldsNothingUp(t *testing.T) {
	t.Parallel()
	for name, endpoint := range map[string]func(*testing.T) string{
		"away": func(t *testing.T) string { return freeAddress(t) },
		"hangs": func(t *testing.T) string {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
			return l.Addr().String() // nobody accepts
		},
	} {
		for _, protocol := range []string{"http/protobuf", "grpc"} {
			t.Run(name+" "+protocol, func(t *testing.T) {
				t.Parallel()
				// An export that is given up would let go on what waits for it: here none is.
				s := newSystem(t, "QUEUE_DEBUG_JOBS=true", "OTLP_ENDPOINT=http://"+endpoint(t), "TELEMETRY_OTLP_PROTOCOL="+protocol,
					"OTEL_BSP_MAX_QUEUE_SIZE=256", "OTEL_EXPORTER_OTLP_TIMEOUT=3600000", "OTEL_BSP_EXPORT_TIMEOUT=3600000")
				runner, api := s.runner(), s.server()
				db := s.open()
				const n = 3000 // more spans than wait for the collector
				api.enqueue(jobs(n, "debug.echo", func(i int) any { return i }))
				s.until("all are done", func() bool {
					return s.count(db, "SELECT count(*) FROM jobs WHERE state = 'completed'") == n
				})
				for _, p := range []*process{runner, api} {
					if code := p.stop(); code != 0 {
						t.Errorf("exit code %d:\n%s", code, p.log.tail(20))
					}
				}
				if !strings.Contains(runner.log.String(), "telemetry: spans were lost") {
					t.Errorf("the runner does not say that spans were lost:\n%s", runner.log.tail(20))
				}
			})
		}
	}
}
