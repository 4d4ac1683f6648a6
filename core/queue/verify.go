package queue

import (
	"context"
	"fmt"
	"slices"

	"github.com/postroom/postroom/core/libsql"
)

// Rule is one invariant: its query finds what breaks it, as (what, detail).
type Rule struct{ Name, SQL string }

// rules are the invariants of the queue's tables, in the words of
// docs/lifecycle.md. They read everything there is.
var rules = []Rule{
	{"a completed job has one run that completed, its last", `SELECT CAST(j.id AS BLOB), j.completed || ' completed runs'
	 FROM (
	   SELECT j.id, j.state, coalesce(n.completed, 0) + (j.completed_by IS NOT NULL) AS completed FROM jobs AS j
	   LEFT JOIN (SELECT job_id, sum(outcome = 'completed') AS completed FROM job_run_rows GROUP BY job_id) AS n ON n.job_id = j.id) AS j
	 WHERE j.completed <> (j.state = 'completed')`},
	{"a completed job has a run", `SELECT CAST(j.id AS BLOB), 'no run' FROM jobs AS j
	 WHERE j.state = 'completed' AND NOT EXISTS (SELECT 1 FROM job_runs AS r WHERE r.job_id = j.id AND r.run = j.claims AND r.outcome = 'completed')`},
	{"a failed job's last run failed", `SELECT CAST(j.id AS BLOB), 'claims ' || j.claims FROM jobs AS j
	 WHERE j.state = 'failed' AND NOT EXISTS (SELECT 1 FROM job_runs AS r WHERE r.job_id = j.id AND r.run = j.claims AND r.outcome IN ('failed', 'poisoned'))`},
	{"each claim that is over has its run, and the present one has none", `SELECT CAST(j.id AS BLOB), 'state ' || j.state || ', claims ' || j.claims FROM jobs AS j
	 WHERE j.claims > 0 AND (j.state = 'running') = EXISTS (SELECT 1 FROM job_runs AS r WHERE r.job_id = j.id AND r.run = j.claims)`},
	{"no run has a number that was never claimed", `SELECT CAST(r.job_id AS BLOB), 'run ' || r.run FROM job_run_rows AS r JOIN jobs AS j ON j.id = r.job_id WHERE r.run > j.claims OR r.run < 1`},
	{"attempts are the runs that were begun, less those handed back or snoozed", `SELECT CAST(j.id AS BLOB), 'attempts ' || j.attempts || ', runs ' || (coalesce(n.runs, 0) + (j.completed_by IS NOT NULL)) FROM jobs AS j
	 LEFT JOIN (SELECT job_id, sum(outcome NOT IN ('snoozed', 'handed_back')) AS runs FROM job_run_rows GROUP BY job_id) AS n ON n.job_id = j.id
	 WHERE j.attempts <> coalesce(n.runs, 0) + (j.completed_by IS NOT NULL) + (j.state = 'running')`},
	{"failures and crashes are no more than the runs that ended so", `SELECT CAST(j.id AS BLOB), 'failures ' || j.failures || ', crashes ' || j.crashes FROM jobs AS j
	 LEFT JOIN (SELECT job_id, sum(outcome IN ('failed', 'retried')) AS failed, sum(outcome IN ('rescued', 'poisoned')) AS crashed FROM job_run_rows GROUP BY job_id) AS n ON n.job_id = j.id
	 WHERE j.failures > coalesce(n.failed, 0) OR j.crashes > coalesce(n.crashed, 0)`},
	{"failures keep within the budget", `SELECT CAST(id AS BLOB), 'failures ' || failures || ' of ' || max_attempts FROM jobs
	 WHERE failures > max_attempts OR (state IN ('queued', 'running') AND failures >= max_attempts)`},
	{"a running job has a token, a holder and a start", `SELECT CAST(id AS BLOB), 'running' FROM jobs
	 WHERE state = 'running' AND (lease_token IS NULL OR claimed_by IS NULL OR claimed_at IS NULL)`},
	{"only a running job has a holder", `SELECT CAST(id AS BLOB), 'state ' || state FROM jobs WHERE state <> 'running' AND claimed_by IS NOT NULL`},

	{"a queued job will be claimable", `SELECT CAST(id AS BLOB), 'it stands nowhere' FROM jobs
	 WHERE state = 'queued' AND ready_key IS NULL AND wait_key IS NULL AND waits = 0 AND not_before IS NULL`},
	{"a job that waits for others waits for one that has not ended, or will be looked at", `SELECT CAST(j.id AS BLOB), 'nothing ends its wait' FROM jobs AS j
	 WHERE j.waits = 1 AND NOT EXISTS (SELECT 1 FROM job_deps AS d WHERE d.job_id = j.id AND (d.outcome IS NULL OR d.marked > 0 OR (j.after_failure = 'wait' AND d.outcome IN ('failed', 'canceled'))))`},
	{"what a job comes after has the outcome it had", `SELECT CAST(d.job_id AS BLOB), 'after ' || d.after_id FROM job_deps AS d JOIN jobs AS o ON o.id = d.after_id
	 JOIN jobs AS j ON j.id = d.job_id AND j.seq > o.seq -- one that was stored again after it was pruned is another
	 WHERE d.outcome IS NOT iif(o.finished_at IS NULL, NULL, o.state)`},
	{"a job that waits for room in its key has a key that is looked after", `SELECT CAST(j.id AS BLOB), 'key ' || j.limit_key FROM jobs AS j
	 WHERE j.wait_key IS NOT NULL AND NOT EXISTS (SELECT 1 FROM limit_keys AS k WHERE k.key = j.limit_key AND k.next_at >= 0)`},
	{"a key with room lets jobs through", `SELECT CAST(k.key AS BLOB), 'jobs wait and none is claimable' FROM limit_keys AS k
	 WHERE k.changed = 0 AND k.next_at = 0 AND EXISTS (SELECT 1 FROM jobs AS w WHERE w.wait_key IS NOT NULL AND w.limit_key = k.key)
	 AND NOT EXISTS (SELECT 1 FROM jobs AS x WHERE x.ready_key IS NOT NULL AND x.limit_key = k.key)
	 AND coalesce(` + roomInKey(`k.key`) + `, 1) > 0`},

	{"an active key belongs to a job that has not ended", `SELECT CAST(k.job_id AS BLOB), 'key of type ' || k.type FROM job_keys AS k LEFT JOIN jobs AS j ON j.id = k.job_id
	 WHERE k.scope = 'active' AND (j.id IS NULL OR j.finished_at IS NOT NULL)`},
	{"a key is that of its job, or held for ever in the name of another type's", `SELECT CAST(k.job_id AS BLOB), 'key of type ' || k.type FROM job_keys AS k JOIN jobs AS j ON j.id = k.job_id
	 WHERE iif(j.type = k.type, j.idempotency_key IS NOT k.key, k.scope <> 'forever')`},

	{"the last entry of the log is the job's state", `SELECT CAST(j.id AS BLOB), 'state ' || j.state || ', log ' || coalesce((SELECT l.state FROM job_log AS l WHERE l.job = j.seq ORDER BY l.seq DESC LIMIT 1), 'empty') FROM jobs AS j
	 WHERE j.state IS NOT (SELECT l.state FROM job_log AS l WHERE l.job = j.seq ORDER BY l.seq DESC LIMIT 1)`},
	{"the log holds only transitions that there are", `SELECT CAST(coalesce(j.id, l.job) AS BLOB), l.before || ' to ' || l.state || ' at ' || l.seq FROM (
	   SELECT job, seq, state, lag(state) OVER (PARTITION BY job ORDER BY seq) AS before FROM job_log) AS l LEFT JOIN jobs AS j ON j.seq = l.job
	 WHERE l.before IS NOT NULL AND (l.before, l.state) NOT IN (VALUES ('queued', 'running'), ('queued', 'canceled'), ('running', 'completed'), ('running', 'failed'),
	   ('running', 'queued'), ('running', 'canceled'), ('failed', 'queued'), ('canceled', 'queued'))`},
	{"the log has each claim once", `SELECT CAST(j.id AS BLOB), 'claims ' || j.claims || ', in the log ' || n.claims FROM jobs AS j
	 JOIN (SELECT job, sum(state = 'running') AS claims, min(run) AS since FROM job_log GROUP BY job) AS n ON n.job = j.seq
	 WHERE n.since = 0 AND n.claims <> j.claims`},

	{"a queue's counts are those of its jobs", `SELECT CAST(queue || ' ' || state AS BLOB), sum(jobs) || ' more than there are' FROM (
	   SELECT queue, state, jobs FROM (` + nowCounted + `) UNION ALL SELECT queue, state, -1 FROM jobs) GROUP BY queue, state HAVING sum(jobs) <> 0`},

	{"every log entry has its job", `SELECT CAST(l.job AS BLOB), 'entry ' || l.seq FROM job_log AS l WHERE NOT EXISTS (SELECT 1 FROM jobs AS j WHERE j.seq = l.job)`},
	{"every run has its job", `SELECT CAST(r.job_id AS BLOB), 'run ' || r.run FROM job_run_rows AS r WHERE NOT EXISTS (SELECT 1 FROM jobs AS j WHERE j.id = r.job_id)`},
	{"every step has its job, and a run that was claimed", `SELECT CAST(s.job_id AS BLOB), 'run ' || s.run FROM job_steps AS s LEFT JOIN jobs AS j ON j.id = s.job_id
	 WHERE j.id IS NULL OR s.run > j.claims`},
	{"a step has an end when it is known how it ended, and a result when it is done", `SELECT CAST(job_id AS BLOB), 'step ' || name || ', ' || outcome FROM job_steps
	 WHERE (outcome IN ('done', 'failed')) <> (finished_at IS NOT NULL) OR (outcome = 'done') <> (result_json IS NOT NULL)`},
	{"a schedule's next instant lies behind its last", `SELECT CAST(name AS BLOB), 'next ' || next_at || ', last ' || last_tick FROM cron WHERE next_at <= last_tick`},
	{"every wait has its job", `SELECT CAST(d.job_id AS BLOB), 'after ' || d.after_id FROM job_deps AS d WHERE NOT EXISTS (SELECT 1 FROM jobs AS j WHERE j.id = d.job_id)`},
}

