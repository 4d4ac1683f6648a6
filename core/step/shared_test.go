package step_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/step"
	"github.com/postroom/postroom/core/system"
)

// several is a number of claimed jobs whose steps are written by the same
// statements.
func several(t *testing.T, n int) (q *queue.Queue, ids []string, runs []context.Context) {
	t.Helper()
	db := dbtest.Open(t)
	q = queue.New(db, system.Real{}, job.Known())
	for range n {
		if _, err := q.Enqueue(t.Context(), job.New{Type: job.DebugEcho}); err != nil {
			t.Fatal(err)
		}
	}
	c, err := q.Claim(t.Context(), queue.ClaimRequest{Runner: "r", Token: q.NewToken(), Types: []string{job.DebugEcho}, Limit: n, Lease: time.Minute})
	if err != nil || len(c.Jobs) != n {
		t.Fatalf("claimed %d, %v", len(c.Jobs), err)
	}
	shared := dbtest.Gather(db, n)
	for _, j := range c.Jobs {
		ids = append(ids, j.JobID)
		runs = append(runs, step.NewContext(t.Context(), step.NewRecorder(step.Config{
			DB: shared, System: system.Real{}, Lease: j.Lease, Run: j.Run,
			LeaseEnds: func() time.Time { return j.Deadline }, Worker: t.Context(), Log: quiet,
		})))
	}
	return q, ids, runs
}

func change(t *testing.T, q *queue.Queue, sql string, args ...any) {
	t.Helper()
	var b libsql.Batch
	b.Exec(sql, args...)
	if _, err := q.DB().Write(t.Context(), &b); err != nil {
		t.Error(err)
	}
}

// together calls once for each of the runs at a time.
func together(runs []context.Context, call func(i int, ctx context.Context) error) []error {
	errs := make([]error, len(runs))
	var all sync.WaitGroup
	for i, ctx := range runs {
		all.Go(func() { errs[i] = call(i, ctx) })
	}
	all.Wait()
	return errs
}

// Steps of many jobs are written by one statement; each stands behind the lease
// of its own job, and who has lost that does not trouble the others.
func TestStepsThatShareAStatementHaveEachItsFence(t *testing.T) {
	t.Parallel()
	t.Run("of Run", func(t *testing.T) {
		t.Parallel()
		q, ids, runs := several(t, 6)
		change(t, q, "UPDATE jobs SET lease_token = 'another' WHERE id = ?", ids[1])
		change(t, q, "UPDATE jobs SET state = 'queued', lease_expires_at = NULL WHERE id = ?", ids[2])
		change(t, q, "DELETE FROM jobs WHERE id = ?", ids[3])
		change(t, q, `INSERT INTO job_steps(job_id, name, run, outcome, started_at, finished_at, result_json, created_at, updated_at)
		 VALUES (?, 'it''s "é"', 1, 'done', 1, 2, '"first"', 1, 2)`, ids[4])
		failed := errors.New("broken \x00 \"quoted\" \n twice")
		errs := together(runs, func(i int, ctx context.Context) error {
			_, err := step.Run(ctx, `it's "é"`, func(context.Context) (string, error) {
				if i == 5 {
					return "", failed
				}
				return strings.Repeat(`"é\`, 100_000) + fmt.Sprint(i), nil
			})
			return err
		})
		for i, want := range []error{nil, queue.ErrLeaseLost, queue.ErrLeaseLost, queue.ErrLeaseLost, nil, failed} {
			if !errors.Is(errs[i], want) || i == 5 && errors.Is(errs[i], queue.ErrLeaseLost) {
				t.Errorf("%d: %v, want %v", i, errs[i], want)
			}
		}
		for i, want := range []string{"done " + string(job.Payload(strings.Repeat(`"é\`, 100_000)+"0")) + " ", "", "", "-", `done "first" `, "failed null " + "broken \uFFFD \"quoted\" \n twice"} {
			got := "-"
			if d, err := q.Detail(t.Context(), ids[i]); err == nil {
				got = ""
				for _, s := range d.Steps {
					got += string(s.Outcome) + " " + string(s.Result) + " " + text(s.Error)
				}
			}
			if got != want {
				t.Errorf("%d: %.80s, want %.80s", i, got, want)
			}
		}
	})
	t.Run("of Once", func(t *testing.T) {
		t.Parallel()
		q, ids, runs := several(t, 3)
		errs := together(runs, func(i int, ctx context.Context) error {
			_, err := step.Once(ctx, "send", func(context.Context) (int, error) {
				if i == 1 {
					change(t, q, "UPDATE jobs SET lease_token = 'another' WHERE id = ?", ids[i])
				}
				if i == 2 {
					return 0, errBroken
				}
				return i, nil
			}, nil)
			return err
		})
		for i, want := range []error{nil, queue.ErrLeaseLost, errBroken} {
			if !errors.Is(errs[i], want) {
				t.Errorf("%d: %v, want %v", i, errs[i], want)
			}
		}
		for i, want := range []job.StepOutcome{job.StepDone, job.StepRunning, job.StepFailed} {
			d, err := q.Detail(t.Context(), ids[i])
			if err != nil {
				t.Fatal(err)
			}
			if s := the(t, d); s.Outcome != want {
				t.Errorf("%d: %+v, want %s", i, s, want)
			}
		}
	})
}
