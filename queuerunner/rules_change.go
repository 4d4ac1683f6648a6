package main

import (
	"context"
	"flag"
	"fmt"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/mail/rulefile"
)

// rulesImport is `rules import`.
func rulesImport(c *call, flags *flag.FlagSet) action {
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, args []string) error {
		text, err := c.readRules(args[0])
		if err != nil {
			return err
		}
		rules, err := parseRules(args[0], text)
		if err != nil {
			return err
		}
		return c.withStore(ctx, func(s *mail.Store) error {
			stored, replaced, err := s.ImportRules(ctx, rules)
			switch {
			case err != nil:
				return err
			case *asJSON:
				return c.printJSON(map[string]any{"rules": stored, "replaced": replaced})
			}
			return c.printf("%d added, %d replaced\n", len(stored)-replaced, replaced)
		})
	}
}

// rulesExport is `rules export`.
func rulesExport(c *call, _ *flag.FlagSet) action {
	return func(ctx context.Context, _ []string) error {
		return c.withStore(ctx, func(s *mail.Store) error {
			rules, err := s.AllRules(ctx)
			if err != nil {
				return err
			}
			text, err := rulefile.FormatTOML(rules)
			if err != nil {
				return err
			}
			return c.printf("%s", text)
		})
	}
}

// rulesEnable is `rules enable`.
func rulesEnable(c *call, flags *flag.FlagSet) action {
	on := true
	return c.changeRule(flags, func() mail.RuleChange { return mail.RuleChange{Enabled: &on} })
}

// rulesDisable is `rules disable`.
func rulesDisable(c *call, flags *flag.FlagSet) action {
	reason := flags.String("reason", "", "`WHY`; kept with the rule")
	off := false
	return c.changeRule(flags, func() mail.RuleChange { return mail.RuleChange{Enabled: &off, DisabledReason: reason} })
}

func (c *call) changeRule(flags *flag.FlagSet, change func() mail.RuleChange) action {
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, args []string) error {
		if err := checkID(args[0]); err != nil {
			return err
		}
		return c.withStore(ctx, func(s *mail.Store) error {
			r, err := s.UpdateRule(ctx, args[0], change())
			switch {
			case err != nil:
				return asFlags(err)
			case *asJSON:
				return c.printJSON(r)
			case r.Enabled:
				return c.printf("%s is enabled\n", r.ID)
			}
			return c.printf("%s is disabled\n", r.ID)
		})
	}
}

// rulesDelete is `rules delete`.
func rulesDelete(c *call, _ *flag.FlagSet) action {
	return func(ctx context.Context, args []string) error {
		if err := checkID(args[0]); err != nil {
			return err
		}
		return c.withStore(ctx, func(s *mail.Store) error {
			if err := s.DeleteRule(ctx, args[0]); err != nil {
				return err
			}
			return c.printf("%s is deleted\n", args[0])
		})
	}
}

// rulesTest is `rules test`.
func rulesTest(c *call, flags *flag.FlagSet) action {
	file := flags.String("file", "", "try the rules of this `FILE` (JSON, or NAME.toml), not the stored ones")
	account := flags.String("account", "", "only messages of the account with this `ID`")
	message := flags.String("message", "", "only the message with this `ID`")
	page := pageFlags(flags)
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, _ []string) error {
		if err := checkLimit(page.Limit); err != nil {
			return err
		}
		if err := job.CheckText("-account", *account, job.MaxName); err != nil {
			return err
		}
		t := mail.Trial{AccountID: *account, PageOf: *page}
		if *message != "" {
			if err := checkID(*message); err != nil {
				return err
			}
			t.Messages = []string{*message}
		}
		if *file != "" {
			text, err := c.readRules(*file)
			if err == nil {
				t.Rules, err = parseRules(*file, text)
			}
			if err != nil {
				return err
			}
		}
		return c.withStore(ctx, func(s *mail.Store) error {
			tried, next, err := s.DryRun(ctx, t)
			if err != nil {
				return asFlags(err)
			}
			if *asJSON {
				return c.printJSON(struct {
					Messages []mail.Tried `json:"messages"`
					Next     *string      `json:"next_cursor"`
				}{tried, orNil(next)})
			}
			rows := newTable("MESSAGE", "FROM", "SUBJECT", "RULE", "ACTION", "CHANGES")
			for _, m := range tried {
				act := m.ActionType
				if m.NeedsApproval {
					act += " (after approval)"
				}
				rows.row(m.MessageID, orDash(m.FromEmail), orDash(m.Subject), orDash(m.RuleName), act, changesText(m.Changes))
			}
			return c.printPage(rows, next)
		})
	}
}

func changesText(changes []mail.Change) string {
	text := "-"
	for i, ch := range changes {
		if i == 0 {
			text = ""
		} else {
			text += "; "
		}
		text += fmt.Sprintf("%s: %q → %q", ch.What, ch.Before, ch.After)
	}
	return text
}

// rulesApply is `rules apply`.
func rulesApply(c *call, flags *flag.FlagSet) action {
	account := flags.String("account", "", "only to mail of the account with this `ID`")
	return c.startTask(flags, func(ctx context.Context, s *mail.Store, _ []string) (*mail.Task, error) {
		if err := job.CheckText("-account", *account, job.MaxName); err != nil {
			return nil, err
		}
		t, _, err := s.ApplyRules(ctx, *account)
		return t, err
	})
}
