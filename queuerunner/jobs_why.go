package main

import (
	"context"
	"flag"
	"fmt"
	"strings"

	"github.com/postroom/postroom/core/queue"
)

// jobsWhy is `jobs why`.
func jobsWhy(c *call, flags *flag.FlagSet) action {
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, args []string) error {
		if err := checkID(args[0]); err != nil {
			return err
		}
		return c.withQueue(ctx, func(q *queue.Queue) error {
			w, err := q.Why(ctx, args[0])
			switch {
			case err != nil:
				return err
			case *asJSON:
				return c.printJSON(w)
			}
			return c.printf("%s", explain(w))
		})
	}
}

// explain writes the reasons for a person, one a line.
func explain(w *queue.Why) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s is %s:\n", w.ID, w.State)
	for _, r := range w.Reasons {
		line := r.Text
		if r.Until != nil {
			line += ", until " + r.Until.String()
		}
		if len(r.Jobs) > 0 {
			line += ": " + strings.Join(r.Jobs, ", ")
		}
		fmt.Fprintf(&b, "  %s\n", printable(line))
	}
	if w.Ahead != nil && w.Reasons[0].Code != "in_line" { // which tells it itself
		more := ""
		if w.More {
			more = "more than "
		}
		fmt.Fprintf(&b, "  %s%d jobs stand before it in line\n", more, *w.Ahead)
	}
	return b.String()
}
