package telemetry

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

func sampledSpan() sdktrace.ReadOnlySpan {
	return tracetest.SpanStub{Name: "s", SpanContext: trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled,
	})}.Snapshot()
}

// stuckExporter is a collector that takes a batch and does not answer until the
// connection is closed.
type stuckExporter struct {
	taken, closed chan struct{}
	once          *sync.Once
}

func (e stuckExporter) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error {
	close(e.taken)
	<-e.closed
	return errors.New("closed")
}

func (e stuckExporter) Shutdown(context.Context) error {
	e.once.Do(func() { close(e.closed) })
	return nil
}

func TestStuckExport(t *testing.T) {
	t.Parallel()
	out := new(lockedBuffer)
	log := zerolog.New(out)
	exporter := stuckExporter{make(chan struct{}), make(chan struct{}), new(sync.Once)}
	q := newSpanQueue(exporter, 1)
	tel := &Telemetry{
		log: log, handler: newErrorHandler(log, time.Now), queue: q, bound: time.Millisecond,
		tracers: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(q)), meters: sdkmetric.NewMeterProvider(),
	}
	_, span := tel.tracers.Tracer("test").Start(t.Context(), "s")
	span.End()
	<-exporter.taken
	if err := tel.Shutdown(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want a deadline", err)
	}
	if !strings.Contains(out.String(), `"unsent":1`) {
		t.Errorf("logged %s, want the span that is under way as unsent", out)
	}
	select {
	case <-exporter.closed:
	case <-bounded(t).Done():
		t.Error("the export was left hanging")
	}
}

func TestSpanQueue(t *testing.T) {
	t.Parallel()

	t.Run("what it has no room for is counted, and nothing else", func(t *testing.T) {
		t.Parallel()
		behind := tracetest.NewSpanRecorder()
		exported := tracetest.NewInMemoryExporter()
		q := &spanQueue{SpanProcessor: behind, exporter: exported, size: 4}
		for range 10 {
			q.OnEnd(sampledSpan())
		}
		if got := q.loss(); got != (Loss{QueueFull: 6}) || len(behind.Ended()) != 4 {
			t.Errorf("lost %+v, let in %d; want 6 and 4", got, len(behind.Ended()))
		}
		// A batch that leaves makes room for as many.
		if err := (countingExporter{exported, q}).ExportSpans(t.Context(), behind.Ended()[:3]); err != nil {
			t.Fatal(err)
		}
		for range 4 {
			q.OnEnd(sampledSpan())
		}
		if got := q.loss(); got != (Loss{QueueFull: 7}) || q.unsent() != 4 {
			t.Errorf("lost %+v, waiting %d; want 7 and 4", got, q.unsent())
		}
	})

	t.Run("a span that is not sampled takes no room", func(t *testing.T) {
		t.Parallel()
		q := &spanQueue{SpanProcessor: tracetest.NewSpanRecorder(), size: 1}
		for range 3 {
			q.OnEnd(tracetest.SpanStub{Name: "s"}.Snapshot())
		}
		if q.loss() != (Loss{}) || q.unsent() != 0 {
			t.Errorf("lost %+v, waiting %d", q.loss(), q.unsent())
		}
	})

	t.Run("under concurrent ends every span arrives or is counted", func(t *testing.T) {
		t.Parallel()
		exported := tracetest.NewInMemoryExporter()
		// The exporter of this kind forgets at Shutdown; count before it does.
		q := newSpanQueue(exported, 64)
		const goroutines, each = 8, 500
		var ending sync.WaitGroup
		for range goroutines {
			ending.Go(func() {
				for range each {
					q.OnEnd(sampledSpan())
				}
			})
		}
		ending.Wait()
		if err := q.ForceFlush(t.Context()); err != nil {
			t.Fatal(err)
		}
		arrived := len(exported.GetSpans())
		if total := int64(arrived) + q.loss().QueueFull; total != goroutines*each || q.unsent() != 0 {
			t.Errorf("%d arrived + %d lost, %d waiting; want %d in all", arrived, q.loss().QueueFull, q.unsent(), goroutines*each)
		}
		if err := q.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})

	t.Run("its size comes from the standard variable, or is large", func(t *testing.T) {
		t.Parallel()
		for want, cfg := range map[int]Config{
			spanQueueSize: config("", ""),
			7:             config("", "", "OTEL_BSP_MAX_QUEUE_SIZE=7"),
		} {
			if got, err := cfg.queueSize(); err != nil || got != want {
				t.Errorf("size %d, %v; want %d", got, err, want)
			}
		}
	})
}
