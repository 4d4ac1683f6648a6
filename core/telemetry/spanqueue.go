package telemetry

import (
	"context"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// spanQueueSize is sixteen times the SDK's default. A job with five steps is
// about seven spans, so the default overflows when 300 jobs end during one
// slow export; this one holds some 4,700 jobs. A job's span takes
// 0.9 KiB while it waits, so a collector that is down costs about 30 MiB.
const spanQueueSize = 1 << 15

// spanQueue is the SDK's batching processor with a door in front that counts.
// The SDK drops what its queue cannot hold and tells nobody; here the door
// closes first, so whatever is lost is known.
type spanQueue struct {
	sdktrace.SpanProcessor // the batching processor
	exporter               sdktrace.SpanExporter
	size                   int64

	waiting atomic.Int64 // ended and not yet handed to the exporter
	sending atomic.Int64 // with the exporter now
	full    atomic.Int64
	failed  atomic.Int64
}

func newSpanQueue(exporter sdktrace.SpanExporter, size int) *spanQueue {
	q := &spanQueue{exporter: exporter, size: int64(size)}
	q.SpanProcessor = sdktrace.NewBatchSpanProcessor(countingExporter{exporter, q}, func(o *sdktrace.BatchSpanProcessorOptions) {
		o.MaxQueueSize = size
		// A batch larger than all that may wait would never be full.
		o.MaxExportBatchSize = min(o.MaxExportBatchSize, size)
	})
	return q
}

// OnEnd lets a span in or counts it as lost. It never blocks.
func (q *spanQueue) OnEnd(s sdktrace.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	if q.waiting.Add(1) > q.size {
		q.waiting.Add(-1)
		q.full.Add(1)
		return
	}
	q.SpanProcessor.OnEnd(s)
}

// countingExporter repairs a batch and tells the queue what became of it.
type countingExporter struct {
	sdktrace.SpanExporter
	q *spanQueue
}

func (e countingExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	n := int64(len(spans))
	e.q.sending.Add(n)
	e.q.waiting.Add(-n)
	repaired := make([]sdktrace.ReadOnlySpan, len(spans))
	for i, s := range spans {
		repaired[i] = repair(s)
	}
	err := e.SpanExporter.ExportSpans(ctx, repaired)
	if err != nil {
		e.q.failed.Add(n)
	}
	e.q.sending.Add(-n)
	return err
}

// The methods below may be called on a nil queue, which loses nothing.

func (q *spanQueue) loss() Loss {
	if q == nil {
		return Loss{}
	}
	return Loss{QueueFull: q.full.Load(), ExportFailed: q.failed.Load()}
}

func (q *spanQueue) unsent() int64 {
	if q == nil {
		return 0
	}
	return q.waiting.Load() + q.sending.Load()
}

// discard closes the exporter, which ends an export that hangs and makes the
// next ones fail at once, and then the processor.
func (q *spanQueue) discard(ctx context.Context) error {
	if q == nil {
		return nil
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_ = q.exporter.Shutdown(ended) // only says that the context has ended
	return q.Shutdown(ctx)
}

// observe publishes the losses as a metric.
func (q *spanQueue) observe(meter metric.Meter) error {
	if q == nil {
		return nil
	}
	full := metric.WithAttributes(attribute.String("reason", "queue_full"))
	failed := metric.WithAttributes(attribute.String("reason", "export_failed"))
	_, err := meter.Int64ObservableCounter("postroom.telemetry.spans.lost",
		metric.WithUnit("{span}"),
		metric.WithDescription("Spans that did not arrive at the collector."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			lost := q.loss()
			o.Observe(lost.QueueFull, full)
			o.Observe(lost.ExportFailed, failed)
			return nil
		}))
	return err
}
