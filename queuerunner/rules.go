package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	"github.com/postroom/postroom/core/mail"
)

// largestRules bounds a file of rules, so that naming the wrong file is an
// error and not an exhausted memory.
const largestRules = 16 << 20

// ruleText is a rule as a file holds it.
type ruleText struct {
	Name             string          `json:"name"`
	Description      string          `json:"description"`
	Scope            string          `json:"scope"`
	ScopeRef         string          `json:"scope_ref"`
	Priority         *int64          `json:"priority"`
	Enabled          *bool           `json:"enabled"`
	Conditions       json.RawMessage `json:"conditions"`
	ActionType       string          `json:"action_type"`
	ActionParameters json.RawMessage `json:"action_parameters"`
	SafeMode         string          `json:"safe_mode"`
}

// rulesAdd is `rules add`.
func rulesAdd(c *call, flags *flag.FlagSet) action {
	file := flags.String("file", "", "the JSON `FILE` with one rule or an array of them; - reads stdin; required")
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, _ []string) error {
		if *file == "" {
			return wrongUse("-file is required")
		}
		text, err := c.readRules(*file)
		if err != nil {
			return err
		}
		list, err := parseRules(text)
		if err != nil {
			return wrongUse("the rules in %s: %s", quote(*file), printable(err.Error()))
		}
		return c.withStore(ctx, func(s *mail.Store) error {
			rules := make([]mail.NewRule, len(list))
			for i, n := range list {
				rules[i] = mail.NewRule(n)
			}
			added, err := s.CreateRules(ctx, rules)
			if err != nil {
				return err
			}
			if *asJSON {
				return c.printJSON(map[string]any{"rules": added})
			}
			for _, r := range added {
				if err := c.printf("%s\n", r.ID); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

func (c *call) readRules(file string) ([]byte, error) {
	if file == "-" {
		return c.readStdin(largestRules)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, wrongUse("the file of rules cannot be read: %s", printable(err.Error()))
	}
	defer func() { _ = f.Close() }() // nothing was written
	text, err := io.ReadAll(io.LimitReader(f, largestRules+1))
	switch {
	case err != nil:
		return nil, wrongUse("the file of rules cannot be read: %s", printable(err.Error()))
	case len(text) > largestRules:
		return nil, wrongUse("the file of rules is larger than %d bytes", largestRules)
	}
	return text, nil
}

// parseRules reads one rule or an array of them. Its errors say where the
// mistake is.
func parseRules(text []byte) ([]ruleText, error) {
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
	rules := make([]ruleText, len(items))
	for i, item := range items {
		d := json.NewDecoder(bytes.NewReader(item))
		d.DisallowUnknownFields()
		err := d.Decode(&rules[i])
		if bytes.Equal(bytes.TrimSpace(item), []byte("null")) {
			err = errors.New("null is no rule")
		}
		if err != nil && len(items) > 1 {
			err = fmt.Errorf("rules[%d]: %w", i, err)
		}
		if err != nil {
			return nil, err
		}
	}
	return rules, nil
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

// rulesList is `rules list`.
func rulesList(c *call, flags *flag.FlagSet) action {
	page := pageFlags(flags)
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, _ []string) error {
		if err := checkLimit(page.Limit); err != nil {
			return err
		}
		return c.withStore(ctx, func(s *mail.Store) error {
			list, next, err := s.Rules(ctx, *page)
			if err != nil {
				return asFlags(err)
			}
			if *asJSON {
				return c.printJSON(struct {
					Rules []mail.Rule `json:"rules"`
					Next  *string     `json:"next_cursor"`
				}{list, orNil(next)})
			}
			t := newTable("ID", "PRIORITY", "SCOPE", "STATE", "ACTION", "NAME", "CONDITIONS")
			for _, r := range list {
				scope, state := r.Scope, "enabled"
				if r.ScopeRef != nil {
					scope += " " + short(*r.ScopeRef)
				}
				if !r.Enabled {
					state = "disabled"
				}
				if r.DisabledReason != nil {
					state += ": " + short(*r.DisabledReason)
				}
				t.row(r.ID, fmt.Sprint(r.Priority), scope, state, r.ActionType, short(r.Name), short(compact(r.Conditions)))
			}
			return c.printPage(t, next)
		})
	}
}
