package main

import (
	"context"
	"flag"
	"fmt"
	"strconv"
	"strings"

	"github.com/postroom/postroom/core/queue"
)

// limitPage is a list of limits as JSON.
type limitPage struct {
	Limits []queue.Limit `json:"limits"`
	Next   *string       `json:"next_cursor"`
}

// limitsList is `limits list`.
func limitsList(c *call, flags *flag.FlagSet) action {
	var limit int
	limitFlag(flags, &limit)
	cursor := flags.String("cursor", "", "go on where an earlier list ended")
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, _ []string) error {
		if err := checkLimit(limit); err != nil {
			return err
		}
		if err := checkUTF8([]string{*cursor}); err != nil {
			return err
		}
		return c.withQueue(ctx, func(q *queue.Queue) error {
			list, next, err := q.LimitsPage(ctx, *cursor, limit)
			if err != nil {
				return err
			}
			if *asJSON {
				p := limitPage{Limits: list}
				if next != "" {
					p.Next = &next
				}
				return c.printJSON(p)
			}
			t := newTable("SCOPE", "NAME", "AT MOST", "APART", "RUNNING")
			for _, l := range list {
				apart := "-"
				if l.Interval > 0 {
					apart = l.Interval.String()
				}
				t.row(l.Scope, short(l.Name), number(l.MaxRunning), apart, fmt.Sprint(l.Running))
			}
			if err := c.printf("%s", t); err != nil {
				return err
			}
			if next != "" {
				c.note("there are more: -cursor %s", quote(next))
			}
			return nil
		})
	}
}

// limitsSet is `limits set`.
func limitsSet(c *call, flags *flag.FlagSet) action {
	var l queue.Limit
	flags.Func("max-running", "how many jobs may run at once, `N`; 0 lets none start (default: any number)", func(s string) error {
		n, err := strconv.ParseInt(s, 10, 64)
		l.MaxRunning = &n
		if err != nil {
			return fmt.Errorf("must be a whole number, not %s", quote(s))
		}
		return nil
	})
	durationFlag(flags, &l.Interval, "interval", "of a key: the least `DURATION` between two starts, such as 1s (default: none)")
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, args []string) error {
		l.Scope, l.Name = args[0], args[1]
		return c.withQueue(ctx, func(q *queue.Queue) error {
			if err := q.SetLimit(ctx, l); err != nil {
				return asFlags(err)
			}
			set, err := q.GetLimit(ctx, l.Scope, l.Name)
			switch {
			case err != nil:
				return err
			case *asJSON:
				return c.printJSON(set)
			}
			return c.printf("%s\n", limitText(set))
		})
	}
}

// limitText is a limit in words.
func limitText(l *queue.Limit) string {
	what := l.Scope + " " + printable(l.Name)
	if l.Scope == queue.LimitKey && l.Name == queue.EachKey {
		what = "each key without a limit of its own"
	}
	var words []string
	if l.MaxRunning != nil {
		words = append(words, fmt.Sprintf("at most %d at once", *l.MaxRunning))
	}
	if l.Interval > 0 {
		words = append(words, fmt.Sprintf("starts %s apart", l.Interval))
	}
	return what + ": " + strings.Join(words, ", ")
}

// limitsDrop is `limits drop`.
func limitsDrop(c *call, _ *flag.FlagSet) action {
	return func(ctx context.Context, args []string) error {
		if err := checkUTF8(args); err != nil {
			return err
		}
		return c.withQueue(ctx, func(q *queue.Queue) error {
			if err := q.DropLimit(ctx, args[0], args[1]); err != nil {
				return err
			}
			return c.printf("%s %s has no limit any more\n", args[0], printable(args[1]))
		})
	}
}
