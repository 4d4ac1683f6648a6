package main

import (
	"context"
	"flag"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
)

// cronSet is `cron set`.
func cronSet(c *call, flags *flag.FlagSet) action {
	var (
		n       queue.NewCron
		payload = flags.String("payload", "null", "the `JSON` value handed to the jobs' handler; - reads it from stdin")
		catchUp = flags.String("catch-up", "", "what becomes of times that were missed, a `POLICY`: one job, all of them, or none (default one)")
		overlap = flags.String("overlap", "", "whether there is a job while the one before has not ended, a `POLICY`: allow or skip (default allow)")
		asJSON  = flags.Bool("json", false, "print JSON")
	)
	flags.StringVar(&n.TZ, "tz", "", "the time `ZONE` whose clocks the schedule means, such as Europe/Berlin (default UTC)")
	flags.StringVar(&n.Queue, "queue", "", "the `QUEUE` of the jobs (default: the type's)")
	intFlag(flags, &n.Priority, "priority", "`N` from -100 to 100, of the jobs; higher goes first")

	return func(ctx context.Context, args []string) error {
		n.Name, n.Schedule, n.Type = args[0], args[1], args[2]
		n.CatchUp, n.Overlap = queue.CatchUp(*catchUp), queue.Overlap(*overlap)
		if err := checkGiven(flags); err != nil {
			return err
		}
		var err error
		if n.Payload, err = c.payload(*payload); err != nil {
			return err
		}
		if err := n.Check(job.Known()); err != nil {
			return asFlags(err)
		}
		return c.withQueue(ctx, func(q *queue.Queue) error {
			s, _, err := q.SetCron(ctx, n)
			switch {
			case err != nil:
				return err
			case *asJSON:
				return c.printJSON(s)
			}
			return c.printStanding(s)
		})
	}
}

// printStanding says when a schedule comes next.
func (c *call) printStanding(s *queue.Cron) error {
	if s.Paused {
		return c.printf("%s is paused\n", s.Name)
	}
	return c.printf("%s comes next at %s\n", s.Name, s.NextAt)
}

// cronList is `cron list`.
func cronList(c *call, flags *flag.FlagSet) action {
	page := pageFlags(flags)
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, _ []string) error {
		if err := checkLimit(page.Limit); err != nil {
			return err
		}
		if !utf8.ValidString(page.Cursor) {
			return wrongUse("-cursor must be what an earlier list gave, not %s", quote(page.Cursor))
		}
		return c.withQueue(ctx, func(q *queue.Queue) error {
			list, next, err := q.Crons(ctx, page.Cursor, page.Limit)
			if err != nil {
				return err
			}
			if *asJSON {
				return c.printJSON(struct {
					Cron []queue.Cron `json:"cron"`
					Next *string      `json:"next_cursor"`
				}{list, orNil(next)})
			}
			t := newTable("NAME", "SCHEDULE", "TZ", "TYPE", "STATE", "NEXT", "LAST")
			for _, s := range list {
				state := "active"
				if s.Paused {
					state = "paused"
				}
				t.row(s.Name, short(s.Schedule), s.TZ, short(s.Type), state, instant(s.NextAt), instant(s.LastTick))
			}
			return c.printPage(t, next)
		})
	}
}

// cronShow is `cron show`.
func cronShow(c *call, flags *flag.FlagSet) action {
	return c.useCron(flags, (*queue.Queue).Cron, func(s *queue.Cron) error {
		coming, err := s.Coming(3)
		if err != nil {
			return err
		}
		t := newTable()
		for _, f := range []struct{ name, value string }{
			{"name", s.Name},
			{"schedule", s.Schedule},
			{"time zone", s.TZ},
			{"catch up", string(s.CatchUp)},
			{"overlap", string(s.Overlap)},
			{"paused", fmt.Sprint(s.Paused)},
			{"type", s.Type},
			{"queue", text(s.Queue)},
			{"priority", fmt.Sprint(s.Priority)},
			{"payload", compact(s.Payload)},
			{"last tick", instant(s.LastTick)},
			{"last job", text(s.LastJobID)},
			{"created", s.CreatedAt.String()},
			{"updated", s.UpdatedAt.String()},
		} {
			t.row(f.name, f.value)
		}
		for _, at := range coming {
			t.row("comes at", at.Format(time.RFC3339))
		}
		return c.printf("%s", t)
	})
}

// cronPause is `cron pause`.
func cronPause(c *call, flags *flag.FlagSet) action {
	return c.useCron(flags, (*queue.Queue).PauseCron, c.printStanding)
}

// cronResume is `cron resume`.
func cronResume(c *call, flags *flag.FlagSet) action {
	return c.useCron(flags, (*queue.Queue).ResumeCron, c.printStanding)
}

// useCron is a command on the schedule that its argument names.
func (c *call) useCron(flags *flag.FlagSet, use func(*queue.Queue, context.Context, string) (*queue.Cron, error), show func(*queue.Cron) error) action {
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, args []string) error {
		if err := checkID(args[0]); err != nil {
			return err
		}
		return c.withQueue(ctx, func(q *queue.Queue) error {
			s, err := use(q, ctx, args[0])
			switch {
			case err != nil:
				return err
			case *asJSON:
				return c.printJSON(s)
			}
			return show(s)
		})
	}
}

// cronDelete is `cron delete`.
func cronDelete(c *call, _ *flag.FlagSet) action {
	return func(ctx context.Context, args []string) error {
		if err := checkID(args[0]); err != nil {
			return err
		}
		return c.withQueue(ctx, func(q *queue.Queue) error {
			if err := q.DeleteCron(ctx, args[0]); err != nil {
				return err
			}
			return c.printf("%s is deleted\n", args[0])
		})
	}
}

// cronTrigger is `cron trigger`.
func cronTrigger(c *call, flags *flag.FlagSet) action {
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, args []string) error {
		if err := checkID(args[0]); err != nil {
			return err
		}
		return c.withQueue(ctx, func(q *queue.Queue) error {
			e, err := q.TriggerCron(ctx, args[0])
			switch {
			case libsql.ClassOf(err) == libsql.Unknown:
				return fmt.Errorf("it is not known whether the job was stored; `queuerunner cron show %s` names the last one: %w", args[0], err)
			case err != nil:
				return err
			case *asJSON:
				return c.printJSON(e)
			case e.Duplicate:
				c.note("this job has not ended, and the schedule's jobs must not overlap; nothing was stored")
			}
			return c.printf("%s\n", e.ID)
		})
	}
}
