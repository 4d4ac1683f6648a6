package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"path/filepath"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/mail"
)

// accountsAdd is `accounts add`.
func accountsAdd(c *call, flags *flag.FlagSet) action {
	email := flags.String("email", "", "the account's `ADDRESS`; required")
	path := flags.String("path", "", "the Maildir's `FOLDER`, as the runner sees it; made on first use; required")
	name := flags.String("display-name", "", "the `NAME` of its owner")
	queueName := flags.String("queue", "", "the `QUEUE` whose runners see the folder (default \"default\")")
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, _ []string) error {
		if *email == "" || *path == "" {
			return wrongUse("-email and -path are required")
		}
		// A runner may have been started in another folder.
		folder, err := filepath.Abs(*path)
		if err != nil {
			return fmt.Errorf("find the folder of -path: %w", err)
		}
		for _, s := range []string{folder, *queueName} {
			if err := job.CheckText("config", s, 4096); err != nil { // JSON would repair it silently
				return asFlags(err)
			}
		}
		return c.withStore(ctx, func(s *mail.Store) error {
			a, err := s.CreateAccount(ctx, mail.NewAccount{
				Provider: "maildir", Email: *email, DisplayName: *name,
				Config: job.Payload(mail.MaildirConfig{Path: folder, Queue: *queueName}),
			})
			switch {
			case err != nil:
				return fmt.Errorf("add account: %w", asFlags(err))
			case *asJSON:
				return c.printJSON(a)
			}
			return c.printf("%s\n", a.ID)
		})
	}
}

// accountsList is `accounts list`.
func accountsList(c *call, flags *flag.FlagSet) action {
	page := pageFlags(flags)
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, _ []string) error {
		if err := checkLimit(page.Limit); err != nil {
			return err
		}
		return c.withStore(ctx, func(s *mail.Store) error {
			list, next, err := s.Accounts(ctx, *page)
			if err != nil {
				return asFlags(err)
			}
			if *asJSON {
				return c.printJSON(struct {
					Accounts []mail.Account `json:"accounts"`
					Next     *string        `json:"next_cursor"`
				}{list, orNil(next)})
			}
			t := newTable("ID", "PROVIDER", "EMAIL", "NAME", "CONFIG", "LAST SYNC", "STATE")
			for _, a := range list {
				t.row(a.ID, a.Provider, a.Email, orDash(a.DisplayName), compact(a.Config), syncText(a), stateText(a))
			}
			return c.printPage(t, next)
		})
	}
}

// status is what the runner notes about an account.
func status(a mail.Account) (s struct {
	LastSyncAt *job.Time `json:"last_sync_at"`
	LastError  *string   `json:"last_error"`
	Problems   int       `json:"problems"`
	TakingIn   int       `json:"taking_in"`
	Unreadable []struct {
		Name    string `json:"name"`
		Problem string `json:"problem"`
	} `json:"unreadable"`
}) {
	_ = json.Unmarshal(a.State, &s) // what does not decode is not shown
	return s
}

func syncText(a mail.Account) string {
	if at := status(a).LastSyncAt; at != nil {
		return at.String()
	}
	return "never"
}

func stateText(a mail.Account) string {
	s := status(a)
	switch {
	case a.Paused:
		return "paused"
	case s.LastError != nil:
		return "error: " + short(*s.LastError)
	case s.TakingIn > 0:
		return fmt.Sprintf("taking mail in, %d messages so far", s.TakingIn)
	case s.Problems > 0:
		return fmt.Sprintf("%d files or folders cannot be read", s.Problems)
	}
	return "fine"
}

// accountsShow is `accounts show`.
func accountsShow(c *call, flags *flag.FlagSet) action {
	return c.changeAccount(flags, (*mail.Store).Account)
}

// accountsPause is `accounts pause`.
func accountsPause(c *call, flags *flag.FlagSet) action {
	yes := true
	return c.changeAccount(flags, func(s *mail.Store, ctx context.Context, id string) (*mail.Account, error) {
		return s.UpdateAccount(ctx, id, mail.AccountChange{Paused: &yes})
	})
}

// accountsResume is `accounts resume`.
func accountsResume(c *call, flags *flag.FlagSet) action {
	no := false
	return c.changeAccount(flags, func(s *mail.Store, ctx context.Context, id string) (*mail.Account, error) {
		return s.UpdateAccount(ctx, id, mail.AccountChange{Paused: &no})
	})
}

// accountsResync is `accounts resync`.
func accountsResync(c *call, flags *flag.FlagSet) action {
	return c.changeAccount(flags, (*mail.Store).Resync)
}

func (c *call) changeAccount(flags *flag.FlagSet, change func(*mail.Store, context.Context, string) (*mail.Account, error)) action {
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, args []string) error {
		if err := checkID(args[0]); err != nil {
			return err
		}
		return c.withStore(ctx, func(s *mail.Store) error {
			a, err := change(s, ctx, args[0])
			if err != nil {
				return err
			}
			if *asJSON {
				return c.printJSON(a)
			}
			t := newTable()
			t.row("id", a.ID)
			t.row("email", a.Email)
			t.row("config", compact(a.Config))
			t.row("last sync", syncText(*a))
			t.row("state", stateText(*a))
			noted := status(*a)
			if noted.LastError != nil {
				t.row("last error", *noted.LastError)
			}
			for _, u := range noted.Unreadable {
				t.row("not taken in", u.Name+": "+u.Problem)
			}
			return c.printf("%s", t)
		})
	}
}

// accountsRemove is `accounts remove`.
func accountsRemove(c *call, flags *flag.FlagSet) action {
	return c.startTask(flags, func(ctx context.Context, s *mail.Store, args []string) (*mail.Task, error) {
		return s.RemoveAccount(ctx, args[0])
	})
}

// importCommand is `import`.
func importCommand(c *call, flags *flag.FlagSet) action {
	account := flags.String("account", "", "the `ID` of the account that takes the mail in; required")
	format := flags.String("format", "", "what it is: `maildir, mbox or eml`; left out, the runner looks")
	rules := flags.Bool("rules", false, "let the rules judge what comes in")
	return c.startTask(flags, func(ctx context.Context, s *mail.Store, args []string) (*mail.Task, error) {
		if *account == "" {
			return nil, wrongUse("-account is required")
		}
		if err := checkID(*account); err != nil {
			return nil, err
		}
		path, err := filepath.Abs(args[0]) // a runner may have been started in another folder
		if err != nil {
			return nil, fmt.Errorf("find PATH: %w", err)
		}
		t, _, err := s.Import(ctx, job.ImportPayload{AccountID: *account, Path: path, Format: *format, ApplyRules: *rules})
		return t, err
	})
}

// pageFlags declares -limit and -cursor.
func pageFlags(flags *flag.FlagSet) *mail.PageOf {
	var p mail.PageOf
	limitFlag(flags, &p.Limit)
	flags.StringVar(&p.Cursor, "cursor", "", "go on where an earlier list ended")
	return &p
}

// printPage writes a list and says how to go on.
func (c *call) printPage(t *table, next string) error {
	if err := c.printf("%s", t); err != nil {
		return err
	}
	if next != "" {
		c.note("there may be more: -cursor %s", next)
	}
	return nil
}

func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
