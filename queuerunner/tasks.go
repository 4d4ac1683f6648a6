package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/telemetry"
)

// taskLook is how often a task that is waited for is looked at.
const taskLook = 250 * time.Millisecond

// startTask stores a task and, unless -detach is given, shows how far it is
// until it ends. The work itself is a runner's.
func (c *call) startTask(flags *flag.FlagSet, start func(context.Context, *mail.Store, []string) (*mail.Task, error)) action {
	detach := flags.Bool("detach", false, "print the task's id and do not wait for its end")
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, args []string) error {
		return c.withStore(ctx, func(s *mail.Store) error {
			t, err := start(ctx, s, args)
			if err != nil {
				return asFlags(err)
			}
			if !*detach {
				if t, err = c.follow(ctx, s, t); err != nil {
					return err
				}
			}
			if *asJSON {
				err = c.printJSON(t)
			} else if *detach {
				err = c.printf("%s\n", t.ID)
			} else {
				err = c.printf("%s\n", taskLine(t))
			}
			if err == nil && t.State != nil && !*detach && *t.State != string(job.Completed) {
				return fmt.Errorf("the task is %s; `queuerunner jobs retry %s` goes on where it stopped", *t.State, t.ID)
			}
			return err
		})
	}
}

// follow shows a task's progress on stderr until its job is final.
func (c *call) follow(ctx context.Context, s *mail.Store, t *mail.Task) (*mail.Task, error) {
	live := telemetry.IsTerminal(c.stderr)
	if !live {
		c.note("task %s: waiting for a runner to end it", t.ID)
	}
	tick := time.NewTicker(taskLook)
	defer tick.Stop()
	for {
		if live {
			_, _ = fmt.Fprintf(c.stderr, "\r%s\x1b[K", taskLine(t)) // nowhere left to report it
		}
		if t.State == nil || job.State(*t.State).Final() {
			if live {
				_, _ = fmt.Fprintln(c.stderr)
			}
			return t, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("the task goes on without this command: queuerunner tasks show %s", t.ID), context.Cause(ctx))
		}
		var err error
		if t, err = s.Task(ctx, t.ID); err != nil {
			return nil, err
		}
	}
}

// taskLine is a bar and the counts of a task.
func taskLine(t *mail.Task) string {
	counts := fmt.Sprint(t.Done)
	bar := ""
	if t.Total != nil && *t.Total > 0 {
		bar = drawBar(t.Done, *t.Total)
		counts += fmt.Sprintf(" of %d", *t.Total)
	}
	state := "forgotten"
	if t.State != nil {
		state = *t.State
	}
	line := fmt.Sprintf("%s%s: %s done, %d changed", bar, state, counts, t.Changed)
	over := t.State == nil || job.State(*t.State).Final()
	switch {
	case t.Problems > 0:
		line += fmt.Sprintf(", %d problems, the last: %s", t.Problems, orDash(t.LastProblem))
	case t.LastProblem != nil && !over:
		line += "; it waits: " + *t.LastProblem
	}
	if t.LastError != nil && (!over || t.State != nil && *t.State == string(job.Failed)) {
		line += "; the last try failed: " + *t.LastError
	}
	return printable(line)
}

// tasksShow is `tasks show`.
func tasksShow(c *call, flags *flag.FlagSet) action {
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, args []string) error {
		if err := checkID(args[0]); err != nil {
			return err
		}
		return c.withStore(ctx, func(s *mail.Store) error {
			t, err := s.Task(ctx, args[0])
			switch {
			case err != nil:
				return err
			case *asJSON:
				return c.printJSON(t)
			}
			return c.printf("%s\n", taskLine(t))
		})
	}
}

// tasksList is `tasks list`.
func tasksList(c *call, flags *flag.FlagSet) action {
	account := flags.String("account", "", "only tasks of the account with this `ID`")
	page := pageFlags(flags)
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, _ []string) error {
		if err := checkLimit(page.Limit); err != nil {
			return err
		}
		if err := job.CheckText("-account", *account, job.MaxName); err != nil {
			return err
		}
		return c.withStore(ctx, func(s *mail.Store) error {
			list, next, err := s.Tasks(ctx, *account, *page)
			if err != nil {
				return asFlags(err)
			}
			if *asJSON {
				return c.printJSON(struct {
					Tasks []mail.Task `json:"tasks"`
					Next  *string     `json:"next_cursor"`
				}{list, orNil(next)})
			}
			t := newTable("ID", "KIND", "CREATED", "PROGRESS")
			for i := range list {
				t.row(list[i].ID, list[i].Kind, list[i].CreatedAt.String(), taskLine(&list[i]))
			}
			return c.printPage(t, next)
		})
	}
}
