package main

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// truly corrects the schemas where huma, which reads them from the types of Go,
// says less than what is answered: a pointer is null where it is nil, also one
// to an object, a time, or a text out of a few.
func truly(schemas huma.Registry) {
	for _, name := range slices.Sorted(maps.Keys(schemas.Map())) {
		t := schemas.TypeFromRef("#/components/schemas/" + name)
		for t != nil && t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		if t == nil || t.Kind() != reflect.Struct {
			continue
		}
		properties := schemas.Map()[name].Properties
		for _, f := range reflect.VisibleFields(t) {
			tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			p, has := properties[tag]
			if !has || f.Type.Kind() != reflect.Pointer || strings.Contains(options, "omitempty") {
				continue
			}
			properties[tag] = orNull(p)
		}
	}
}

func orNull(s *huma.Schema) *huma.Schema {
	if s.Ref != "" {
		return &huma.Schema{AnyOf: []*huma.Schema{s, {Type: "null"}}, Description: s.Description}
	}
	s.Nullable = true
	if s.Enum != nil && !slices.Contains(s.Enum, nil) {
		s.Enum = append(s.Enum, nil)
	}
	return s
}

// The answers of the probes, as core/httpd writes them.
type (
	alive struct {
		Status  string `json:"status"`
		Version string `json:"version"`
	}
	healthy struct {
		Status     string  `json:"status"`
		Version    string  `json:"version"`
		Database   *string `json:"database" doc:"null when it was not asked."`
		Schema     *int64  `json:"schema"`
		Durability *string `json:"durability" doc:"What a commit survives: full, normal or unknown."`
	}
	readyAnswer struct {
		Status     string  `json:"status"`
		Version    string  `json:"version"`
		Database   *string `json:"database"`
		Schema     *int64  `json:"schema"`
		Durability *string `json:"durability"`
		Writer     *string `json:"writer" doc:"Whether writers get their turn: ok, blocked, full or unavailable."`
	}
)
