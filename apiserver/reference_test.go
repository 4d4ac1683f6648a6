package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/reference"
)

// What the reference reads of an OpenAPI document.
type (
	apiDocument struct {
		Info       struct{ Description string }
		Paths      map[string]map[string]apiOperation
		Components struct{ Schemas map[string]apiSchema }
	}
	apiOperation struct {
		Summary, Description string
		Parameters           []struct {
			Name, In, Description string
			Required              bool
			Schema                apiSchema
		}
		RequestBody struct{ Content map[string]apiContent }
		Responses   map[string]struct {
			Description string
			Content     map[string]apiContent
		}
	}
	apiContent struct{ Schema apiSchema }
	apiSchema  struct {
		Ref         string `json:"$ref"`
		Type        any
		Format      string
		Description string
		Enum        []any
		Minimum     *json.Number
		Maximum     *json.Number
		MaxLength   *json.Number
		Default     any
		Items       *apiSchema
		AnyOf       []apiSchema
		Properties  map[string]apiSchema
		Required    []string
		Additional  any `json:"additionalProperties"`
	}
)

// docs/reference/api.md is the description that the service serves.
func TestReferenceOfTheAPI(t *testing.T) {
	t.Parallel()
	var doc apiDocument
	if err := json.Unmarshal([]byte(newFixture(t).get("/openapi.json").raw), &doc); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# API\n\n%s\n\nA running service has the same at `/openapi.json`. [access.md](../access.md) tells who may call what.\n", doc.Info.Description)
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		for _, method := range []string{"get", "post", "put", "patch", "delete"} {
			if op, ok := doc.Paths[path][method]; ok {
				op.write(&b, strings.ToUpper(method)+" "+path)
			}
		}
	}
	b.WriteString("\n# Objects\n")
	for _, name := range slices.Sorted(maps.Keys(doc.Components.Schemas)) {
		doc.Components.Schemas[name].write(&b, name)
	}
	reference.Hold(t, "api.md", b.String())
}

func (op apiOperation) write(b *strings.Builder, title string) {
	fmt.Fprintf(b, "\n## %s\n\n%s\n", title, op.Summary)
	if op.Description != "" {
		fmt.Fprintf(b, "\n%s\n", op.Description)
	}
	if len(op.Parameters) > 0 {
		b.WriteString("\n| parameter | in | type | meaning |\n|---|---|---|---|\n")
		for _, p := range op.Parameters {
			name := "`" + p.Name + "`"
			if p.Required {
				name += " (required)"
			}
			meaning := p.Description
			if meaning == "" {
				meaning = p.Schema.Description
			}
			fmt.Fprintf(b, "| %s | %s | %s | %s |\n", name, p.In, reference.Cell(p.Schema.kind()), reference.Cell(meaning))
		}
	}
	for _, mime := range slices.Sorted(maps.Keys(op.RequestBody.Content)) {
		fmt.Fprintf(b, "\nBody: `%s`, %s\n", mime, op.RequestBody.Content[mime].Schema.kind())
	}
	b.WriteString("\n| status | answer | |\n|---|---|---|\n")
	for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
		r := op.Responses[status]
		var kinds []string
		for _, mime := range slices.Sorted(maps.Keys(r.Content)) {
			kinds = append(kinds, "`"+mime+"` "+r.Content[mime].Schema.kind())
		}
		fmt.Fprintf(b, "| %s | %s | %s |\n", status, reference.Cell(strings.Join(kinds, ", ")), reference.Cell(r.Description))
	}
}

func (s apiSchema) write(b *strings.Builder, name string) {
	fmt.Fprintf(b, "\n## %s\n", name)
	if s.Description != "" {
		fmt.Fprintf(b, "\n%s\n", s.Description)
	}
	if len(s.Properties) == 0 {
		fmt.Fprintf(b, "\n%s\n", s.kind())
		return
	}
	b.WriteString("\n| field | type | meaning |\n|---|---|---|\n")
	for _, field := range slices.Sorted(maps.Keys(s.Properties)) {
		p := s.Properties[field]
		shown := "`" + field + "`"
		if slices.Contains(s.Required, field) {
			shown += " (required)"
		}
		fmt.Fprintf(b, "| %s | %s | %s |\n", shown, reference.Cell(p.kind()), reference.Cell(p.Description))
	}
}

// kind is a schema in words.
func (s apiSchema) kind() string {
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		return "[" + name + "](#" + strings.ToLower(name) + ")"
	}
	if len(s.AnyOf) > 0 {
		kinds := make([]string, len(s.AnyOf))
		for i, any := range s.AnyOf {
			kinds[i] = any.kind()
		}
		return strings.Join(kinds, " or ")
	}
	var words string
	switch typ := s.Type.(type) {
	case string:
		words = typ
	case []any:
		parts := make([]string, len(typ))
		for i, p := range typ {
			parts[i] = fmt.Sprint(p)
		}
		words = strings.Join(parts, " or ")
	default:
		words = "any JSON"
	}
	if s.Items != nil {
		words += " of " + s.Items.kind()
	}
	if s.Format != "" {
		words += " (" + s.Format + ")"
	}
	if len(s.Enum) > 0 {
		values := make([]string, len(s.Enum))
		for i, v := range s.Enum {
			values[i] = fmt.Sprintf("`%v`", v)
			if v == nil {
				values[i] = "null"
			}
		}
		words += ": " + strings.Join(values, ", ")
	}
	if s.Minimum != nil {
		words += ", from " + s.Minimum.String()
	}
	if s.Maximum != nil {
		words += ", to " + s.Maximum.String()
	}
	if s.MaxLength != nil {
		words += ", at most " + s.MaxLength.String() + " characters"
	}
	if s.Default != nil {
		words += fmt.Sprintf(", default `%v`", s.Default)
	}
	return words
}
