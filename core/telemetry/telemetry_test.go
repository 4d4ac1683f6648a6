package telemetry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/postroom/postroom/core/telemetry/otlptest"
)

// environment is a Lookup over NAME=value pairs.
func environment(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, p := range pairs {
			if n, v, _ := strings.Cut(p, "="); n == name {
				return v, true
			}
		}
		return "", false
	}
}

func config(endpoint, protocol string, env ...string) Config {
	return Config{
		ServiceName: "queuerunner", Version: "1.2.3", Environment: "dev", InstanceID: "runner-1",
		Endpoint: endpoint, Protocol: protocol, ExportTraces: true, SampleRatio: 1,
		Lookup: environment(env...),
	}
}

// setup builds a Telemetry that is nobody's global, for parallel tests.
func setup(t *testing.T, cfg Config) (*Telemetry, *lockedBuffer) {
	t.Helper()
	out := new(lockedBuffer)
	log := zerolog.New(out)
	tel, err := build(t.Context(), cfg, log, newErrorHandler(log, time.Now))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tel.Shutdown(context.Background()) })
	return tel, out
}

// bounded is a context for waits that end long before it does.
func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestStart is not parallel, nor are its subtests: Start sets OpenTelemetry's
// globals, through which the span helpers go.
func TestStart(t *testing.T) {
	for _, protocol := range []string{protocolHTTP, protocolGRPC} {
		for _, compression := range []string{"none", "gzip"} {
			t.Run("the spans of a request arrive as one tree over "+protocol+" with compression "+compression, func(t *testing.T) {
				t.Setenv("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
				receiver := otlptest.New(t)
				tel, err := Start(t.Context(), config(receiver.Endpoint(), protocol), zerolog.Nop())
				if err != nil {
					t.Fatal(err)
				}
				makeTree()
				if err := tel.Shutdown(t.Context()); err != nil {
					t.Fatal(err)
				}
				spans, err := receiver.WaitFor(bounded(t), func(s []otlptest.Span) bool { return len(s) >= 6 })
				if err != nil {
					t.Fatal(err)
				}
				checkTree(t, spans)
				if lost := tel.Lost(); lost != (Loss{}) {
					t.Errorf("lost %+v", lost)
				}
				metrics, err := receiver.WaitForMetrics(bounded(t), func(m []otlptest.Metric) bool { return len(m) > 0 })
				if err != nil {
					t.Fatal(err)
				}
				checkMetrics(t, metrics)
			})
		}
	}

	t.Run("a disabled SDK makes ids and exports nothing", func(t *testing.T) {
		receiver := otlptest.New(t)
		tel, err := Start(t.Context(), config(receiver.Endpoint(), protocolHTTP, "OTEL_SDK_DISABLED=True"), zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		ctx, span := QueueJob(t.Context(), JobInfo{ID: "j"})
		if parent := TraceParent(ctx); TraceID(parent) == "" || !strings.HasSuffix(parent, "-01") {
			t.Errorf("traceparent %q, want a sampled one", parent)
		}
		End(span, nil)
		if err := tel.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if r := receiver.Requests(); len(r) != 0 {
			t.Errorf("exported: %+v", r)
		}
	})

	t.Run("the SDK's errors and its own log go to the logger", func(t *testing.T) {
		out := new(lockedBuffer)
		tel, err := Start(t.Context(), config("", ""), zerolog.New(out))
		if err != nil {
			t.Fatal(err)
		}
		otel.Handle(errors.New("export failed"))
		if !strings.Contains(out.String(), `"error":"export failed"`) {
			t.Errorf("logged %q", out)
		}
		if err := tel.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})

	t.Run("a collector that refuses and quotes the credentials does not get them logged", func(t *testing.T) {
		refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "unknown "+r.Header.Get("Authorization"), http.StatusUnauthorized)
		}))
		defer refusing.Close()
		out := new(lockedBuffer)
		for _, off := range []string{"OTEL_TRACES_EXPORTER=none", "OTEL_METRICS_EXPORTER=none"} {
			tel, err := Start(t.Context(), config(refusing.URL, protocolHTTP, off,
				"OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20hunter2hunter2"), zerolog.New(out))
			if err != nil {
				t.Fatal(err)
			}
			_, span := QueueJob(t.Context(), JobInfo{ID: "1", Type: "t", Queue: "q", Attempt: 1})
			End(span, nil)
			err = tel.Shutdown(t.Context())
			if strings.Contains(fmt.Sprintf("%+v", err), "hunter2") {
				t.Errorf("Shutdown's error quotes them: %v", err)
			}
		}
		if !strings.Contains(out.String(), "unknown *** ***") || strings.Contains(out.String(), "hunter2") {
			t.Errorf("logged %s", out)
		}
	})

	t.Run("a job that was snoozed has a trace of its own, linked to its enqueuer's", func(t *testing.T) {
		receiver := otlptest.New(t)
		tel, err := Start(t.Context(), config(receiver.Endpoint(), protocolHTTP), zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		const enqueuer = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		_, span := QueueJob(t.Context(), JobInfo{ID: "job-1", Type: "account.sync", Queue: "default", Attempt: 1, LinkTo: enqueuer})
		End(span, nil)
		if err := tel.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		spans, err := receiver.WaitFor(bounded(t), func(s []otlptest.Span) bool { return len(s) > 0 })
		if err != nil {
			t.Fatal(err)
		}
		s := spans[0]
		if s.ParentID != "" || s.TraceID == TraceID(enqueuer) || len(s.Links) != 1 || s.Attributes["messaging.message.id"] != "job-1" {
			t.Errorf("span %+v", s)
		}
	})

	t.Run("an attempt is linked to the one before, which another process made", func(t *testing.T) {
		const enqueuer = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		receiver := otlptest.New(t)
		for attempt := 1; attempt <= 3; attempt++ {
			tel, err := Start(t.Context(), config(receiver.Endpoint(), protocolHTTP), zerolog.Nop())
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range []string{"job-1", "job-2"} {
				ctx, span := QueueJob(ContextWithTraceParent(t.Context(), enqueuer), JobInfo{ID: id, Attempt: attempt})
				_, step := Step(ctx, "step")
				End(step, nil)
				End(span, nil)
			}
			if err := tel.Shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		spans, err := receiver.WaitFor(bounded(t), func(s []otlptest.Span) bool { return len(s) >= 12 })
		if err != nil {
			t.Fatal(err)
		}
		ids, attempts := map[string]bool{}, map[string]otlptest.Span{}
		for _, s := range spans {
			ids[s.SpanID] = true
			if s.Name == "queue.job" {
				attempts[fmt.Sprint(s.Attributes["messaging.message.id"], s.Attributes["postroom.job.attempt"])] = s
			}
		}
		if len(ids) != 12 || len(attempts) != 6 {
			t.Fatalf("%d ids of spans, %d attempts", len(ids), len(attempts))
		}
		for _, id := range []string{"job-1", "job-2"} {
			for attempt := 1; attempt <= 3; attempt++ {
				s := attempts[fmt.Sprint(id, int64(attempt))]
				if s.ParentID != "b7ad6b7169203331" || s.TraceID != TraceID(enqueuer) {
					t.Errorf("%s, attempt %d: %+v", id, attempt, s)
				}
				before := attempts[fmt.Sprint(id, int64(attempt-1))]
				if attempt == 1 && len(s.Links) > 0 || attempt > 1 && (len(s.Links) != 1 || s.Links[0].SpanID != before.SpanID || s.Links[0].TraceID != s.TraceID) {
					t.Errorf("%s, attempt %d is linked to %+v", id, attempt, s.Links)
				}
			}
		}
	})

	t.Run("contexts travel as W3C trace context and baggage", func(t *testing.T) {
		tel, err := Start(t.Context(), config("", ""), zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		fields := otel.GetTextMapPropagator().Fields()
		for _, want := range []string{"traceparent", "tracestate", "baggage"} {
			if !slices.Contains(fields, want) {
				t.Errorf("fields %v, want %s among them", fields, want)
			}
		}
		if err := tel.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})

	t.Run("a bad setting is an error and leaves nothing running", func(t *testing.T) {
		_, err := Start(t.Context(), config("localhost:4318", ""), zerolog.Nop())
		if err == nil || !strings.HasPrefix(err.Error(), "telemetry: telemetry.otlp_endpoint: ") {
			t.Errorf("error %v", err)
		}
	})
}

// makeTree does what one enqueued message does: a request, and in another
// process the job, a step of it and the three parts of the mail path.
func makeTree() {
	requestCtx, request := otel.Tracer("test").Start(context.Background(), "POST /v1/messages", trace.WithSpanKind(trace.SpanKindServer))
	enqueued := TraceParent(requestCtx)
	End(request, nil)

	jobCtx, job := QueueJob(ContextWithTraceParent(context.Background(), enqueued),
		JobInfo{ID: "job-1", Type: "message.ingest", Queue: "default", Attempt: 2})
	stepCtx, step := Step(jobCtx, "parse\xff")
	_, receive := EmailReceive(stepCtx, "account-1", attribute.Int("postroom.message.size", 42))
	End(receive, nil)
	End(step, nil)
	_, classify := EmailClassify(jobCtx, "message-1")
	EndWith(classify, errors.New("subject: secret"), "rule 7 is invalid")
	_, action := EmailAction(jobCtx, "message-1", "archive")
	End(action, &net.OpError{Op: "secret"})
	End(job, nil)
}

func checkTree(t *testing.T, spans []otlptest.Span) {
	t.Helper()
	byName := map[string]otlptest.Span{}
	for _, s := range spans {
		byName[s.Name] = s
	}
	tests := []struct {
		name, parent, kind, status, text string
		attributes                       map[string]any
	}{
		{"POST /v1/messages", "", "server", "unset", "", nil},
		{"queue.job", "POST /v1/messages", "consumer", "unset", "", map[string]any{
			"messaging.system": "postroom", "messaging.operation.type": "process", "messaging.operation.name": "process",
			"messaging.destination.name": "default", "messaging.message.id": "job-1",
			"postroom.job.type": "message.ingest", "postroom.job.attempt": int64(2),
		}},
		{"queue.step", "queue.job", "internal", "unset", "", map[string]any{"postroom.step.name": "parse\uFFFD"}},
		{"email.receive", "queue.step", "internal", "unset", "", map[string]any{
			"postroom.account.id": "account-1", "postroom.message.size": int64(42),
		}},
		{"email.classify", "queue.job", "internal", "error", "rule 7 is invalid", map[string]any{
			"postroom.message.id": "message-1", "error.type": "_OTHER",
		}},
		{"email.action", "queue.job", "internal", "error", "*net.OpError", map[string]any{
			"postroom.message.id": "message-1", "postroom.action.type": "archive", "error.type": "*net.OpError",
		}},
	}
	if len(spans) != len(tests) {
		t.Errorf("%d spans, want %d", len(spans), len(tests))
	}
	for _, want := range tests {
		got := byName[want.name]
		if got.TraceID == "" || got.TraceID != byName["queue.job"].TraceID {
			t.Errorf("%s: trace %q, want that of queue.job", want.name, got.TraceID)
		}
		if parent := byName[want.parent].SpanID; got.ParentID != parent {
			t.Errorf("%s: parent %q, want %q (%s)", want.name, got.ParentID, parent, want.parent)
		}
		if got.Kind != want.kind || got.Status != want.status || got.StatusText != want.text {
			t.Errorf("%s: kind %q, status %q %q; want %q, %q %q",
				want.name, got.Kind, got.Status, got.StatusText, want.kind, want.status, want.text)
		}
		if len(got.Attributes) != len(want.attributes) {
			t.Errorf("%s: attributes %v, want %v", want.name, got.Attributes, want.attributes)
		}
		for k, v := range want.attributes {
			if got.Attributes[k] != v {
				t.Errorf("%s: %s is %v, want %v", want.name, k, got.Attributes[k], v)
			}
		}
		checkResource(t, got.Resource)
	}
}

func checkMetrics(t *testing.T, metrics []otlptest.Metric) {
	t.Helper()
	found := map[string]otlptest.Metric{}
	for _, m := range metrics {
		found[m.Name] = m
	}
	goroutines := found["go.goroutine.count"]
	if len(goroutines.Points) != 1 || goroutines.Points[0].Value < 1 {
		t.Errorf("go.goroutine.count is %+v", goroutines)
	}
	checkResource(t, goroutines.Resource)
	if lost := found["postroom.telemetry.spans.lost"]; len(lost.Points) != 2 {
		t.Errorf("postroom.telemetry.spans.lost is %+v, want one point a reason", lost)
	}
}

func checkResource(t *testing.T, got map[string]any) {
	t.Helper()
	for k, v := range map[string]string{
		"service.name": "queuerunner", "service.version": "1.2.3", "service.instance.id": "runner-1",
		"deployment.environment.name": "dev", "host.arch": runtime.GOARCH, "os.type": runtime.GOOS,
		"telemetry.sdk.language": "go",
	} {
		if got[k] != v {
			t.Errorf("resource: %s is %v, want %q", k, got[k], v)
		}
	}
}

func TestIDsWithoutExport(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]Config{
		"no endpoint":       config("", ""),
		"nothing sampled":   func() Config { c := config("", ""); c.SampleRatio = 0; return c }(),
		"traces turned off": func() Config { c := config("http://127.0.0.1:1", ""); c.ExportTraces = false; return c }(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tel, _ := setup(t, cfg)
			ctx, span := tel.tracers.Tracer("test").Start(t.Context(), "parent")
			_, child := tel.tracers.Tracer("test").Start(ctx, "child")
			defer span.End()
			defer child.End()
			if id := TraceID(TraceParent(ctx)); id == "" || child.SpanContext().TraceID().String() != id {
				t.Errorf("trace %q, of the child %q", id, child.SpanContext().TraceID())
			}
			if !child.SpanContext().SpanID().IsValid() || child.SpanContext().SpanID() == span.SpanContext().SpanID() {
				t.Errorf("span ids %s and %s", span.SpanContext().SpanID(), child.SpanContext().SpanID())
			}
		})
	}
}

