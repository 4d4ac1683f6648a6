package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
)

// verifyBound is how long the reading of a whole database may take.
const verifyBound = time.Hour

// verify is `verify`.
func verify(c *call, flags *flag.FlagSet) action {
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, _ []string) error {
		return c.withQueue(ctx, func(q *queue.Queue) error {
			rep, err := q.Verify(ctx)
			if err != nil {
				return err
			}
			if *asJSON {
				err = c.printJSON(rep)
			} else {
				err = c.printReport(rep)
			}
			if err == nil && len(rep.Violations) > 0 {
				return reported(exitFailed)
			}
			return err
		}, func(o *libsql.Options) { o.CallTimeout = verifyBound })
	}
}

func (c *call) printReport(rep *queue.Report) error {
	broken := map[string]bool{}
	for _, v := range rep.Violations {
		broken[v.Rule] = true
		if err := c.printf("%s\n", printable(v.Rule+": "+v.What+": "+v.Detail)); err != nil {
			return err
		}
	}
	if len(rep.Violations) == 0 {
		return c.printf("%d jobs, %d rules: no violation\n", rep.Jobs, rep.Rules)
	}
	listed := fmt.Sprintf("%d violations", len(rep.Violations))
	if rep.More {
		listed = "more than " + listed
	}
	return c.printf("%d jobs, %d rules: %s of %d rules\n", rep.Jobs, rep.Rules, listed, len(broken))
}
