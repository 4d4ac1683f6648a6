package queue

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/system"
)

// earlier is a statement as programs from before schema 18 have it: to them
// job_runs is a table, and a completed job does not say who completed it.
func earlier(sql string) string {
	return strings.NewReplacer("job_run_rows", "job_runs", "completed_by = j.claimed_by, ", "").Replace(sql)
}

func earlierOp(t *testing.T, op *libsql.Op) *libsql.Op {
	t.Helper()
	old := &libsql.Op{Name: op.Name, Misses: op.Misses, Packed: op.Packed}
	for _, sql := range op.Stmts {
		old.Stmts = append(old.Stmts, earlier(sql))
	}
	if slices.Equal(old.Stmts, op.Stmts) {
		t.Fatalf("%s was never otherwise", op.Name)
	}
	return old
}

// worked is a database with jobs that programs of both kinds have worked on,
// and what the runs of each must be.
func worked(t *testing.T, path string) (*Queue, map[string]string) {
	t.Helper()
	q := New(dbtest.OpenPath(t, path), system.Real{}, job.Known())
	take := func() Claimed {
		t.Helper()
		c, err := q.Claim(t.Context(), ClaimRequest{Runner: "r", Token: q.NewToken(), Types: []string{job.DebugEcho}, Limit: 1, Lease: time.Minute})
		if err != nil || len(c.Jobs) != 1 {
			t.Fatalf("claimed %d jobs, %v", len(c.Jobs), err)
		}
		return c.Jobs[0]
	}
	old := func(op *libsql.Op, item []byte) {
		t.Helper()
		if _, err := q.db.Merge(t.Context(), earlierOp(t, op), item); err != nil {
			t.Fatalf("%s: %v", op.Name, err)
		}
	}
	finish := func(l Lease, o Outcome) {
		t.Helper()
		if _, err := q.Finish(t.Context(), l, o); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{}
	for runs, work := range map[string]func(){
		"1 r completed":                       func() { finish(take().Lease, Outcome{Kind: Completed}) },
		"1 r completed by an earlier program": func() { old(opComplete, take().completeItem(nil)) },
		"1 r retried, 2 r completed": func() {
			old(opFinish, take().finishItem(Outcome{Kind: Failed, Error: "x"}))
			finish(take().Lease, Outcome{Kind: Completed})
		},
		"2 r snoozed, 3 r completed": func() {
			for range 2 {
				old(opSnooze, take().finishItem(Outcome{Kind: Snoozed}))
			}
			finish(take().Lease, Outcome{Kind: Completed})
		},
		"1 r rescued": func() {
			take()
			var b libsql.Batch
			b.Exec("UPDATE jobs SET lease_expires_at = 1 WHERE state = 'running'")
			for _, sql := range []string{sqlRescueRuns, sqlRescueKeys} {
				b.Exec(earlier(sql))
			}
			b.Query(earlier(sqlRescue))
			if _, err := q.db.Write(t.Context(), &b); err != nil {
				t.Fatal(err)
			}
		},
	} {
		e, err := q.Enqueue(t.Context(), job.New{Type: job.DebugEcho})
		if err != nil {
			t.Fatal(err)
		}
		want[e.ID], _, _ = strings.Cut(runs, " by")
		work()
	}
	return q, want
}

// holdRuns holds the runs of each job against what they must be.
func holdRuns(t *testing.T, q *Queue, want map[string]string) {
	t.Helper()
	for id, runs := range want {
		d, err := q.Detail(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range d.Runs {
			if r.StartedAt < d.CreatedAt || r.FinishedAt < r.StartedAt {
				t.Errorf("a run from %v to %v of a job of %v", r.StartedAt, r.FinishedAt, d.CreatedAt)
			}
			got = append(got, fmt.Sprintf("%d %s %s", r.Run, r.Runner, r.Outcome))
		}
		if got := strings.Join(got, ", "); got != runs || d.ClaimedBy != nil {
			t.Errorf("the runs are %q, want %q", got, runs)
		}
	}
	rep, err := q.Verify(t.Context())
	if err != nil || len(rep.Violations) > 0 {
		t.Errorf("%+v, %v", rep, err)
	}
}

// Programs of the release before work on: what they write of runs, and what
// they leave to a trigger, is there beside what is read from a job's own row.
func TestRunsOfEarlierProgramsStandBesideThoseOfCompletedJobs(t *testing.T) {
	t.Parallel()
	q, want := worked(t, dbtest.Path(t))
	holdRuns(t, q, want)
	res, err := q.db.Read(t.Context(), libsql.Query("SELECT count(*) FROM job_runs"), libsql.Query("SELECT count(*) FROM job_run_rows"))
	if err != nil || res[0].Rows[0].Int(0) != 7 || res[1].Rows[0].Int(0) != 4 {
		t.Errorf("%v, %v: want 7 runs, 4 of them with a row of their own", res, err)
	}
}

// Going back to the schema before and on again loses no run.
func TestRunsOutliveTheSchema(t *testing.T) {
	t.Parallel()
	path := dbtest.Path(t)
	q, want := worked(t, path)
	opt := libsql.Options{Path: path}
	st, err := libsql.Schema(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := libsql.MigrateDown(t.Context(), opt, int(st.Version-17)); err != nil {
		t.Fatal(err)
	}
	res, err := q.db.Read(t.Context(), libsql.Query("SELECT count(*) FROM job_runs"))
	if err != nil || res[0].Rows[0].Int(0) != 7 {
		t.Errorf("%v, %v: want 7 rows", res, err)
	}
	if err := libsql.Migrate(t.Context(), opt); err != nil {
		t.Fatal(err)
	}
	holdRuns(t, q, want)
}
