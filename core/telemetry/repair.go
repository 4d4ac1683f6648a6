package telemetry

import (
	"slices"
	"strings"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// One string that is not UTF-8 in one span makes protobuf refuse the whole
// batch, 511 innocent spans with it. So spans are looked through before they
// are exported, off the path of the work they describe.

const replacement = "\uFFFD"

// repair returns s, or a view of it whose text is all UTF-8.
func repair(s sdktrace.ReadOnlySpan) sdktrace.ReadOnlySpan {
	sound := utf8.ValidString(s.Name()) && utf8.ValidString(s.Status().Description) && soundAll(s.Attributes()) &&
		!slices.ContainsFunc(s.Events(), func(e sdktrace.Event) bool { return !utf8.ValidString(e.Name) || !soundAll(e.Attributes) }) &&
		!slices.ContainsFunc(s.Links(), func(l sdktrace.Link) bool { return !soundAll(l.Attributes) })
	if sound {
		return s
	}
	return repairedSpan{s}
}

func soundAll(attrs []attribute.KeyValue) bool {
	return !slices.ContainsFunc(attrs, func(a attribute.KeyValue) bool {
		return !utf8.ValidString(string(a.Key)) || !soundValue(a.Value)
	})
}

func soundValue(v attribute.Value) bool {
	switch v.Type() {
	case attribute.STRING:
		return utf8.ValidString(v.AsString())
	case attribute.STRINGSLICE:
		return !slices.ContainsFunc(v.AsStringSlice(), func(s string) bool { return !utf8.ValidString(s) })
	case attribute.SLICE:
		return !slices.ContainsFunc(v.AsSlice(), func(v attribute.Value) bool { return !soundValue(v) })
	case attribute.MAP:
		return soundAll(v.AsMap())
	}
	return true
}

type repairedSpan struct{ sdktrace.ReadOnlySpan }

func (s repairedSpan) Name() string { return validText(s.ReadOnlySpan.Name()) }

func (s repairedSpan) Attributes() []attribute.KeyValue {
	return repairAll(s.ReadOnlySpan.Attributes())
}

func (s repairedSpan) Status() sdktrace.Status {
	status := s.ReadOnlySpan.Status()
	status.Description = validText(status.Description)
	return status
}

func (s repairedSpan) Events() []sdktrace.Event {
	events := slices.Clone(s.ReadOnlySpan.Events())
	for i := range events {
		events[i].Name = validText(events[i].Name)
		events[i].Attributes = repairAll(events[i].Attributes)
	}
	return events
}

func (s repairedSpan) Links() []sdktrace.Link {
	links := slices.Clone(s.ReadOnlySpan.Links())
	for i := range links {
		links[i].Attributes = repairAll(links[i].Attributes)
	}
	return links
}

func repairAll(attrs []attribute.KeyValue) []attribute.KeyValue {
	fixed := make([]attribute.KeyValue, len(attrs))
	for i, a := range attrs {
		fixed[i] = attribute.KeyValue{Key: attribute.Key(validText(string(a.Key))), Value: repairValue(a.Value)}
	}
	return fixed
}

func repairValue(v attribute.Value) attribute.Value {
	switch v.Type() {
	case attribute.STRING:
		return attribute.StringValue(validText(v.AsString()))
	case attribute.STRINGSLICE:
		list := slices.Clone(v.AsStringSlice())
		for i := range list {
			list[i] = validText(list[i])
		}
		return attribute.StringSliceValue(list)
	case attribute.SLICE:
		list := slices.Clone(v.AsSlice())
		for i := range list {
			list[i] = repairValue(list[i])
		}
		return attribute.SliceValue(list...)
	case attribute.MAP:
		return attribute.MapValue(repairAll(v.AsMap())...)
	}
	return v
}

func validText(s string) string { return strings.ToValidUTF8(s, replacement) }
