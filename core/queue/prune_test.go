package queue_test

import (
	"testing"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
)

var retention = queue.Retention{Completed: time.Hour, Canceled: 2 * time.Hour, Failed: 3 * time.Hour}

func prune(t *testing.T, q *queue.Queue, limit int) int {
	t.Helper()
	n, err := q.Prune(t.Context(), retention, limit)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func count(t *testing.T, q *queue.Queue, table string) int64 {
	t.Helper()
	res, err := q.DB().Read(t.Context(), libsql.Query("SELECT count(*) FROM "+table))
	if err != nil {
		t.Fatal(err)
	}
	return res[0].Rows[0].Int(0)
}

func TestFinalJobsArePrunedWithAllThatBelongsToThem(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	for i, kind := range []queue.Kind{queue.Completed, queue.Fatal, queue.Snoozed} {
		enqueue(t, q, job.New{})
		c := claimOne(t, q)
		var b libsql.Batch
		b.Exec("INSERT INTO job_steps(job_id, name, run, outcome, started_at, created_at, updated_at) VALUES (?, 's', 1, 'running', 1, 1, 1)", c.JobID)
		b.Exec("INSERT INTO message_chunks(job_id, n, data, created_at) VALUES (?, ?, x'00', 1)", c.JobID, i)
		if _, err := q.DB().Write(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		finish(t, q, c.Lease, queue.Outcome{Kind: kind, Delay: 100 * time.Hour, Error: "x"})
	}
	canceled := enqueue(t, q, job.New{})
	if _, err := q.Cancel(t.Context(), canceled.ID); err != nil {
		t.Fatal(err)
	}
	for hours, want := range []int{0, 1, 1, 1, 0, 0} {
		if hours > 0 {
			clock.advance(time.Hour)
		}
		if got := prune(t, q, 100); got != want {
			t.Errorf("after %d hours: pruned %d, want %d", hours, got, want)
		}
	}
	for table, want := range map[string]int64{"jobs": 1, "job_runs": 1, "job_steps": 1, "job_log": 3, "message_chunks": 1} {
		if got := count(t, q, table); got != want {
			t.Errorf("%s has %d rows, want %d: those of the job that waits", table, got, want)
		}
	}
}

func TestPruningIsBoundedAndKeepsForEverWhatItShould(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	for range 7 {
		enqueue(t, q, job.New{Key: q.NewID(), KeyTTL: time.Hour, KeyScope: job.ScopeUntil})
		finish(t, q, claimOne(t, q).Lease, queue.Outcome{Kind: queue.Completed})
	}
	clock.advance(1000 * time.Hour)
	if n, err := q.Prune(t.Context(), queue.Retention{}, 100); err != nil || n != 7 {
		t.Errorf("pruned %d, %v; want the 7 expired keys and no job", n, err)
	}
	for _, want := range []int{3, 3, 1, 0} {
		if got := prune(t, q, 3); got != want {
			t.Errorf("pruned %d, want %d", got, want)
		}
	}
}

func TestAJobThatWaitsForAPrunedOneIsCanceled(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	first := enqueue(t, q, job.New{})
	second := enqueue(t, q, job.New{After: []string{first.ID}, AfterFailure: job.AfterWait})
	finish(t, q, claimOne(t, q).Lease, queue.Outcome{Kind: queue.Fatal, Error: "x"})
	claim(t, q, 1)
	clock.advance(100 * time.Hour)
	if got := prune(t, q, 10); got != 1 {
		t.Fatalf("pruned %d", got)
	}
	claim(t, q, 1)
	if d := get(t, q, second.ID); d.State != job.Canceled || *d.LastError != "it was to come after job "+first.ID+", which is no longer stored" {
		t.Errorf("%+v", d.Job)
	}
}

// A job that never ends, such as a mailbox's sync, must not fill the log.
func TestAJobThatSnoozesForEverKeepsAShortLog(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	id := enqueue(t, q, job.New{}).ID
	other := enqueue(t, q, job.New{Delay: 1000 * time.Hour}).ID
	const rounds = 100
	for range rounds {
		finish(t, q, claimOne(t, q).Lease, queue.Outcome{Kind: queue.Snoozed, Delay: time.Minute})
		clock.advance(time.Minute)
	}
	entries := func(id string) (n, first int64) {
		res, err := q.DB().Read(t.Context(), libsql.Query(`SELECT count(*), min(l.seq) FROM jobs AS j JOIN job_log AS l ON l.job = j.seq WHERE j.id = ?`, id))
		if err != nil {
			t.Fatal(err)
		}
		return res[0].Rows[0].Int(0), res[0].Rows[0].Int(1)
	}
	// Two entries a minute: the last hour has 120. Up to a hundred more may not
	// be in the counts yet.
	if n, _ := entries(id); n < 120 || n > 222 {
		t.Errorf("%d entries of the last hour, want about 120", n)
	}
	for range rounds {
		clock.advance(time.Hour)
		finish(t, q, claimOne(t, q).Lease, queue.Outcome{Kind: queue.Snoozed, Delay: time.Minute})
	}
	n, first := entries(id)
	if n < 100 || n > 203 {
		t.Errorf("%d entries, want about the last hundred", n)
	}
	if n, _ := entries(other); n != 1 {
		t.Errorf("%d entries of a job that does not snooze, want 1", n)
	}
	res, err := q.DB().Read(t.Context(), libsql.Query(`SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'log_pruned_to'`))
	if err != nil {
		t.Fatal(err)
	}
	if to := res[0].Rows[0].Int(0); to != first-1 {
		t.Errorf("the log tells that it was pruned up to %d, want %d", to, first-1)
	}
	if rep, err := q.Verify(t.Context()); err != nil || len(rep.Violations) > 0 {
		t.Errorf("%+v, %v", rep, err)
	}
}
