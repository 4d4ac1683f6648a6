package main

import (
	"context"
	"flag"
	"fmt"
	"unicode/utf8"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
)

// queueList is a list of queues as JSON.
type queueList struct {
	Queues []queue.Depth `json:"queues"`
	Next   *string       `json:"next_cursor"` // always null: the list is whole
}

// queuesList is `queues list`.
func queuesList(c *call, flags *flag.FlagSet) action {
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, _ []string) error {
		return c.withQueue(ctx, func(q *queue.Queue) error {
			list, err := q.Queues(ctx)
			switch {
			case err != nil:
				return err
			case *asJSON:
				return c.printJSON(queueList{Queues: list})
			}
			t := newTable("QUEUE", "PAUSED", "AT MOST", "QUEUED", "RUNNING", "COMPLETED", "FAILED", "CANCELED", "OLDEST WAITING")
			for _, d := range list {
				cells := []string{short(d.Name), yesNo(d.Paused), number(d.MaxRunning)}
				for _, s := range job.States {
					cells = append(cells, fmt.Sprint(d.Depth[s]))
				}
				t.row(append(cells, instant(d.OldestWaitingAt))...)
			}
			return c.printf("%s", t)
		})
	}
}

// queuesPause is `queues pause`.
func queuesPause(c *call, flags *flag.FlagSet) action {
	return c.changeQueue(flags, "paused", (*queue.Queue).Pause)
}

// queuesResume is `queues resume`.
func queuesResume(c *call, flags *flag.FlagSet) action {
	return c.changeQueue(flags, "not paused", (*queue.Queue).Resume)
}

func (c *call) changeQueue(flags *flag.FlagSet, becomes string, change func(*queue.Queue, context.Context, string) error) action {
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, args []string) error {
		return c.withQueue(ctx, func(q *queue.Queue) error {
			if err := change(q, ctx, args[0]); err != nil {
				return asFlags(err)
			}
			d, err := q.Depth(ctx, args[0])
			switch {
			case err != nil:
				return err
			case *asJSON:
				return c.printJSON(d)
			}
			return c.printf("queue %s is %s\n", printable(d.Name), becomes)
		})
	}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func number(n *int64) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprint(*n)
}

// checkUTF8 refuses arguments that no name in the database can be.
func checkUTF8(args []string) error {
	for _, a := range args {
		if !utf8.ValidString(a) {
			return wrongUse("%s is not valid UTF-8", quote(a))
		}
	}
	return nil
}
