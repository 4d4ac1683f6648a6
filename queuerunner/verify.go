package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/mail/agent"
)

// verifyBound is how long the reading of a whole database may take.
const verifyBound = time.Hour

// verify is `verify`.
func verify(c *call, flags *flag.FlagSet) action {
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, _ []string) error {
		return c.withStore(ctx, func(s *mail.Store) error {
			end := c.busy("reading the database")
			rep, err := s.Verify(ctx)
			end()
			if err == nil {
				end = c.busy("comparing the files")
				err = agent.VerifyFiles(ctx, s, rep)
				end()
			}
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

func (c *call) printReport(rep *mail.Report) error {
	broken := map[string]bool{}
	for _, v := range rep.Violations {
		broken[v.Rule] = true
		if err := c.printf("%s\n", printable(v.Rule+": "+v.What+": "+v.Detail)); err != nil {
			return err
		}
	}
	for _, why := range rep.Skipped {
		c.note("not compared: %s", printable(why))
	}
	found := "no violation"
	if n := len(rep.Violations); n > 0 {
		found = fmt.Sprintf("%d violations of %d rules", n, len(broken))
		if rep.More {
			found = "more than " + found
		}
	}
	return c.printf("%d jobs, %d messages, %d files, %d rules: %s\n", rep.Jobs, rep.Messages, rep.Files, rep.Rules, found)
}