func TestSampling(t *testing.T) {
	t.Parallel()
	cfg := config("", "")
	cfg.SampleRatio = 0
	tel, _ := setup(t, cfg)
	ctx := ContextWithTraceParent(t.Context(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	_, followed := tel.tracers.Tracer("test").Start(ctx, "s")
	_, own := tel.tracers.Tracer("test").Start(t.Context(), "s")
	if !followed.SpanContext().IsSampled() || own.SpanContext().IsSampled() {
		t.Errorf("sampled: below a sampled parent %v, own %v; want true, false",
			followed.SpanContext().IsSampled(), own.SpanContext().IsSampled())
	}
}

func TestTracesTurnedOffLeaveMetrics(t *testing.T) {
	t.Parallel()
	receiver := otlptest.New(t)
	cfg := config(receiver.Endpoint(), protocolHTTP)
	cfg.ExportTraces = false
	tel, _ := setup(t, cfg)
	_, span := tel.tracers.Tracer("test").Start(t.Context(), "s")
	span.End()
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(receiver.Spans()) != 0 || len(receiver.Metrics()) == 0 {
		t.Errorf("%d spans, %d metrics; want none, some", len(receiver.Spans()), len(receiver.Metrics()))
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{protocolHTTP, protocolGRPC} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			receiver := otlptest.New(t)
			tel, out := setup(t, config(receiver.Endpoint(), protocol, "OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20hunter2hunter2, x-tenant=a"))
			_, span := tel.tracers.Tracer("test").Start(t.Context(), "s")
			span.End()
			if err := tel.Shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}
			requests := receiver.Requests()
			if len(requests) < 2 {
				t.Fatalf("%d requests, want traces and metrics", len(requests))
			}
			for _, r := range requests {
				if r.Header.Get("Authorization") != "Bearer hunter2hunter2" || r.Header.Get("X-Tenant") != "a" {
					t.Errorf("%s: headers %v", r.Path, r.Header)
				}
			}
			if strings.Contains(out.String(), "hunter2") {
				t.Errorf("logged a secret: %s", out)
			}
		})
	}
}

