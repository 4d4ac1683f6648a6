package main

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strconv"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
)

// Sizes of a page of a list.
const (
	defaultPage = 50
	largestPage = 200
)

// jobsList is `jobs list`.
func jobsList(c *call, flags *flag.FlagSet) action {
	filter := filterFlags(flags)
	var limit int
	limitFlag(flags, &limit)
	cursor := flags.String("cursor", "", "go on where an earlier list ended")
	asJSON := flags.Bool("json", false, "print JSON")

	return func(ctx context.Context, _ []string) error {
		f, err := filter()
		if err != nil {
			return err
		}
		if err := checkLimit(limit); err != nil {
			return err
		}
		var before int64
		if *cursor != "" {
			if before, err = strconv.ParseInt(*cursor, 10, 64); err != nil || before < 1 {
				return wrongUse("-cursor must be what an earlier list gave, not %s", quote(*cursor))
			}
		}
		return c.withQueue(ctx, func(q *queue.Queue) error {
			p, err := q.List(ctx, f, limit, before)
			if err != nil {
				return err
			}
			if *asJSON {
				return c.printJSON(jobPage{Jobs: p.Jobs, Next: cursorOf(p), Partial: p.Partial})
			}
			return c.printJobs(p)
		})
	}
}

// filterFlags declares the flags that choose jobs and returns what reads them.
func filterFlags(flags *flag.FlagSet) func() (queue.Filter, error) {
	var f queue.Filter
	flags.StringVar(&f.State, "state", "", "only jobs in this `STATE`: queued, running, completed, failed or canceled")
	flags.StringVar(&f.Type, "type", "", "only jobs of this `TYPE`")
	flags.StringVar(&f.Queue, "queue", "", "only jobs in this `QUEUE`")
	flags.StringVar(&f.Key, "key", "", "only jobs with this idempotency or limit `KEY`")
	from := flags.String("created-from", "", "only jobs stored at or after this `TIME`, such as 2027-01-31T08:00:00Z")
	before := flags.String("created-before", "", "only jobs stored before this `TIME`")
	payload := flags.String("payload", "", "only jobs whose payload has this `FIELD=VALUE`, such as user.id=7")
	return func() (queue.Filter, error) {
		if err := checkGiven(flags); err != nil {
			return f, err
		}
		if f.State != "" && !slices.Contains(job.States, job.State(f.State)) {
			return f, wrongUse("-state must be queued, running, completed, failed or canceled, not %s", quote(f.State))
		}
		if err := checkUTF8([]string{f.Type, f.Queue, f.Key}); err != nil {
			return f, err
		}
		var err error
		if f.From, err = timeFlag("created-from", *from); err != nil {
			return f, err
		}
		if f.Before, err = timeFlag("created-before", *before); err != nil {
			return f, err
		}
		if *payload != "" {
			f.Payload, err = queue.ParseInside(*payload)
		}
		return f, asFlags(err)
	}
}

// jobPage is a list of jobs as JSON.
type jobPage struct {
	Jobs    []job.Job `json:"jobs"`
	Next    *string   `json:"next_cursor"`
	Partial bool      `json:"partial,omitempty"`
}

func cursorOf(p queue.Page) *string {
	if p.Next == 0 {
		return nil
	}
	s := strconv.FormatInt(p.Next, 10)
	return &s
}

func (c *call) printJobs(p queue.Page) error {
	t := newTable("ID", "TYPE", "QUEUE", "STATE", "ATTEMPTS", "CREATED", "LAST ERROR")
	for _, j := range p.Jobs {
		t.row(j.ID, short(j.Type), short(j.Queue), string(j.State),
			fmt.Sprintf("%d/%d", j.Attempts, j.MaxAttempts), j.CreatedAt.String(), orDash(j.LastError))
	}
	if err := c.printf("%s", t); err != nil {
		return err
	}
	if next := cursorOf(p); next != nil {
		c.note("there may be more: -cursor %s", *next)
	}
	return nil
}

func checkLimit(n int) error {
	if n < 1 || n > largestPage {
		return wrongUse("-limit must be from 1 to %d, not %d", largestPage, n)
	}
	return nil
}
