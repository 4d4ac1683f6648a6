package main

import (
	"context"
	"flag"
	"strings"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/mail"
)

// messagesList is `messages list`.
func messagesList(c *call, flags *flag.FlagSet) action {
	var f mail.MessageFilter
	flags.StringVar(&f.Query, "q", "", "`WORDS` that all occur in sender, subject or text; \"a phrase\", begin*")
	flags.StringVar(&f.From, "from", "", "`WORDS` of the sender's name and address")
	flags.StringVar(&f.Subject, "subject", "", "`WORDS` of the subject")
	flags.StringVar(&f.Text, "text", "", "`WORDS` of the text")
	flags.StringVar(&f.Label, "label", "", "only messages with this `LABEL`")
	flags.StringVar(&f.Account, "account", "", "only messages of the account with this `ID`")
	flags.StringVar(&f.Thread, "thread", "", "only messages of the thread with this `ID`")
	flags.Func("after", "received at or after this `TIME`: 2026-01-31 or 2026-01-31T09:00:00Z", into(&f.After))
	flags.Func("before", "received before this `TIME`", into(&f.Before))
	page := pageFlags(flags)
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, _ []string) error {
		if err := checkLimit(page.Limit); err != nil {
			return err
		}
		for _, text := range []string{f.Label, f.Account, f.Thread} {
			if err := job.CheckText("argument", text, 1000); err != nil {
				return err
			}
		}
		return c.withStore(ctx, func(s *mail.Store) error {
			list, next, err := s.Messages(ctx, f, *page)
			if err != nil {
				return asFlags(err)
			}
			if *asJSON {
				return c.printJSON(struct {
					Messages []mail.Message `json:"messages"`
					Next     *string        `json:"next_cursor"`
				}{list, orNil(next)})
			}
			t := newTable("ID", "RECEIVED", "FROM", "SUBJECT", "AUTOMATIC", "LABELS", "DECISION")
			for _, m := range list {
				received, decision := "-", "-"
				if m.ReceivedAt != nil {
					received = m.ReceivedAt.String()
				}
				if m.Decision != nil {
					decision = m.Decision.ActionType
				}
				t.row(m.ID, received, orDash(m.FromEmail), orDash(m.Subject), orDash(m.Automatic), compact(m.Labels), decision)
			}
			return c.printPage(t, next)
		})
	}
}

// into reads a day or an instant.
func into(t *time.Time) func(string) error {
	return func(s string) error {
		layout := time.RFC3339
		if !strings.Contains(s, "T") {
			layout = time.DateOnly
		}
		v, err := time.Parse(layout, s)
		if err != nil {
			return wrongUse("a time such as 2026-01-31 or 2026-01-31T09:00:00Z is needed")
		}
		*t = v
		return nil
	}
}