// mostShown is how many violations of one rule are listed.
const mostShown = 20

// Violation is what breaks a rule.
type Violation struct {
	Rule   string `json:"rule"`
	What   string `json:"what"` // an id, a key or a file
	Detail string `json:"detail"`
}

// Report is what a verification found.
type Report struct {
	Jobs       int64       `json:"jobs"`
	Rules      int         `json:"rules"`
	Violations []Violation `json:"violations"` // at most 20 of each rule
	More       bool        `json:"more"`       // there are more than are listed
}

// Verify checks the invariants of the queue's tables, and with them rules of
// others, on one snapshot of the database. It reads everything, so its database
// must allow calls that take long.
func (q *Queue) Verify(ctx context.Context, others ...Rule) (*Report, error) {
	all := slices.Concat(rules, others)
	stmts := []libsql.Stmt{
		libsql.Query("SELECT count(*) FROM jobs"),
		libsql.Query("SELECT CAST(integrity_check AS BLOB) FROM pragma_integrity_check(20)"),
		libsql.Query(`SELECT CAST("table" AS BLOB), CAST('row ' || coalesce(rowid, '?') || ' has no ' || parent AS BLOB) FROM pragma_foreign_key_check LIMIT ?`, mostShown+1),
	}
	for _, r := range all {
		stmts = append(stmts, libsql.Query("SELECT what, CAST(detail AS BLOB) FROM (SELECT NULL AS what, NULL AS detail WHERE false UNION ALL SELECT * FROM ("+r.SQL+" LIMIT ?))", mostShown+1))
	}
	res, err := q.db.Read(ctx, stmts...)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	rep := &Report{Jobs: res[0].Rows[0].Int(0), Rules: len(all) + 2, Violations: []Violation{}}
	for _, r := range res[1].Rows {
		if r.Str(0) != "ok" {
			rep.Add("the file is sound", "file", r.Str(0))
		}
	}
	for _, r := range res[2].Rows {
		rep.Add("a row's parent is there", r.Str(0), r.Str(1))
	}
	for i, rule := range all {
		for _, r := range res[3+i].Rows {
			rep.Add(rule.Name, r.Str(0), r.Str(1))
		}
	}
	return rep, nil
}

// Add notes a violation; of each rule, no more than are listed.
func (r *Report) Add(rule, what, detail string) {
	n := 0
	for _, v := range r.Violations {
		if v.Rule == rule {
			n++
		}
	}
	if n == mostShown {
		r.More = true
		return
	}
	r.Violations = append(r.Violations, Violation{rule, what, detail})
}
