package queue_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
)

// rows reads all that compare needs, on one snapshot.
func rows(ctx context.Context, db libsql.DB) ([]libsql.Result, error) {
	return db.Read(ctx,
		libsql.Query(`SELECT CAST(id AS BLOB), CAST(type AS BLOB), CAST(queue AS BLOB), CAST(state AS BLOB), priority, max_attempts, created_at,
			CAST(payload_json AS BLOB), CAST(idempotency_key AS BLOB), CAST(limit_key AS BLOB), CAST(parent_id AS BLOB),
			attempts, failures, crashes, claims, CAST(lease_token AS BLOB), lease_expires_at, CAST(claimed_by AS BLOB), heartbeat_at, cancel_requested_at, finished_at,
			waits, solo, CAST(result_json AS BLOB), last_error, not_before, ready_key, wait_key FROM jobs ORDER BY seq`),
		libsql.Query(`SELECT CAST(type AS BLOB), CAST(key AS BLOB), CAST(job_id AS BLOB), CAST(scope AS BLOB), expires_at FROM job_keys WHERE expires_at IS NULL OR expires_at > (SELECT ms FROM db_clock) ORDER BY type, key`),
		libsql.Query(`SELECT CAST(job_id AS BLOB), run, CAST(runner AS BLOB), CAST(outcome AS BLOB), started_at, finished_at FROM job_runs ORDER BY job_id, run`),
		libsql.Query(`SELECT CAST(j.id AS BLOB), CAST(l.state AS BLOB) FROM job_log AS l LEFT JOIN jobs AS j ON j.seq = l.job ORDER BY l.seq`),
		libsql.Query(`SELECT CAST(job_id AS BLOB), CAST(after_id AS BLOB), CAST(coalesce(outcome, '') AS BLOB) FROM job_deps ORDER BY job_id, after_id`),
		libsql.Query(`SELECT CAST(name AS BLOB), paused FROM queues ORDER BY name`),
	)
}

// compare holds every row of the database against the model and returns what
// is not the same.
func (m *model) compare(res []libsql.Result) (wrong []string) {
	differ := func(what, got, want string) {
		if got != want {
			wrong = append(wrong, fmt.Sprintf("%s is\n\t%s\nin the database, and\n\t%s\nin the model", what, got, want))
		}
	}
	var got, want []string
	for _, r := range res[0].Rows {
		got = append(got, jobLine(r))
		if j := m.jobs[r.Str(0)]; j != nil {
			if what := m.misplaced(j, r); what != "" {
				wrong = append(wrong, j.ID+" "+what)
			}
		}
	}
	for _, j := range m.inOrder() {
		want = append(want, m.jobLine(j))
	}
	differ("jobs", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))

	got, want = nil, nil
	for _, r := range res[1].Rows {
		got = append(got, fmt.Sprint(r.Str(0), " ", r.Str(1), " ", r.Str(2), " ", r.Str(3), " ", r.Int(4)))
	}
	for k, h := range m.keys {
		if _, held := m.held(k[0], k[1]); !held {
			continue
		}
		if h.scope != job.ScopeUntil {
			h.expires = 0
		}
		want = append(want, fmt.Sprint(k[0], " ", k[1], " ", h.job, " ", h.scope, " ", h.expires))
	}
	slices.Sort(want)
	differ("keys", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))

	runs, logs, deps := map[string]string{}, map[string]string{}, map[string]string{}
	for _, r := range res[2].Rows {
		runs[r.Str(0)] += fmt.Sprintf("%d %s %s %d %d; ", r.Int(1), r.Str(2), r.Str(3), r.Int(4), r.Int(5))
	}
	for _, r := range res[3].Rows {
		logs[r.Str(0)] += r.Str(1) + " "
	}
	for _, r := range res[4].Rows {
		deps[r.Str(0)] += r.Str(1) + " " + r.Str(2) + "; "
	}
	for _, j := range m.inOrder() {
		var r, l, d string
		for _, run := range j.runs {
			r += fmt.Sprintf("%d %s %s %d %d; ", run.number, run.runner, run.outcome, run.started, run.finished)
		}
		for _, s := range j.log {
			l += string(s) + " "
		}
		for _, id := range slices.Sorted(maps.Keys(j.after)) {
			d += id + " " + string(j.after[id]) + "; "
		}
		differ("runs of "+j.ID, runs[j.ID], r)
		differ("log of "+j.ID, logs[j.ID], l)
		differ("what "+j.ID+" comes after", deps[j.ID], d)
		delete(runs, j.ID)
		delete(logs, j.ID)
		delete(deps, j.ID)
	}
	if len(runs)+len(logs)+len(deps) > 0 {
		wrong = append(wrong, fmt.Sprintf("of jobs that are gone are left: %v %v %v", runs, logs, deps))
	}

	paused := map[string]bool{}
	for _, r := range res[5].Rows {
		paused[r.Str(0)] = r.Bool(1)
	}
	for name, want := range m.queues { // one that nothing was stored in may be there as well
		if got, known := paused[name]; !known || got != want {
			wrong = append(wrong, fmt.Sprintf("queue %s is known: %v, paused: %v, want %v", name, known, got, want))
		}
	}
	return wrong
}

