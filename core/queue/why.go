package queue

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
)

// "Why is this job not running?", answered from one snapshot.

const sqlWhyJob = `SELECT CAST(j.id AS BLOB), CAST(j.type AS BLOB), CAST(j.queue AS BLOB), CAST(j.state AS BLOB), j.not_before, j.ready_key, j.wait_key,
   j.waits, j.solo, CAST(j.limit_key AS BLOB), j.cancel_requested_at, CAST(j.claimed_by AS BLOB), j.claimed_at, j.lease_expires_at,
   j.finished_at, j.last_error, c.ms, coalesce((SELECT paused FROM queues WHERE name = j.queue), 0),
   (SELECT next_at FROM limit_keys WHERE key = j.limit_key AND next_at > 0), CAST(j.after_failure AS BLOB), j.failures, j.max_attempts, j.crashes
 FROM jobs AS j, db_clock AS c WHERE j.id = ?`

const sqlWhyAfter = `SELECT CAST(d.after_id AS BLOB), CAST(coalesce(d.outcome, o.state) AS BLOB) FROM job_deps AS d LEFT JOIN jobs AS o ON o.id = d.after_id
 WHERE d.job_id = ? AND (d.outcome IS NULL OR d.outcome <> 'completed') LIMIT 10`

// sqlWhyLimits are the limits that a job falls under, with how many jobs run
// there now and some of them. Arguments: queue, type, limit key (NULL for
// none), three times over.
const sqlWhyLimits = `SELECT CAST(l.scope AS BLOB), l.max_running, l.interval_ms,
   (SELECT count(*) FROM jobs AS r INDEXED BY jobs_lease WHERE ` + runsUnder + `),
   (SELECT CAST(group_concat(id, ' ') AS BLOB) FROM (SELECT r.id AS id FROM jobs AS r INDEXED BY jobs_lease WHERE ` + runsUnder + ` LIMIT 5))
 FROM limits AS l WHERE (l.scope = 'queue' AND l.name = ?1) OR (l.scope = 'type' AND l.name = ?2)
   OR (l.scope = 'key' AND ?3 IS NOT NULL AND l.name = coalesce((SELECT name FROM limits WHERE scope = 'key' AND name = ?3), '*'))`

const runsUnder = `r.state = 'running' AND r.lease_expires_at IS NOT NULL
   AND CASE l.scope WHEN 'queue' THEN r.queue = ?1 WHEN 'type' THEN r.type = ?2 ELSE r.limit_key = ?3 END`

// sqlWhyRunners counts the runners that know the type and work the queue, and
// their slots; and those that know the type alone. Silent ones do not count.
const sqlWhyRunners = `SELECT count(*), sum(knows), coalesce(sum(knows AND works), 0), coalesce(sum(iif(knows AND works, concurrency, 0)), 0) FROM (
   SELECT concurrency, EXISTS (SELECT 1 FROM json_each(r.types_json) WHERE value = ?1) AS knows,
     json_array_length(r.queues_json) = 0 OR EXISTS (SELECT 1 FROM json_each(r.queues_json) WHERE value = ?2) AS works
   FROM runners AS r, db_clock AS c WHERE r.heartbeat_at > c.ms - ` + silentRunner + `)`

// silentRunner is after how many ms without a heartbeat a runner's row no
// longer counts as a runner.
const silentRunner = `180000`

// mostAhead bounds the count of the jobs before one in line.
const mostAhead = 10_000

// sqlWhyAhead counts the jobs of the queue that stand before one in line, up
// to a bound for each type. Arguments: 1 queue, 2 ready_key, 3 bound.
const sqlWhyAhead = `WITH RECURSIVE ` + lanes + `
 SELECT coalesce(sum((SELECT count(*) FROM (SELECT 1 FROM jobs AS i INDEXED BY jobs_ready
   WHERE i.queue = p.queue AND i.type = p.type AND i.ready_key IS NOT NULL AND i.ready_key < ?2 LIMIT ?3))), 0)
 FROM lane CROSS JOIN jobs AS p ON p.seq = lane.seq WHERE p.queue = ?1`

// sqlWhyAheadInKey counts the jobs of the key that wait before one.
const sqlWhyAheadInKey = `SELECT count(*) FROM (SELECT 1 FROM jobs AS i INDEXED BY jobs_waiting
   WHERE i.limit_key = ? AND i.queue = ? AND i.type = ? AND i.wait_key IS NOT NULL AND i.wait_key < ? LIMIT ?)`

// Why says what keeps a job from running, or that nothing does.
type Why struct {
	ID      string    `json:"id"`
	State   job.State `json:"state"`
	Reasons []Reason  `json:"reasons" nullable:"false"` // what to look at first comes first
	Ahead   *int64    `json:"ahead"`                    // jobs before it in line; null when it stands in none
	More    bool      `json:"more,omitempty"`           // there are more than that
}

// Reason is one thing that keeps a job from running. Code is one of: final,
// running, lease_expired, cancel_requested, not_due, waits_for_jobs,
// queue_paused, no_runner, limit_queue, limit_type, limit_key, throttled,
// runs_alone, in_line.
type Reason struct {
	Code  string    `json:"code"`
	Text  string    `json:"text"`
	Until *job.Time `json:"until"` // when it ends by itself, where that is known
	Jobs  []string  `json:"jobs" nullable:"false"`
}