func TestShutdown(t *testing.T) {
	t.Parallel()
	// Dead collectors: one that accepts and never answers, one that nobody is.
	release := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(func() { close(release); silent.Close() })
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()

	for name, cfg := range map[string]Config{
		"silent over HTTP": config(silent.URL, protocolHTTP),
		"silent over gRPC": config(silent.URL, protocolGRPC),
		"absent over HTTP": config(closed.URL, protocolHTTP),
		"absent over gRPC": config(closed.URL, protocolGRPC),
	} {
		t.Run("a collector that is "+name+" does not hold up the end", func(t *testing.T) {
			t.Parallel()
			tel, _ := setup(t, cfg)
			tel.bound = 50 * time.Millisecond
			_, span := tel.tracers.Tracer("test").Start(t.Context(), "s")
			span.End()
			done := make(chan error, 1)
			go func() { done <- tel.Shutdown(context.Background()) }()
			select {
			case err := <-done:
				if err == nil {
					t.Error("no error although nothing was sent")
				}
			case <-bounded(t).Done():
				t.Fatal("Shutdown did not return")
			}
			if err := tel.Shutdown(t.Context()); err == nil {
				t.Error("the second call forgot the error")
			}
		})
	}

	t.Run("the caller's context may end it sooner", func(t *testing.T) {
		t.Parallel()
		tel, _ := setup(t, config(silent.URL, protocolHTTP))
		tel.bound = time.Hour
		_, span := tel.tracers.Tracer("test").Start(t.Context(), "s")
		span.End()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := tel.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want a deadline", err)
		}
	})

	t.Run("lost spans are reported", func(t *testing.T) {
		t.Parallel()
		tel, out := setup(t, config(closed.URL, protocolHTTP))
		_, span := tel.tracers.Tracer("test").Start(t.Context(), "s")
		span.End()
		_ = tel.Shutdown(bounded(t)) // whether the metrics failed is not the question
		if lost := tel.Lost(); lost.ExportFailed != 1 {
			t.Errorf("lost %+v, want one failed", lost)
		}
		if !strings.Contains(out.String(), `"export_failed":1`) {
			t.Errorf("logged %s", out)
		}
	})

	t.Run("five seconds unless told otherwise", func(t *testing.T) {
		t.Parallel()
		tel, _ := setup(t, config("", ""))
		if tel.bound != 5*time.Second {
			t.Errorf("bound %v", tel.bound)
		}
	})
}

