package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"slices"
	"strings"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
)

// jobsShow is `jobs show`.
func jobsShow(c *call, flags *flag.FlagSet) action {
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, args []string) error {
		if err := checkID(args[0]); err != nil {
			return err
		}
		return c.withQueue(ctx, func(q *queue.Queue) error {
			d, err := q.Detail(ctx, args[0])
			if err != nil {
				return err
			}
			if *asJSON {
				return c.printJSON(d)
			}
			return c.printf("%s", showJob(d))
		})
	}
}

// showJob writes a job for a person to read.
func showJob(d *queue.Detail) string {
	var b strings.Builder
	facts := newTable()
	for _, f := range []struct{ name, value string }{
		{"id", d.ID},
		{"type", d.Type},
		{"queue", d.Queue},
		{"state", string(d.State)},
		{"priority", fmt.Sprint(d.Priority)},
		{"attempts", fmt.Sprintf("%d, failures %d of %d, crashes %d", d.Attempts, d.Failures, d.MaxAttempts, d.Crashes)},
		{"payload", compact(d.Payload)},
		{"result", compact(d.Result)},
		{"last error", text(d.LastError)},
		{"not before", instant(d.NotBefore)},
		{"idempotency key", text(d.IdempotencyKey)},
		{"limit key", text(d.LimitKey)},
		{"created", d.CreatedAt.String()},
		{"updated", d.UpdatedAt.String()},
		{"finished", instant(d.FinishedAt)},
		{"heartbeat", instant(d.HeartbeatAt)},
		{"cancel requested", instant(d.CancelRequestedAt)},
		{"claimed by", text(d.ClaimedBy)},
		{"after", afterText(d.After)},
		{"parent", text(d.ParentID)},
		{"trace", text(d.TraceID)},
	} {
		facts.row(f.name, f.value)
	}
	b.WriteString(facts.String())
	if len(d.Steps) > 0 {
		t := newTable("STEP", "RUN", "OUTCOME", "STARTED", "FINISHED", "RESULT", "ERROR")
		for _, s := range d.Steps {
			t.row(short(s.Name), fmt.Sprint(s.Run), string(s.Outcome), s.StartedAt.String(), instant(s.FinishedAt),
				short(compact(s.Result)), orDash(s.Error))
		}
		b.WriteString("\n" + t.String())
	}
	if d.State.Final() && slices.ContainsFunc(d.Steps, func(s job.Step) bool { return s.Outcome == job.StepUncertain }) {
		fmt.Fprintf(&b, "\nNobody could tell whether the uncertain step happened. Find out, then say so:\n  queuerunner jobs settle %s STEP -happened|-not-happened\n", d.ID)
	}
	if len(d.Runs) > 0 {
		t := newTable("RUN", "RUNNER", "OUTCOME", "STARTED", "FINISHED", "ERROR")
		for _, r := range d.Runs {
			t.row(fmt.Sprint(r.Run), short(r.Runner), r.Outcome, r.StartedAt.String(), r.FinishedAt.String(), orDash(r.Error))
		}
		b.WriteString("\n" + t.String())
	}
	b.WriteString("\n" + history(d.History))
	for _, r := range d.Runs {
		if r.Stack != nil {
			fmt.Fprintf(&b, "\nstack of run %d:\n%s\n", r.Run, printableLines(*r.Stack, "  "))
		}
	}
	return b.String()
}

// afterText lists the jobs that a job comes after, with what became of them.
func afterText(list []job.Dependency) string {
	if len(list) == 0 {
		return "-"
	}
	words := make([]string, len(list))
	for i, d := range list {
		words[i] = d.ID
		if d.Outcome != nil {
			words[i] += " (" + *d.Outcome + ")"
		}
	}
	return strings.Join(words, ", ")
}

// longestHistory is how many changes of state are shown: a job that snoozes
// for ever has thousands.
const longestHistory = 20

func history(list []job.Transition) string {
	t := newTable("AT", "STATE", "RUN")
	if n := len(list) - longestHistory; n > 0 {
		t.row("…", fmt.Sprintf("(%d more, with -json)", n))
		list = list[n:]
	}
	for _, h := range list {
		t.row(h.At.String(), string(h.State), fmt.Sprint(h.Run))
	}
	return t.String()
}

func text(s *string) string {
	if s == nil {
		return "-"
	}
	return *s
}

func instant(t *job.Time) string {
	if t == nil {
		return "-"
	}
	return t.String()
}

// compact writes JSON on one line.
func compact(v json.RawMessage) string {
	var b bytes.Buffer
	if err := json.Compact(&b, v); err != nil {
		return string(v) // what is stored was checked; whatever this is, show it
	}
	return b.String()
}
