package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
)

// jobsEnqueue is `jobs enqueue`.
func jobsEnqueue(c *call, flags *flag.FlagSet) action {
	var (
		n         job.New
		payload   = flags.String("payload", "null", "the `JSON` value handed to the job's handler; - reads it from stdin")
		scope     = flags.String("key-scope", "", "how long the key holds: active, until or forever (default: the type's)")
		notBefore = flags.String("not-before", "", "start no earlier than this `TIME`, such as 2027-01-31T08:00:00Z")
		after     = flags.String("after", "", "the `ID,ID,…` of jobs that must end first")
		failure   = flags.String("after-failure", "", "what becomes of it when one of those does not complete: cancel (the default), run or wait")
		asJSON    = flags.Bool("json", false, "print JSON")
	)
	flags.StringVar(&n.ID, "id", "", "the job's `UUID`; the same id again is the same request")
	flags.StringVar(&n.Queue, "queue", "", "the `QUEUE` it waits in (default: the type's)")
	intFlag(flags, &n.Priority, "priority", "`N` from -100 to 100; higher goes first")
	intFlag(flags, &n.MaxAttempts, "max-attempts", "`N` failures until it is failed for good (default: the type's)")
	durationFlag(flags, &n.Delay, "delay", "start no earlier than this `DURATION` from now, such as 90s")
	flags.StringVar(&n.Key, "key", "", "the idempotency `KEY`: another job of the type with this key is not stored")
	durationFlag(flags, &n.KeyTTL, "key-ttl", "for which `DURATION` a key of the scope until holds (default: the type's)")
	flags.StringVar(&n.LimitKey, "limit-key", "", "the `KEY` by which it shares a limit with other jobs")

	return func(ctx context.Context, args []string) error {
		n.Type, n.KeyScope, n.AfterFailure = args[0], job.Scope(*scope), job.AfterFailure(*failure)
		if err := checkGiven(flags); err != nil {
			return err
		}
		var err error
		if n.NotBefore, err = timeFlag("not-before", *notBefore); err != nil {
			return err
		}
		if *after != "" {
			n.After = strings.Split(*after, ",")
		}
		if n.Payload, err = c.payload(*payload); err != nil {
			return err
		}
		if err := n.Check(job.Known()); err != nil {
			return asFlags(err)
		}
		return c.withQueue(ctx, func(q *queue.Queue) error {
			if n.ID == "" {
				n.ID = q.NewID()
			}
			e, err := q.Enqueue(ctx, n)
			switch {
			case libsql.ClassOf(err) == libsql.Unknown:
				return fmt.Errorf("it is not known whether the job was stored; the same command with -id %s is safe: %w", n.ID, err)
			case err != nil:
				return asFlags(err)
			case *asJSON:
				return c.printJSON(e)
			case e.Pruned:
				c.note("a job that is no longer kept holds the key; nothing was stored")
			case e.Duplicate:
				c.note("this job holds the key already; nothing was stored")
			}
			return c.printf("%s\n", e.ID)
		})
	}
}

// checkGiven refuses flags that were given the value which stands for not
// given: a variable of a script that is not set must not change the meaning.
func checkGiven(flags *flag.FlagSet) error {
	var err error
	flags.Visit(func(f *flag.Flag) {
		switch value := f.Value.String(); f.Name {
		case "id", "queue", "key", "key-scope", "limit-key", "not-before", "payload", "result", "tz", "catch-up", "overlap", "after", "after-failure",
			"state", "type", "created-from", "created-before":
			if value == "" {
				err = wrongUse("-%s must not be empty", f.Name)
			}
		case "max-attempts", "key-ttl":
			if value == "0" || value == "0s" {
				err = wrongUse("-%s must not be 0", f.Name)
			}
		}
	})
	return err
}

// payload is the flag's value, or stdin.
func (c *call) payload(given string) (json.RawMessage, error) {
	if given != "-" {
		return json.RawMessage(given), nil
	}
	text, err := c.readStdin(job.MaxPayload)
	return json.RawMessage(bytes.TrimSpace(text)), err
}

// readStdin reads all of it, up to a bound.
func (c *call) readStdin(bound int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(c.stdin, bound+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read stdin: %w", err)
	case int64(len(text)) > bound:
		return nil, wrongUse("stdin holds more than %d bytes", bound)
	}
	return text, nil
}

// checkID refuses what no id can be before the database is asked.
func checkID(id string) error {
	if id == "" || !utf8.ValidString(id) {
		return wrongUse("%s is no id", quote(id))
	}
	return nil
}