func TestTextThatIsNotUTF8(t *testing.T) {
	t.Parallel()
	receiver := otlptest.New(t)
	tel, _ := setup(t, config(receiver.Endpoint(), protocolHTTP))
	tracer := tel.tracers.Tracer("test")
	_, good := tracer.Start(t.Context(), "good")
	_, broken := tracer.Start(t.Context(), "broken\xff", trace.WithLinks(trace.Link{
		SpanContext: good.SpanContext(), Attributes: []attribute.KeyValue{attribute.String("l", "\xff")},
	}))
	broken.SetAttributes(
		attribute.String("text", "a\xffb"),
		attribute.StringSlice("list", []string{"ok", "\xff"}),
		attribute.KeyValue{Key: "mixed", Value: attribute.SliceValue(attribute.Int64Value(1), attribute.StringValue("\xff"))},
		attribute.KeyValue{Key: "map", Value: attribute.MapValue(attribute.String("k\xff", "v"))},
		attribute.Int("number", 7),
	)
	broken.AddEvent("e\xff", trace.WithAttributes(attribute.String("x", "\xff")))
	broken.SetStatus(codes.Error, "s\xff")
	good.End()
	broken.End()
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	spans := receiver.Spans()
	if len(spans) != 2 {
		t.Fatalf("%d spans arrived, want both; lost %+v", len(spans), tel.Lost())
	}
	got := spans[1]
	if got.Name != "broken\uFFFD" || got.StatusText != "s\uFFFD" || len(got.Links) != 1 {
		t.Errorf("span %+v", got)
	}
	want := map[string]any{
		"text": "a\uFFFDb", "number": int64(7), "list": []any{"ok", "\uFFFD"},
		"mixed": []any{int64(1), "\uFFFD"}, "map": map[string]any{"k\uFFFD": "v"},
	}
	if !reflect.DeepEqual(got.Attributes, want) {
		t.Errorf("attributes %v, want %v", got.Attributes, want)
	}
}
