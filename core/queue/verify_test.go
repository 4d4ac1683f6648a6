package queue_test

import (
	"slices"
	"testing"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
)

// busy returns a queue in whose database there is one of everything.
func busy(t *testing.T) (*queue.Queue, map[string]string) {
	t.Helper()
	q, clock := setup(t)
	setLimit(t, q, queue.Limit{Scope: queue.LimitKey, Name: "k", MaxRunning: atMost(1)})
	ids := map[string]string{}
	ids["completed"] = enqueue(t, q, job.New{Key: "c"}).ID
	finish(t, q, claimOne(t, q).Lease, queue.Outcome{Kind: queue.Failed, Error: "x"})
	clock.advance(time.Second)
	finish(t, q, claimOne(t, q).Lease, queue.Outcome{Kind: queue.Completed})
	ids["failed"] = enqueue(t, q, job.New{MaxAttempts: 1}).ID
	finish(t, q, claimOne(t, q).Lease, queue.Outcome{Kind: queue.Failed, Error: "x"})
	ids["snoozed"] = enqueue(t, q, job.New{}).ID
	finish(t, q, claimOne(t, q).Lease, queue.Outcome{Kind: queue.Snoozed, Delay: time.Hour})
	ids["rescued"] = enqueue(t, q, job.New{}).ID
	claimOne(t, q)
	clock.advance(lease + time.Second)
	if _, err := q.Rescue(t.Context()); err != nil {
		t.Fatal(err)
	}
	ids["running"] = enqueue(t, q, job.New{LimitKey: "k", Key: "r", KeyScope: job.ScopeActive}).ID
	claimOne(t, q)
	ids["limited"] = enqueue(t, q, job.New{LimitKey: "k"}).ID
	ids["later"] = enqueue(t, q, job.New{Delay: time.Hour}).ID
	ids["after"] = enqueue(t, q, job.New{After: []string{ids["running"]}}).ID
	ids["canceled"] = enqueue(t, q, job.New{}).ID
	if _, err := q.Cancel(t.Context(), ids["canceled"]); err != nil {
		t.Fatal(err)
	}
	claim(t, q, 1)
	ids["ready"] = enqueue(t, q, job.New{}).ID
	b := q.NewBatch(t.Context())
	b.HoldKeys("another type", []string{"held"}, ids["completed"])
	if _, err := q.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	return q, ids
}

func TestVerifyFindsNothingWhereNothingIsWrong(t *testing.T) {
	t.Parallel()
	q, _ := busy(t)
	rep, err := q.Verify(t.Context())
	if err != nil || len(rep.Violations) != 0 || rep.More || rep.Jobs != 10 || rep.Rules < 20 {
		t.Errorf("%+v, %v", rep, err)
	}
}

