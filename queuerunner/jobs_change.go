package main

import (
	"context"
	"flag"
	"fmt"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/telemetry"
)

// jobsCancel is `jobs cancel`.
func jobsCancel(c *call, flags *flag.FlagSet) action {
	return c.changeJobs(flags, queue.ToCancel, "canceled or asked to stop", (*queue.Queue).Cancel)
}

// jobsRetry is `jobs retry`.
func jobsRetry(c *call, flags *flag.FlagSet) action {
	return c.changeJobs(flags, queue.ToRetry, "queued again", (*queue.Queue).Retry)
}

// jobsDelete is `jobs delete`.
func jobsDelete(c *call, flags *flag.FlagSet) action {
	return c.changeJobs(flags, queue.ToDelete, "deleted", func(q *queue.Queue, ctx context.Context, id string) (*job.Job, error) {
		return nil, q.Delete(ctx, id)
	})
}

// jobsRunNow is `jobs run-now`.
func jobsRunNow(c *call, flags *flag.FlagSet) action {
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, args []string) error {
		return c.changeJob(ctx, args[0], *asJSON, (*queue.Queue).RunNow)
	}
}

// changeJobs is a command that changes one job, or all that its flags choose.
func (c *call) changeJobs(flags *flag.FlagSet, change queue.Change, done string, one func(*queue.Queue, context.Context, string) (*job.Job, error)) action {
	filter := filterFlags(flags)
	dryRun := flags.Bool("dry-run", false, "count the jobs that the flags choose and change nothing")
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, args []string) error {
		f, err := filter()
		switch {
		case err != nil:
			return err
		case len(args) == 1 && (!f.IsEmpty() || *dryRun):
			return wrongUse("an ID stands alone, without -dry-run and flags that choose jobs")
		case len(args) == 1:
			return c.changeJob(ctx, args[0], *asJSON, one)
		case f.IsEmpty():
			return wrongUse("which ones? an ID, or flags that choose jobs, such as -state failed")
		}
		return c.withQueue(ctx, func(q *queue.Queue) error {
			all, err := c.changeAll(ctx, q, change, f, *dryRun)
			switch {
			case err != nil && all.Changed > 0:
				return fmt.Errorf("%d jobs were %s, then: %w", all.Changed, done, err)
			case err != nil:
				return err
			case *asJSON:
				return c.printJSON(manyChanged{*dryRun, all.Matched, all.Changed, skipped{all.KeyInUse, all.Moved}})
			case *dryRun:
				return c.printf("%d jobs would be %s\n", all.Matched, done)
			}
			if all.KeyInUse > 0 {
				c.note("%d stay as they are: another job has their key", all.KeyInUse)
			}
			if all.Moved > 0 {
				c.note("%d stay as they are: their state changed meanwhile", all.Moved)
			}
			return c.printf("%d jobs were %s\n", all.Changed, done)
		})
	}
}

// manyChanged is what became of many jobs, as JSON.
type manyChanged struct {
	DryRun  bool    `json:"dry_run"`
	Matched int64   `json:"matched"`
	Changed int64   `json:"changed"`
	Skipped skipped `json:"skipped"`
}

type skipped struct {
	KeyInUse     int64 `json:"key_in_use"`
	InvalidState int64 `json:"invalid_state"`
}

// changeAll goes through all jobs and says on a terminal how far it is.
func (c *call) changeAll(ctx context.Context, q *queue.Queue, change queue.Change, f queue.Filter, dryRun bool) (all queue.Changed, err error) {
	live := telemetry.IsTerminal(c.stderr)
	for {
		part, err := q.ChangeMany(ctx, change, f, all.Next, dryRun)
		if err != nil {
			return all, asFlags(err)
		}
		all = queue.Changed{
			Matched: all.Matched + part.Matched, Changed: all.Changed + part.Changed,
			KeyInUse: all.KeyInUse + part.KeyInUse, Moved: all.Moved + part.Moved, Next: part.Next,
		}
		if all.Next == 0 {
			break
		}
		if live {
			_, _ = fmt.Fprintf(c.stderr, "\r%d found, %d changed\x1b[K", all.Matched, all.Changed) // nowhere left to report it
		}
	}
	if live {
		_, _ = fmt.Fprint(c.stderr, "\r\x1b[K")
	}
	return all, nil
}

// changeJob changes one job and shows how it is then; nil when it is gone.
func (c *call) changeJob(ctx context.Context, id string, asJSON bool, change func(*queue.Queue, context.Context, string) (*job.Job, error)) error {
	if err := checkID(id); err != nil {
		return err
	}
	return c.withQueue(ctx, func(q *queue.Queue) error {
		j, err := change(q, ctx, id)
		switch {
		case err != nil:
			return err
		case asJSON && j == nil:
			return c.printJSON(map[string]string{"id": id})
		case asJSON:
			return c.printJSON(j)
		case j == nil:
			return c.printf("%s is deleted\n", printable(id))
		case j.State == job.Running && j.CancelRequestedAt != nil:
			return c.printf("%s is running and was asked to stop\n", j.ID)
		}
		return c.printf("%s is %s\n", j.ID, j.State)
	})
}
