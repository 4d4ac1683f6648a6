package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// traceParentKey is the field's name in W3C Trace Context.
const traceParentKey = "traceparent"

// TraceParent returns the W3C traceparent of the span in ctx, for a job's row;
// "" when there is no span.
func TraceParent(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier[traceParentKey]
}

// ContextWithTraceParent makes the span that traceParent names the parent of
// the spans started from the context it returns. What is not a traceparent is
// ignored.
func ContextWithTraceParent(ctx context.Context, traceParent string) context.Context {
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{traceParentKey: traceParent})
}

// TraceID returns the trace id inside a traceparent, "" when it is not one.
func TraceID(traceParent string) string {
	span := trace.SpanContextFromContext(ContextWithTraceParent(context.Background(), traceParent))
	if !span.IsValid() {
		return ""
	}
	return span.TraceID().String()
}
