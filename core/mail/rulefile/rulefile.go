// Package rulefile reads and writes files of deterministic rules: TOML, a
// [[rules]] table for each, or JSON, one rule or a list of them. What it writes
// it reads again as the same rules.
//
// It may import the standard library, go-toml, core/mail and core/job.
package rulefile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/mail"
)

// rule is a rule as a file holds it.
type rule struct {
	Name             string `json:"name" toml:"name"`
	Description      string `json:"description" toml:"description,omitempty"`
	Scope            string `json:"scope" toml:"scope,omitempty"`
	ScopeRef         string `json:"scope_ref" toml:"scope_ref,omitempty"`
	Priority         *int64 `json:"priority" toml:"priority,omitempty"`
	Enabled          *bool  `json:"enabled" toml:"enabled,omitempty"`
	DisabledReason   string `json:"disabled_reason" toml:"disabled_reason,omitempty"`
	SafeMode         string `json:"safe_mode" toml:"safe_mode,omitempty"`
	ActionType       string `json:"action_type" toml:"action_type"`
	ActionParameters any    `json:"action_parameters" toml:"action_parameters,omitempty,inline"`
	Conditions       any    `json:"conditions" toml:"conditions,inline"`
}

func (r rule) make() mail.NewRule {
	n := mail.NewRule{
		Name: r.Name, Description: r.Description, Scope: r.Scope, ScopeRef: r.ScopeRef, Priority: r.Priority, Enabled: r.Enabled,
		DisabledReason: r.DisabledReason, SafeMode: r.SafeMode, ActionType: r.ActionType,
	}
	if r.Conditions != nil {
		n.Conditions = job.Payload(r.Conditions)
	}
	if r.ActionParameters != nil {
		n.ActionParameters = job.Payload(r.ActionParameters)
	}
	return n
}

// ParseTOML reads a file of [[rules]] tables. Its errors say where a mistake
// is.
func ParseTOML(text []byte) ([]mail.NewRule, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("not valid UTF-8")
	}
	var file struct {
		Rules []rule `toml:"rules"`
	}
	d := toml.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(&file)
	var unknown *toml.StrictMissingError
	var wrong *toml.DecodeError
	switch {
	case errors.As(err, &unknown) && len(unknown.Errors) > 0:
		line, column := unknown.Errors[0].Position()
		return nil, fmt.Errorf("line %d, column %d: unknown field %q", line, column, strings.Join(unknown.Errors[0].Key(), "."))
	case errors.As(err, &wrong):
		line, column := wrong.Position()
		return nil, fmt.Errorf("line %d, column %d: %s", line, column, strings.TrimPrefix(wrong.Error(), "toml: "))
	case err != nil:
		return nil, err
	case len(file.Rules) == 0:
		return nil, errors.New("there is none: a rule is a [[rules]] table")
	}
	return made(file.Rules), nil
}

func made(list []rule) []mail.NewRule {
	out := make([]mail.NewRule, len(list))
	for i, r := range list {
		out[i] = r.make()
	}
	return out
}

// FormatTOML writes rules so that ParseTOML reads them again.
func FormatTOML(list []mail.Rule) ([]byte, error) {
	var out bytes.Buffer
	for i, r := range list {
		f := rule{
			Name: r.Name, Description: text(r.Description), Scope: r.Scope, ScopeRef: text(r.ScopeRef), Priority: &list[i].Priority,
			Enabled: &list[i].Enabled, DisabledReason: text(r.DisabledReason), ActionType: r.ActionType, SafeMode: r.SafeMode,
		}
		if err := json.Unmarshal(r.Conditions, &f.Conditions); err != nil {
			return nil, fmt.Errorf("rule %s: its conditions do not decode", r.ID)
		}
		var parameters map[string]any
		if err := json.Unmarshal(r.ActionParameters, &parameters); err != nil {
			return nil, fmt.Errorf("rule %s: its parameters do not decode", r.ID)
		}
		if len(parameters) > 0 {
			f.ActionParameters = parameters
		}
		if i > 0 {
			out.WriteByte('\n')
		}
		err := toml.NewEncoder(&out).SetArraysMultiline(false).Encode(struct {
			Rules []rule `toml:"rules"`
		}{[]rule{f}})
		if err != nil {
			return nil, fmt.Errorf("rule %s: %w", r.ID, err)
		}
	}
	return out.Bytes(), nil
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// ParseJSON reads one rule or a list of them. Its errors say where a mistake
// is.
func ParseJSON(text []byte) ([]mail.NewRule, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("not valid UTF-8")
	}
	var items []json.RawMessage
	if array := bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("[")); array {
		if err := json.Unmarshal(text, &items); err != nil {
			return nil, atLine(text, err)
		}
	} else if !json.Valid(text) {
		return nil, atLine(text, json.Unmarshal(text, new(any)))
	} else {
		items = []json.RawMessage{text}
	}
	if len(items) == 0 {
		return nil, errors.New("there is none")
	}
	list := make([]mail.NewRule, len(items))
	for i, item := range items {
		var r struct {
			rule
			// As they are, so that a field that comes twice is seen.
			ActionParameters json.RawMessage `json:"action_parameters"`
			Conditions       json.RawMessage `json:"conditions"`
		}
		d := json.NewDecoder(bytes.NewReader(item))
		d.DisallowUnknownFields()
		err := d.Decode(&r)
		if bytes.Equal(bytes.TrimSpace(item), []byte("null")) {
			err = errors.New("null is no rule")
		}
		if err != nil && len(items) > 1 {
			err = fmt.Errorf("rules[%d]: %w", i, err)
		}
		if err != nil {
			return nil, err
		}
		list[i] = r.make()
		list[i].Conditions, list[i].ActionParameters = r.Conditions, r.ActionParameters
	}
	return list, nil
}

// atLine adds the line and column to a syntax error.
func atLine(text []byte, err error) error {
	var syntax *json.SyntaxError
	if !errors.As(err, &syntax) {
		return err
	}
	before := text[:min(int(syntax.Offset), len(text))]
	line := 1 + bytes.Count(before, []byte("\n"))
	return fmt.Errorf("line %d, column %d: %w", line, len(before)-1-bytes.LastIndexByte(before, '\n'), err)
}