// Why explains why the job is not running.
func (q *Queue) Why(ctx context.Context, id string) (*Why, error) {
	res, err := q.db.Read(ctx, libsql.Query(sqlWhyJob, id), libsql.Query(sqlWhyAfter, id))
	if err != nil {
		return nil, fmt.Errorf("why job %s: %w", id, err)
	}
	if len(res[0].Rows) == 0 {
		return nil, fmt.Errorf("why job %s: %w", id, ErrNotFound)
	}
	r := res[0].Rows[0]
	w := &Why{ID: r.Str(0), State: job.State(r.Str(3)), Reasons: []Reason{}}
	switch {
	case w.State.Final():
		w.add("final", nil, nil, "it has ended as %s at %s%s", w.State, job.Time(r.Int(14)), errorText(r))
		return w, nil
	case w.State == job.Running:
		w.running(r)
		return w, nil
	}
	typ, name := r.Str(1), r.Str(2)
	var key any
	if !r.Null(9) {
		key = r.Str(9)
	}
	ahead := libsql.Query(sqlWhyAhead, name, r.Int(5), mostAhead+1)
	if !r.Null(6) {
		ahead = libsql.Query(sqlWhyAheadInKey, key, name, typ, r.Int(6), mostAhead+1)
	}
	more, err := q.db.Read(ctx, libsql.Query(sqlWhyLimits, name, typ, key), libsql.Query(sqlWhyRunners, typ, name), ahead)
	if err != nil {
		return nil, fmt.Errorf("why job %s: %w", id, err)
	}
	w.waiting(r, res[1].Rows, more[0].Rows, more[1].Rows[0], more[2].Rows[0].Int(0))
	return w, nil
}

func (w *Why) add(code string, until *job.Time, jobs []string, format string, args ...any) {
	if jobs == nil {
		jobs = []string{}
	}
	w.Reasons = append(w.Reasons, Reason{Code: code, Text: fmt.Sprintf(format, args...), Until: until, Jobs: jobs})
}

func errorText(r libsql.Row) string {
	if r.Null(15) {
		return ""
	}
	return ": " + job.RepairText(r.Str(15), maxError)
}

func (w *Why) running(r libsql.Row) {
	until := job.Time(r.Int(13))
	if r.Int(16) > int64(until) {
		w.add("lease_expired", nil, nil, "runner %s had it since %s and has not renewed its lease, which ended at %s: another runner takes it back within seconds",
			r.Str(11), job.Time(r.Int(12)), until)
		return
	}
	w.add("running", &until, nil, "it is running: runner %s has it since %s", r.Str(11), job.Time(r.Int(12)))
	if !r.Null(10) {
		w.add("cancel_requested", nil, nil, "its cancel was requested at %s; its handler has not returned yet", job.Time(r.Int(10)))
	}
}

func (w *Why) waiting(r libsql.Row, after, limits []libsql.Row, runners libsql.Row, ahead int64) {
	typ, name := r.Str(1), r.Str(2)
	if r.Bool(7) {
		ids := make([]string, len(after))
		for i, d := range after {
			ids[i] = d.Str(0)
		}
		text := "it comes after jobs that have not completed"
		if r.Str(19) == string(job.AfterRun) {
			text = "it comes after jobs that have not ended"
		}
		w.add("waits_for_jobs", nil, ids, "%s", text)
	}
	if due := r.IntPtr(4); due != nil && *due > r.Int(16) {
		until := job.Time(*due)
		text := "its time has not come"
		if r.Int(20) > 0 {
			text = fmt.Sprintf("it failed %d of %d times and is tried again later%s", r.Int(20), r.Int(21), errorText(r))
		}
		w.add("not_due", &until, nil, "%s", text)
	}
	if r.Bool(17) {
		w.add("queue_paused", nil, nil, "the queue %s is paused", name)
	}
	switch {
	case runners.Int(0) == 0:
		w.add("no_runner", nil, nil, "no runner is alive")
	case runners.Int(1) == 0:
		w.add("no_runner", nil, nil, "none of the %d runners knows the type %s", runners.Int(0), typ)
	case runners.Int(2) == 0:
		w.add("no_runner", nil, nil, "no runner that knows the type %s works the queue %s", typ, name)
	}
	for _, l := range limits {
		w.limit(r, l)
	}
	if r.Bool(8) {
		w.add("runs_alone", nil, nil, "%d runners died while they ran it: it runs next when a runner has no other job in hand", r.Int(22))
	}
	if len(w.Reasons) == 0 || !r.Null(5) || !r.Null(6) {
		w.Ahead, w.More = &ahead, ahead > mostAhead
		if w.More {
			*w.Ahead = mostAhead
		}
	}
	if len(w.Reasons) == 0 {
		n := fmt.Sprint(ahead)
		if w.More {
			n = fmt.Sprintf("more than %d", mostAhead)
		}
		w.add("in_line", nil, nil, "it is in line: %s jobs of its queue stand before it; %d runners with %d slots work there", n, runners.Int(2), runners.Int(3))
	}
}

func (w *Why) limit(r, l libsql.Row) {
	scope := l.Str(0)
	if most := l.IntPtr(1); most != nil && l.Int(3) >= *most {
		what := map[string]string{LimitQueue: "the queue " + r.Str(2), LimitType: "the type " + r.Str(1), LimitKey: "the key " + r.Str(9)}[scope]
		w.add("limit_"+scope, nil, strings.Fields(l.Str(4)), "%s runs %d jobs at once at most, and %d run", what, *most, l.Int(3))
	}
	if next := r.IntPtr(18); scope == LimitKey && !l.Null(2) && next != nil && *next > r.Int(16) {
		until := job.Time(*next)
		w.add("throttled", &until, nil, "starts of the key %s lie %s apart", r.Str(9), time.Duration(l.Int(2))*time.Millisecond)
	}
}