// Each rule is broken once by hand and must be named.
func TestVerifyNamesEachViolation(t *testing.T) {
	t.Parallel()
	covered := map[string]bool{}
	for _, test := range []struct{ rule, sql, job string }{
		{"a completed job has one run that completed, its last", "UPDATE job_run_rows SET outcome = 'completed' WHERE job_id = ?", "completed"},
		{"a completed job has a run", "UPDATE jobs SET completed_by = NULL WHERE id = ?", "completed"},
		{"a failed job's last run failed", "UPDATE job_run_rows SET outcome = 'retried' WHERE job_id = ?", "failed"},
		{"each claim that is over has its run, and the present one has none", "DELETE FROM job_run_rows WHERE job_id = ?", "snoozed"},
		{"no run has a number that was never claimed", "UPDATE job_run_rows SET run = 9 WHERE job_id = ?", "rescued"},
		{"attempts are the runs that were begun, less those handed back or snoozed", "UPDATE jobs SET attempts = attempts + 1 WHERE id = ?", "failed"},
		{"failures and crashes are no more than the runs that ended so", "UPDATE jobs SET crashes = 2 WHERE id = ?", "rescued"},
		{"failures keep within the budget", "UPDATE jobs SET failures = max_attempts WHERE id = ?", "ready"},
		{"a running job has a token, a holder and a start", "UPDATE jobs SET lease_token = NULL WHERE id = ?", "running"},
		{"only a running job has a holder", "UPDATE jobs SET claimed_by = 'r' WHERE id = ?", "completed"},
		{"a queued job will be claimable", "UPDATE jobs SET ready_key = NULL WHERE id = ?", "ready"},
		{"a job that waits for others waits for one that has not ended, or will be looked at", "UPDATE job_deps SET outcome = 'completed' WHERE job_id = ?", "after"},
		{"what a job comes after has the outcome it had", "UPDATE job_deps SET outcome = 'failed' WHERE job_id = ?", "after"},
		{"a job that waits for room in its key has a key that is looked after", "DELETE FROM limit_keys WHERE key = (SELECT limit_key FROM jobs WHERE id = ?)", "limited"},
		{"a key with room lets jobs through", "UPDATE limits SET max_running = 5 WHERE ? IS NOT NULL", "limited"},
		{"an active key belongs to a job that has not ended", "UPDATE job_keys SET job_id = ? WHERE scope = 'active'", "completed"},
		{"a key is that of its job, or held for ever in the name of another type's", "UPDATE jobs SET idempotency_key = 'other' WHERE id = ?", "running"},
		{"the last entry of the log is the job's state", "DELETE FROM job_log WHERE state = 'completed' AND ? IS NOT NULL", "completed"},
		{"the log holds only transitions that there are", "DELETE FROM job_log WHERE state = 'running' AND job = (SELECT seq FROM jobs WHERE id = ?)", "failed"},
		{"the log has each claim once", "DELETE FROM job_log WHERE state = 'running' AND job = (SELECT seq FROM jobs WHERE id = ?)", "failed"},
		{"a queue's counts are those of its jobs", "INSERT INTO queue_counts(queue, state, jobs) SELECT queue, state, 1 FROM jobs WHERE id = ? ON CONFLICT DO UPDATE SET jobs = queue_counts.jobs + 1", "ready"},
		{"every log entry has its job", "INSERT INTO job_log(job, run, state, created_at) SELECT 999, 0, 'queued', 1 WHERE ? IS NOT NULL", "ready"},
		{"every run has its job", "UPDATE job_run_rows SET job_id = 'none' WHERE job_id = ?", "failed"},
		{"every step has its job, and a run that was claimed", "INSERT INTO job_steps(job_id, name, run, outcome, started_at, created_at, updated_at) VALUES (?, 's', 7, 'done', 1, 1, 1)", "failed"},
		{"a step has an end when it is known how it ended, and a result when it is done", "INSERT INTO job_steps(job_id, name, run, outcome, started_at, finished_at, created_at, updated_at) VALUES (?, 's', 1, 'uncertain', 1, 1, 1, 1)", "failed"},
		{"every wait has its job", "UPDATE job_deps SET job_id = 'none' WHERE job_id = ?", "after"},
		{"a schedule's next instant lies behind its last", `INSERT INTO cron(name, schedule, tz, catch_up, overlap, type, next_at, last_tick, revision, created_at, updated_at, payload_json)
			SELECT 'c', '@daily', 'UTC', 'one', 'skip', 'debug.echo', 5, 5, 'r', 1, 1, 'null' WHERE ? IS NOT NULL`, "ready"},
		{"a row's parent is there", "PRAGMA", ""},
		{"the file is sound", "PRAGMA", ""},
	} {
		covered[test.rule] = true
		if test.sql == "PRAGMA" {
			continue // SQLite's own checks
		}
		t.Run(test.rule, func(t *testing.T) {
			t.Parallel()
			q, ids := busy(t)
			var b libsql.Batch
			b.Exec(test.sql, ids[test.job])
			if _, err := q.DB().Write(t.Context(), &b); err != nil {
				t.Fatal(err)
			}
			rep, err := q.Verify(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(rep.Violations, func(v queue.Violation) bool { return v.Rule == test.rule }) {
				t.Errorf("not found; violations %+v", rep.Violations)
			}
		})
	}
	q, _ := setup(t)
	rep, err := q.Verify(t.Context())
	if err != nil || rep.Rules != len(covered) {
		t.Errorf("%d rules, of which %d are broken here; %v", rep.Rules, len(covered), err)
	}
}
