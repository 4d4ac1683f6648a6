package main

import (
	"context"
	"flag"
	"fmt"
	"slices"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/mail"
	mailaction "github.com/postroom/postroom/core/mail/action"
)

// actionsAdd is `actions add`.
func actionsAdd(c *call, flags *flag.FlagSet) action {
	var p mail.ActionParameters
	flags.StringVar(&p.Folder, "folder", "", "the `FOLDER` of a move")
	flags.StringVar(&p.Label, "label", "", "the `LABEL` of apply_label and remove_label")
	flags.StringVar(&p.Until, "until", "", "the `TIME` of a snooze, as 2026-01-31T09:00:00Z")
	flags.StringVar(&p.For, "for", "", "or its amount of time, as 36h")
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, args []string) error {
		if err := checkID(args[0]); err != nil {
			return err
		}
		for _, s := range []string{p.Folder, p.Label, p.Until, p.For, args[1]} {
			if err := job.CheckText("argument", s, 4096); err != nil {
				return err
			}
		}
		return c.withStore(ctx, func(s *mail.Store) error {
			a, err := s.CreateAction(ctx, args[0], args[1], job.Payload(p))
			switch {
			case err != nil:
				return asFlags(err)
			case *asJSON:
				return c.printJSON(a)
			}
			return c.printf("%s is %s\n", a.ID, a.Status)
		})
	}
}

// actionsList is `actions list`.
func actionsList(c *call, flags *flag.FlagSet) action {
	var f mail.ActionFilter
	flags.StringVar(&f.Status, "status", "", "only actions in this `STATUS`: queued, executing, completed, failed, canceled, rejected or approved_pending")
	flags.StringVar(&f.Message, "message", "", "only actions on the message with this `ID`")
	flags.StringVar(&f.Account, "account", "", "only actions of the account with this `ID`")
	page := pageFlags(flags)
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, _ []string) error {
		if f.Status != "" && !slices.Contains(mailaction.Statuses, mailaction.Status(f.Status)) {
			return wrongUse("-status must be queued, executing, completed, failed, canceled, rejected or approved_pending, not %s", quote(f.Status))
		}
		for _, id := range []string{f.Message, f.Account} {
			if id != "" {
				if err := checkID(id); err != nil {
					return err
				}
			}
		}
		if err := checkLimit(page.Limit); err != nil {
			return err
		}
		return c.withStore(ctx, func(s *mail.Store) error {
			list, next, err := s.Actions(ctx, f, *page)
			if err != nil {
				return asFlags(err)
			}
			if *asJSON {
				return c.printJSON(struct {
					Actions []mail.Action `json:"actions"`
					Next    *string       `json:"next_cursor"`
				}{list, orNil(next)})
			}
			t := newTable("ID", "ACTION", "STATUS", "MESSAGE", "PARAMETERS", "UNDO", "CREATED", "ERROR")
			for _, a := range list {
				t.row(a.ID, a.ActionType, string(a.Status), a.MessageID, short(compact(a.Parameters)), undoState(a), a.CreatedAt.String(), orDash(a.ErrorMessage))
			}
			return c.printPage(t, next)
		})
	}
}

// undoState says whether an action can be taken back.
func undoState(a mail.Action) string {
	switch {
	case a.UndoneBy != nil:
		return "undone by " + *a.UndoneBy
	case a.Undoable:
		return "possible"
	}
	return "impossible"
}

// actionsShow is `actions show`.
func actionsShow(c *call, flags *flag.FlagSet) action {
	return c.changeAction(flags, (*mail.Store).Action)
}

// actionsApprove is `actions approve`.
func actionsApprove(c *call, flags *flag.FlagSet) action {
	return c.changeAction(flags, (*mail.Store).Approve)
}

// actionsReject is `actions reject`.
func actionsReject(c *call, flags *flag.FlagSet) action {
	reason := flags.String("reason", "", "`WHY`; kept with the action")
	return c.changeAction(flags, func(s *mail.Store, ctx context.Context, id string) (*mail.Action, error) {
		return s.Reject(ctx, id, *reason)
	})
}

// actionsCancel is `actions cancel`.
func actionsCancel(c *call, flags *flag.FlagSet) action {
	return c.changeAction(flags, (*mail.Store).CancelAction)
}

// actionsUndo is `actions undo`. It shows the action that takes the other back.
func actionsUndo(c *call, flags *flag.FlagSet) action {
	return c.changeAction(flags, func(s *mail.Store, ctx context.Context, id string) (*mail.Action, error) {
		undo, _, err := s.Undo(ctx, id)
		return undo, err
	})
}

func (c *call) changeAction(flags *flag.FlagSet, change func(*mail.Store, context.Context, string) (*mail.Action, error)) action {
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, args []string) error {
		if err := checkID(args[0]); err != nil {
			return err
		}
		return c.withStore(ctx, func(s *mail.Store) error {
			a, err := change(s, ctx, args[0])
			if err != nil {
				return asFlags(err)
			}
			if *asJSON {
				return c.printJSON(a)
			}
			t := newTable()
			row := func(name string, value any) { t.row(name, fmt.Sprint(value)) }
			row("id", a.ID)
			row("action", a.ActionType)
			row("parameters", compact(a.Parameters))
			row("status", a.Status)
			row("error", orDash(a.ErrorMessage))
			row("message", a.MessageID)
			row("undo", undoState(*a))
			row("created", a.CreatedAt)
			for _, at := range []struct {
				name string
				time *job.Time
			}{{"not before", a.NotBefore}, {"approval expires", a.ApprovalExpiresAt}, {"executed", a.ExecutedAt}} {
				if at.time != nil {
					row(at.name, *at.time)
				}
			}
			return c.printf("%s", t)
		})
	}
}
