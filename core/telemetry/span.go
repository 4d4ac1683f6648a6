package telemetry

import (
	"context"
	"errors"
	"reflect"
	"strings"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// scope is the instrumentation scope of the spans and metrics made here.
const scope = "github.com/postroom/postroom/core/telemetry"

// The attributes that no convention of OpenTelemetry has a name for.
const (
	AccountIDKey  = attribute.Key("postroom.account.id")
	MessageIDKey  = attribute.Key("postroom.message.id") // the row's id, not the header
	ActionTypeKey = attribute.Key("postroom.action.type")
	JobTypeKey    = attribute.Key("postroom.job.type")
	JobAttemptKey = attribute.Key("postroom.job.attempt")
	StepNameKey   = attribute.Key("postroom.step.name")
)

// EmailReceive starts the span "email.receive": a message of an account is
// taken in. Further attributes must say nothing of the message's text.
func EmailReceive(ctx context.Context, accountID string, attrs ...attribute.KeyValue) (context.Context, trace.Span) {
	return start(ctx, "email.receive", attrs, Text(AccountIDKey, accountID))
}

// EmailClassify starts the span "email.classify": the rules judge a message.
func EmailClassify(ctx context.Context, messageID string, attrs ...attribute.KeyValue) (context.Context, trace.Span) {
	return start(ctx, "email.classify", attrs, Text(MessageIDKey, messageID))
}

// EmailAction starts the span "email.action": something is done to a message.
func EmailAction(ctx context.Context, messageID, actionType string, attrs ...attribute.KeyValue) (context.Context, trace.Span) {
	return start(ctx, "email.action", attrs,
		Text(MessageIDKey, messageID), Text(ActionTypeKey, actionType))
}

// QueueEnqueue starts the span "queue.enqueue": a call stores jobs. It is the
// parent of their runs; [Enqueues] tells it which they are.
func QueueEnqueue(ctx context.Context) (context.Context, trace.Span) {
	return otel.Tracer(scope).Start(ctx, "queue.enqueue", trace.WithSpanKind(trace.SpanKindProducer))
}

// Enqueues puts down what a span of QueueEnqueue stores: n jobs, in one queue
// unless that is "". One job is named.
func Enqueues(span trace.Span, n int, queue, id, typ string) {
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(semconv.MessagingSystemKey.String("postroom"), semconv.MessagingOperationTypeSend, semconv.MessagingOperationName("enqueue"))
	if queue != "" {
		span.SetAttributes(Text(semconv.MessagingDestinationNameKey, queue))
	}
	if n == 1 {
		span.SetAttributes(Text(semconv.MessagingMessageIDKey, id), Text(JobTypeKey, typ))
	} else {
		span.SetAttributes(semconv.MessagingBatchMessageCount(n))
	}
}

// JobInfo is what a job's span says about the job.
type JobInfo struct {
	ID      string
	Type    string
	Queue   string
	Attempt int // counted from 1
	// LinkTo is a traceparent that the span is linked to instead of being its
	// child: for a job that runs for ever and would grow one trace without end.
	LinkTo string
}

// QueueJob starts the span "queue.job", one per attempt, as a child of the span
// in ctx, see [ContextWithTraceParent] for the enqueuer's, and linked to the
// attempt before.
func QueueJob(ctx context.Context, job JobInfo, attrs ...attribute.KeyValue) (context.Context, trace.Span) {
	if job.LinkTo != "" {
		origin := trace.SpanContextFromContext(ContextWithTraceParent(context.Background(), job.LinkTo))
		return otel.Tracer(scope).Start(ctx, "queue.job", trace.WithNewRoot(), trace.WithLinks(trace.Link{SpanContext: origin}),
			trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(job.attributes()...), trace.WithAttributes(attrs...))
	}
	parent := trace.SpanContextFromContext(ctx)
	var before []trace.Link
	if job.Attempt > 1 && parent.IsValid() {
		before = []trace.Link{{SpanContext: parent.WithSpanID(attemptID(job.ID, job.Attempt-1))}}
	}
	_, span := otel.Tracer(scope).Start(context.WithValue(ctx, spanIDKey{}, attemptID(job.ID, job.Attempt)), "queue.job", trace.WithLinks(before...),
		trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(job.attributes()...), trace.WithAttributes(attrs...))
	return trace.ContextWithSpan(ctx, span), span
}

func (job JobInfo) attributes() []attribute.KeyValue {
	return []attribute.KeyValue{
		semconv.MessagingSystemKey.String("postroom"),
		semconv.MessagingOperationTypeProcess,
		semconv.MessagingOperationName("process"),
		Text(semconv.MessagingDestinationNameKey, job.Queue),
		Text(semconv.MessagingMessageIDKey, job.ID),
		Text(JobTypeKey, job.Type),
		JobAttemptKey.Int(job.Attempt),
	}
}

// Route puts the route of a request, as net/http's patterns write it, into the
// span of ctx.
func Route(ctx context.Context, pattern string) {
	if _, route, ok := strings.Cut(pattern, " "); ok {
		trace.SpanFromContext(ctx).SetAttributes(semconv.HTTPRoute(route))
	}
}

// Step starts the span "queue.step": one step of a job. A run that nobody
// records has none.
func Step(ctx context.Context, name string, attrs ...attribute.KeyValue) (context.Context, trace.Span) {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return ctx, noop.Span{}
	}
	return start(ctx, "queue.step", attrs, Text(StepNameKey, name))
}

func start(ctx context.Context, name string, extra []attribute.KeyValue, own ...attribute.KeyValue) (context.Context, trace.Span) {
	return otel.Tracer(scope).Start(ctx, name, trace.WithSpanKind(trace.SpanKindInternal),
		trace.WithAttributes(own...), trace.WithAttributes(extra...))
}

// Text is a string attribute that is UTF-8 whatever the string holds. Spans are
// repaired before they leave in any case; a metric is not, and one broken
// attribute makes every later export of all metrics fail.
func Text(key attribute.Key, value string) attribute.KeyValue {
	return key.String(validText(value))
}

// End ends a span. An error makes its status an error and sets error.type, with
// the error's kind only: its text may hold anything.
func End(span trace.Span, err error) { EndWith(span, err, "") }

// EndWith is End with words for the status that the caller knows to be fit for
// a trace. They are used when err is not nil.
func EndWith(span trace.Span, err error, words string) {
	if err != nil {
		kind := errorKind(err)
		if words == "" {
			words = kind
		}
		span.SetAttributes(semconv.ErrorTypeKey.String(kind))
		span.SetStatus(codes.Error, words)
	}
	span.End()
}

// errorKind is "canceled", "timeout", the first type in err's tree that says
// more than that it is an error, or the convention's "_OTHER".
func errorKind(err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, context.Canceled):
		return "canceled"
	}
	if name := errorType(err); name != "" {
		return name
	}
	return semconv.ErrorTypeOther.Value.AsString()
}

func errorType(err error) string {
	if err == nil {
		return ""
	}
	t := reflect.TypeOf(err)
	named := t
	if t.Kind() == reflect.Pointer {
		named = t.Elem()
	}
	if p := named.PkgPath(); p != "" && p != "errors" && p != "fmt" {
		return t.String()
	}
	switch e := err.(type) { //nolint:errorlint // walks the tree itself
	case interface{ Unwrap() error }:
		return errorType(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			if name := errorType(inner); name != "" {
				return name
			}
		}
	}
	return ""
}
