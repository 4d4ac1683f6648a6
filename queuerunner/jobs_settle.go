package main

import (
	"context"
	"flag"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
)

// jobsSettle is `jobs settle`.
func jobsSettle(c *call, flags *flag.FlagSet) action {
	happened := flags.Bool("happened", false, "what the step does has been done: its result is replayed")
	not := flags.Bool("not-happened", false, "it has not been done: the step is executed")
	result := flags.String("result", "", "with -happened, the `JSON` value that the step would have returned (default: null); - reads it from stdin")
	asJSON := flags.Bool("json", false, "print JSON")

	return func(ctx context.Context, args []string) error {
		id, name := args[0], args[1]
		if err := checkID(id); err != nil {
			return err
		}
		if err := job.CheckText("STEP", name, job.MaxName); err != nil {
			return err
		}
		if err := checkGiven(flags); err != nil {
			return err
		}
		if *happened == *not {
			return wrongUse("did it happen? -happened or -not-happened")
		}
		s := queue.Settlement{Happened: *happened}
		if *result != "" {
			var err error
			if s.Result, err = c.payload(*result); err != nil {
				return err
			}
		}
		if err := s.Check(name); err != nil {
			return asFlags(err)
		}
		return c.withQueue(ctx, func(q *queue.Queue) error {
			settled, err := q.SettleStep(ctx, id, name, s)
			switch {
			case err != nil:
				return err
			case *asJSON:
				return c.printJSON(settled)
			}
			if err := c.printf("step %s is %s\n", printable(settled.Name), settled.Outcome); err != nil {
				return err
			}
			if settled.JobState != job.Completed {
				then := "executes"
				if settled.Outcome == job.StepDone {
					then = "replays"
				}
				c.note("the job stays %s; queuerunner jobs retry %s runs it again and %s the step", settled.JobState, settled.JobID, then)
			}
			return nil
		})
	}
}
