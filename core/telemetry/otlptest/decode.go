package otlptest

import (
	"encoding/hex"
	"strings"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// Span is a span as it arrived. Ids are lower-case hex. Attribute values are
// string, bool, int64, float64, []byte, []any or map[string]any.
type Span struct {
	TraceID    string
	SpanID     string
	ParentID   string // "" for a root
	Name       string
	Kind       string // internal, server, client, producer or consumer
	Start, End time.Time
	Status     string // unset, ok or error
	StatusText string
	Scope      string
	Attributes map[string]any
	Resource   map[string]any
	Links      []Link
}

// Link points from one span to another.
type Link struct{ TraceID, SpanID string }

// Metric is one export of one instrument.
type Metric struct {
	Name     string
	Unit     string
	Scope    string
	Resource map[string]any
	Points   []Point
}

// Point is one series of a metric. A gauge or a counter has a Value; a
// histogram has a Count, and its sum as Value.
type Point struct {
	Attributes map[string]any
	Value      float64
	Count      uint64
}

func decodeSpans(resources []*tracepb.ResourceSpans) []Span {
	var spans []Span
	for _, resource := range resources {
		about := attributes(resource.GetResource().GetAttributes())
		for _, scope := range resource.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				span := Span{
					TraceID:    hex.EncodeToString(s.GetTraceId()),
					SpanID:     hex.EncodeToString(s.GetSpanId()),
					ParentID:   hex.EncodeToString(s.GetParentSpanId()),
					Name:       s.GetName(),
					Kind:       constant(s.GetKind().String(), "SPAN_KIND_"),
					Start:      time.Unix(0, int64(s.GetStartTimeUnixNano())).UTC(),
					End:        time.Unix(0, int64(s.GetEndTimeUnixNano())).UTC(),
					Status:     constant(s.GetStatus().GetCode().String(), "STATUS_CODE_"),
					StatusText: s.GetStatus().GetMessage(),
					Scope:      scope.GetScope().GetName(),
					Attributes: attributes(s.GetAttributes()),
					Resource:   about,
				}
				for _, l := range s.GetLinks() {
					span.Links = append(span.Links, Link{hex.EncodeToString(l.GetTraceId()), hex.EncodeToString(l.GetSpanId())})
				}
				spans = append(spans, span)
			}
		}
	}
	return spans
}

func decodeMetrics(resources []*metricpb.ResourceMetrics) []Metric {
	var metrics []Metric
	for _, resource := range resources {
		about := attributes(resource.GetResource().GetAttributes())
		for _, scope := range resource.GetScopeMetrics() {
			for _, m := range scope.GetMetrics() {
				metrics = append(metrics, Metric{
					Name: m.GetName(), Unit: m.GetUnit(), Scope: scope.GetScope().GetName(),
					Resource: about, Points: points(m),
				})
			}
		}
	}
	return metrics
}

func points(m *metricpb.Metric) []Point {
	var points []Point
	// The getters of the shapes that m does not have give nothing.
	for _, p := range append(m.GetGauge().GetDataPoints(), m.GetSum().GetDataPoints()...) {
		value := p.GetAsDouble()
		if i, ok := p.GetValue().(*metricpb.NumberDataPoint_AsInt); ok {
			value = float64(i.AsInt)
		}
		points = append(points, Point{Attributes: attributes(p.GetAttributes()), Value: value})
	}
	for _, p := range m.GetHistogram().GetDataPoints() {
		points = append(points, Point{Attributes: attributes(p.GetAttributes()), Value: p.GetSum(), Count: p.GetCount()})
	}
	for _, p := range m.GetExponentialHistogram().GetDataPoints() {
		points = append(points, Point{Attributes: attributes(p.GetAttributes()), Value: p.GetSum(), Count: p.GetCount()})
	}
	return points
}

func constant(name, prefix string) string {
	return strings.ToLower(strings.TrimPrefix(name, prefix))
}

func attributes(list []*commonpb.KeyValue) map[string]any {
	m := make(map[string]any, len(list))
	for _, kv := range list {
		m[kv.GetKey()] = value(kv.GetValue())
	}
	return m
}

func value(v *commonpb.AnyValue) any {
	switch v := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return v.StringValue
	case *commonpb.AnyValue_BoolValue:
		return v.BoolValue
	case *commonpb.AnyValue_IntValue:
		return v.IntValue
	case *commonpb.AnyValue_DoubleValue:
		return v.DoubleValue
	case *commonpb.AnyValue_BytesValue:
		return v.BytesValue
	case *commonpb.AnyValue_ArrayValue:
		values := make([]any, len(v.ArrayValue.GetValues()))
		for i, item := range v.ArrayValue.GetValues() {
			values[i] = value(item)
		}
		return values
	case *commonpb.AnyValue_KvlistValue:
		return attributes(v.KvlistValue.GetValues())
	}
	return nil
}
