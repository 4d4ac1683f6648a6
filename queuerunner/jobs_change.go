package main

import (
	"context"
	"flag"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
)

// jobsCancel is `jobs cancel`.
func jobsCancel(c *call, flags *flag.FlagSet) action {
	return c.changeJob(flags, (*queue.Queue).Cancel)
}

// jobsRetry is `jobs retry`.
func jobsRetry(c *call, flags *flag.FlagSet) action {
	return c.changeJob(flags, (*queue.Queue).Retry)
}

func (c *call) changeJob(flags *flag.FlagSet, change func(*queue.Queue, context.Context, string) (*job.Job, error)) action {
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, args []string) error {
		if err := checkID(args[0]); err != nil {
			return err
		}
		return c.withQueue(ctx, func(q *queue.Queue) error {
			j, err := change(q, ctx, args[0])
			switch {
			case err != nil:
				return err
			case *asJSON:
				return c.printJSON(j)
			case j.State == job.Running && j.CancelRequestedAt != nil:
				return c.printf("%s is running and was asked to stop\n", j.ID)
			}
			return c.printf("%s is %s\n", j.ID, j.State)
		})
	}
}