// fingerprint is all of the model as text, so that two can be compared.
func (m *model) fingerprint() string {
	var b strings.Builder
	fmt.Fprintln(&b, m.now, m.keys, m.queues, m.next) // maps print in the order of their keys
	for _, j := range m.inOrder() {
		fmt.Fprintln(&b, m.jobLine(j), j.runs, j.log, j.keyed, j.lined)
	}
	return b.String()
}

// jobLine is a row as a line, but for where it waits.
func jobLine(r libsql.Row) string {
	due := r.IntPtr(25)
	if s := job.State(r.Str(3)); s.Final() {
		due = nil // of no meaning any more
	}
	return fmt.Sprintf("%s %s/%s %s prio=%d max=%d created=%d payload=%s key=%q limit=%q parent=%q attempts=%d failures=%d crashes=%d claims=%d token=%q lease=%d runner=%q beat=%v cancel=%v finished=%v waits=%d solo=%d result=%q error=%v due=%v",
		r.Str(0), r.Str(2), r.Str(1), r.Str(3), r.Int(4), r.Int(5), r.Int(6), r.Str(7), r.Str(8), r.Str(9), r.Str(10),
		r.Int(11), r.Int(12), r.Int(13), r.Int(14), r.Str(15), r.Int(16), r.Str(17), value(r.IntPtr(18)), value(r.IntPtr(19)), value(r.IntPtr(20)),
		r.Int(21), r.Int(22), r.Str(23), text(r, 24), value(due))
}

func (m *model) jobLine(j *modelJob) string {
	due, err := j.due, "none"
	if j.state.Final() {
		due = nil
	}
	if j.err != nil {
		err = fmt.Sprintf("%q", *j.err)
	}
	waits := 0
	if j.waits {
		waits = 1
	}
	return fmt.Sprintf("%s %s/%s %s prio=%d max=%d created=%d payload=%s key=%q limit=%q parent=%q attempts=%d failures=%d crashes=%d claims=%d token=%q lease=%d runner=%q beat=%v cancel=%v finished=%v waits=%d solo=%d result=%q error=%v due=%v",
		j.ID, j.Queue, j.Type, j.state, j.Priority, j.MaxAttempts, j.created, j.Payload, j.Key, j.LimitKey, j.ParentID,
		j.attempts, j.failures, j.crashes, j.claims, j.token, j.lease, j.runner, value(j.heartbeat), value(j.cancel), value(j.finished),
		waits, j.solo, j.result, err, value(due))
}

func value(v *int64) string {
	if v == nil {
		return "none"
	}
	return fmt.Sprint(*v)
}

func text(r libsql.Row, i int) string {
	if r.Null(i) {
		return "none"
	}
	for _, begins := range []string{comesAfter, wasPoisoned} {
		if strings.HasPrefix(r.Str(i), begins) {
			return fmt.Sprintf("%q", begins)
		}
	}
	return fmt.Sprintf("%q", r.Str(i))
}

// misplaced says what is wrong with the place in which a job waits. Lining up
// comes with a claim, so a job that may stand in line need not yet.
func (m *model) misplaced(j *modelJob, r libsql.Row) string {
	ready, wait := r.IntPtr(26), r.IntPtr(27)
	if ready == nil && wait == nil {
		if j.state == job.Queued && !j.waits && j.solo == 0 && j.due == nil {
			return "stands nowhere"
		}
		return ""
	}
	_, limited := m.keyLimit(j)
	switch {
	case j.state != job.Queued || j.waits || j.solo > 0 || j.due != nil && *j.due > m.now:
		return fmt.Sprintf("stands in line (%s) or waits for room (%s) and may not run", value(ready), value(wait))
	case ready != nil && (*ready < j.natural() || *ready > m.latest(j)):
		return fmt.Sprintf("stands at %d, not from %d to %d", *ready, j.natural(), m.latest(j))
	case wait != nil && (!j.keyed || *wait != j.natural()):
		return fmt.Sprintf("waits for room at %d; its key had a limit: %v, has one: %v; its place is %d", *wait, j.keyed, limited, j.natural())
	}
	return ""
}
