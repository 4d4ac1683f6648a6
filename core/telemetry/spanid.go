package telemetry

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"strconv"

	"go.opentelemetry.io/otel/trace"
)

// spanIDs makes the ids of spans: random ones, unless the context names one.
type spanIDs struct{}

type spanIDKey struct{}

// NewIDs implements sdktrace.IDGenerator.
func (spanIDs) NewIDs(context.Context) (id trace.TraceID, span trace.SpanID) {
	for !id.IsValid() {
		binary.NativeEndian.PutUint64(id[:8], rand.Uint64())
		binary.NativeEndian.PutUint64(id[8:], rand.Uint64())
	}
	return id, randomSpanID()
}

// NewSpanID implements sdktrace.IDGenerator.
func (spanIDs) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	if id, named := ctx.Value(spanIDKey{}).(trace.SpanID); named {
		return id
	}
	return randomSpanID()
}

func randomSpanID() (id trace.SpanID) {
	for !id.IsValid() {
		binary.NativeEndian.PutUint64(id[:], rand.Uint64())
	}
	return id
}

// attemptID is the id of the span of a job's attempt. It follows from which
// attempt it is, so that the next one, in another process perhaps, links to it
// and nobody has to store it.
func attemptID(job string, attempt int) trace.SpanID {
	sum := sha256.Sum256(strconv.AppendInt([]byte(job+" "), int64(attempt), 10))
	return trace.SpanID(sum[:8])
}
