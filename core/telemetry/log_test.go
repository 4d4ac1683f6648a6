package telemetry

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace"
)

func TestNewLogger(t *testing.T) {
	t.Parallel()

	t.Run("a line is one JSON object with time, level, fields and message", func(t *testing.T) {
		t.Parallel()
		var out bytes.Buffer
		log, err := NewLogger(&out, "info", "json", "service", "apiserver", "port", 17800)
		if err != nil {
			t.Fatal(err)
		}
		log.Info().Str("text", "two\nlines \xff").Msg("hello")
		log.Debug().Msg("not at this level")
		got := lines(t, out.String())
		if len(got) != 1 {
			t.Fatalf("%d lines:\n%s", len(got), &out)
		}
		for k, v := range map[string]any{"level": "info", "service": "apiserver", "port": 17800.0, "message": "hello"} {
			if got[0][k] != v {
				t.Errorf("%s is %v, want %v", k, got[0][k], v)
			}
		}
		stamp, _ := got[0]["time"].(string)
		if !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`).MatchString(stamp) {
			t.Errorf("time %q is not RFC 3339 in UTC with milliseconds", stamp)
		}
		if got[0]["trace_id"] != nil {
			t.Errorf("trace_id %v without a span", got[0]["trace_id"])
		}
	})

	t.Run("an event with a context carries its span's ids", func(t *testing.T) {
		t.Parallel()
		var out bytes.Buffer
		log, err := NewLogger(&out, "debug", "json")
		if err != nil {
			t.Fatal(err)
		}
		tel, _ := setup(t, config("", ""))
		ctx, span := tel.tracers.Tracer("test").Start(t.Context(), "s")
		defer span.End()
		log.Debug().Ctx(ctx).Msg("by the event")
		child := log.With().Ctx(ctx).Logger()
		child.Debug().Msg("by the logger")
		log.Debug().Ctx(trace.ContextWithSpanContext(ctx, trace.SpanContext{})).Msg("no span")
		got := lines(t, out.String())
		want := span.SpanContext()
		for i := range 2 {
			if got[i]["trace_id"] != want.TraceID().String() || got[i]["span_id"] != want.SpanID().String() {
				t.Errorf("line %v, want trace %s, span %s", got[i], want.TraceID(), want.SpanID())
			}
		}
		if _, ok := got[2]["trace_id"]; ok {
			t.Errorf("line %v has a trace without a span", got[2])
		}
	})

	t.Run("each level lets itself and what is worse through", func(t *testing.T) {
		t.Parallel()
		for level, want := range map[string]int{"debug": 4, "INFO": 3, "warn": 2, "error": 1} {
			var out bytes.Buffer
			log, err := NewLogger(&out, level, "json")
			if err != nil {
				t.Fatal(err)
			}
			log.Debug().Send()
			log.Info().Send()
			log.Warn().Send()
			log.Error().Send()
			if got := len(lines(t, out.String())); got != want {
				t.Errorf("%s: %d lines, want %d", level, got, want)
			}
		}
	})

	t.Run("pretty is for people, without colours in a file", func(t *testing.T) {
		t.Parallel()
		var out bytes.Buffer
		log, err := NewLogger(&out, "info", "pretty")
		if err != nil {
			t.Fatal(err)
		}
		log.Info().Str("k", "v").Msg("hello")
		if !regexp.MustCompile(`^\d\d:\d\d:\d\d\.\d{3} INF hello k=v\n$`).MatchString(out.String()) {
			t.Errorf("line %q", &out)
		}
	})

	t.Run("lines from many goroutines stay whole", func(t *testing.T) {
		t.Parallel()
		var out bytes.Buffer // not safe by itself: the race detector watches
		log, err := NewLogger(&out, "info", "json")
		if err != nil {
			t.Fatal(err)
		}
		var logging sync.WaitGroup
		for range 8 {
			logging.Go(func() {
				for range 50 {
					log.Info().Msg("hello")
				}
			})
		}
		logging.Wait()
		if got := len(lines(t, out.String())); got != 400 {
			t.Errorf("%d lines, want 400", got)
		}
	})

	t.Run("what is wrong is said, all of it", func(t *testing.T) {
		t.Parallel()
		_, err := NewLogger(nil, "loud", "xml", 1, 2)
		for _, want := range []string{`log.level: "loud"`, `log.format: "xml"`, "log fields: key 1 is a int"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want %q in it", err, want)
			}
		}
		if _, err := NewLogger(nil, "info", "json", "alone"); err == nil {
			t.Error("a key without a value is accepted")
		}
		for _, level := range []string{"", "trace", "1"} {
			if _, err := NewLogger(nil, level, "json"); err == nil {
				t.Errorf("level %q is accepted", level)
			}
		}
	})
}

func TestStdLogger(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log, err := NewLogger(&out, "info", "json", "component", "http")
	if err != nil {
		t.Fatal(err)
	}
	std := StdLogger(log, zerolog.WarnLevel)
	std.Printf("http: panic serving %s: %v\nstack", "127.0.0.1", errors.New("x"))
	std.Print("second")
	got := lines(t, out.String())
	if len(got) != 2 {
		t.Fatalf("%d lines:\n%s", len(got), &out)
	}
	if got[0]["level"] != "warn" || got[0]["component"] != "http" || got[0]["message"] != "http: panic serving 127.0.0.1: x\nstack" {
		t.Errorf("first line %v", got[0])
	}
	if got[1]["message"] != "second" {
		t.Errorf("second line %v", got[1])
	}
}
