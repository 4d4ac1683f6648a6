package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"

	"go.opentelemetry.io/otel/trace"
)

type valueError struct{}

func (valueError) Error() string { return "payload" }

func TestErrorKind(t *testing.T) {
	t.Parallel()
	plain := errors.New("payload")
	for want, errs := range map[string][]error{
		"_OTHER":               {plain, fmt.Errorf("x: %w", plain), errors.Join(plain, plain)},
		"canceled":             {context.Canceled, fmt.Errorf("x: %w", context.Canceled)},
		"timeout":              {context.DeadlineExceeded, &net.OpError{Err: context.DeadlineExceeded}},
		"telemetry.valueError": {valueError{}, fmt.Errorf("x: %w", valueError{}), errors.Join(plain, valueError{}), fmt.Errorf("%w %w", plain, valueError{})},
		"*fs.PathError":        {&os.PathError{Err: valueError{}}},
	} {
		for _, err := range errs {
			if got := errorKind(err); got != want {
				t.Errorf("%T %q: kind %q, want %q", err, err, got, want)
			}
		}
	}
}

func TestTraceParent(t *testing.T) {
	t.Parallel()
	const (
		traceID = "0af7651916cd43dd8448eb211c80319c"
		spanID  = "b7ad6b7169203331"
		parent  = "00-" + traceID + "-" + spanID + "-01"
	)

	t.Run("it survives a job's row", func(t *testing.T) {
		t.Parallel()
		ctx := ContextWithTraceParent(t.Context(), parent)
		span := trace.SpanContextFromContext(ctx)
		if !span.IsRemote() || !span.IsSampled() || span.SpanID().String() != spanID {
			t.Errorf("span %+v", span)
		}
		if got := TraceParent(ctx); got != parent {
			t.Errorf("traceparent %q, want %q", got, parent)
		}
		if got := TraceID(parent); got != traceID {
			t.Errorf("trace id %q, want %q", got, traceID)
		}
	})

	t.Run("a trace that is not sampled keeps its id and its decision", func(t *testing.T) {
		t.Parallel()
		const off = "00-" + traceID + "-" + spanID + "-00"
		if got := TraceParent(ContextWithTraceParent(t.Context(), off)); got != off {
			t.Errorf("traceparent %q, want %q", got, off)
		}
	})

	t.Run("no span, no traceparent", func(t *testing.T) {
		t.Parallel()
		if got := TraceParent(t.Context()); got != "" {
			t.Errorf("traceparent %q", got)
		}
	})

	t.Run("what is not a traceparent is ignored", func(t *testing.T) {
		t.Parallel()
		ctx := ContextWithTraceParent(t.Context(), parent)
		for _, bad := range []string{"", "x", parent[:54], parent + "x", "ff" + parent[2:],
			"00-00000000000000000000000000000000-" + spanID + "-01", "00-" + traceID + "-0000000000000000-01", "00-\xff"} {
			if got := TraceID(bad); got != "" {
				t.Errorf("%q: trace id %q", bad, got)
			}
			if got := TraceParent(ContextWithTraceParent(ctx, bad)); got != parent {
				t.Errorf("%q: traceparent %q, want that of the context before", bad, got)
			}
		}
	})
}
