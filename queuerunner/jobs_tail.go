package main

import (
	"context"
	"flag"
	"time"

	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
)

// mostTailed is how many changes `jobs tail` looks back at most.
const mostTailed = 1000

// jobsTail is `jobs tail`.
func jobsTail(c *call, flags *flag.FlagSet) action {
	var filter queue.EventFilter
	flags.StringVar(&filter.JobID, "job", "", "only changes of the job with this `ID`")
	flags.StringVar(&filter.Type, "type", "", "only changes of jobs of this `TYPE`")
	flags.StringVar(&filter.Queue, "queue", "", "only changes of jobs in this `QUEUE`")
	follow := flags.Bool("f", false, "go on with what comes, until interrupted")
	last := flags.Int64("n", 10, "how many `CHANGES` to look back, of all jobs")
	asJSON := flags.Bool("json", false, "print JSON, an object a line")
	return func(ctx context.Context, _ []string) error {
		if *last < 0 || *last > mostTailed {
			return wrongUse("-n must be between 0 and %d, not %d", mostTailed, *last)
		}
		if err := checkUTF8([]string{filter.JobID, filter.Type, filter.Queue}); err != nil {
			return err
		}
		ctx, _, stop := system.StopSignals(ctx)
		defer stop()
		return c.withQueue(ctx, func(q *queue.Queue) error {
			err := c.tail(ctx, q, filter, *last, *follow, *asJSON)
			if ctx.Err() != nil {
				return nil // interrupted, as it is meant to be
			}
			return err
		})
	}
}

// tail prints changes from so many back to now, and goes on if it is to.
func (c *call) tail(ctx context.Context, q *queue.Queue, filter queue.EventFilter, back int64, follow, asJSON bool) error {
	events := queue.NewEvents(q, func(err error) {
		if err != nil {
			c.note("the log of transitions cannot be read; trying again: %v", err)
		}
	})
	defer events.Close()
	now, err := events.Listen(ctx, nil, queue.EventFilter{})
	if err != nil {
		return err
	}
	end := now.At()
	now.Close()
	from := queue.EventID{Epoch: end.Epoch, Seq: max(0, end.Seq-back)}
	for {
		err := c.tailFrom(ctx, events, &from, end, filter, follow, asJSON)
		if err != nil || !follow {
			return err
		}
	}
}

// tailFrom prints what comes after from, until it is at the end, unless it is
// to follow, or until the log begins anew.
func (c *call) tailFrom(ctx context.Context, events *queue.Events, from *queue.EventID, end queue.EventID, filter queue.EventFilter, follow, asJSON bool) error {
	l, err := events.Listen(ctx, from, filter)
	if err != nil {
		return err
	}
	defer l.Close()
	for follow || l.At().Seq < end.Seq {
		page, err := nextPage(ctx, l, follow)
		if err != nil {
			return err
		}
		for _, e := range page.Events {
			if !follow && e.Seq > end.Seq {
				return nil
			}
			if err := c.printEvent(e, asJSON); err != nil {
				return err
			}
		}
		*from = page.At
		if page.Reset {
			c.note("changes are missing here: they were pruned, or the database was restored")
			return nil
		}
	}
	return nil
}

// nextPage waits for what comes; where it is not to follow, not for long: what the
// filter keeps back is never shown.
func nextPage(ctx context.Context, l *queue.Listener, follow bool) (queue.EventPage, error) {
	if follow {
		return l.Next(ctx)
	}
	waiting, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	page, err := l.Next(waiting)
	if waiting.Err() != nil && ctx.Err() == nil {
		return queue.EventPage{At: l.At()}, nil
	}
	return page, err
}

func (c *call) printEvent(e *queue.Event, asJSON bool) error {
	if asJSON {
		return c.printf("%s\n", e.JSON)
	}
	return c.printf("%s  %s  %-9s  run %d  %s in %s\n", e.At, e.JobID, e.State, e.Run, printable(e.Type), printable(e.Queue))
}
