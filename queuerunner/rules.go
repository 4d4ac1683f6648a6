package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/mail/rulefile"
)

// largestRules bounds a file of rules, so that naming the wrong file is an
// error and not an exhausted memory.
const largestRules = 16 << 20

// rulesAdd is `rules add`.
func rulesAdd(c *call, flags *flag.FlagSet) action {
	file := flags.String("file", "", "the `FILE` with one rule or several, JSON or (NAME.toml) TOML; - reads JSON from stdin; required")
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, _ []string) error {
		if *file == "" {
			return wrongUse("-file is required")
		}
		text, err := c.readRules(*file)
		if err != nil {
			return err
		}
		rules, err := parseRules(*file, text)
		if err != nil {
			return err
		}
		return c.withStore(ctx, func(s *mail.Store) error {
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

// parseRules reads a file of rules; its name says whether it is TOML.
func parseRules(file string, text []byte) ([]mail.NewRule, error) {
	parse := rulefile.ParseJSON
	if strings.HasSuffix(strings.ToLower(file), ".toml") {
		parse = rulefile.ParseTOML
	}
	list, err := parse(text)
	if err != nil {
		return nil, wrongUse("the rules in %s: %s", quote(file), printable(err.Error()))
	}
	return list, nil
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
