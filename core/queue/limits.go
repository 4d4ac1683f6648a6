package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
)

// Limits. A queue or a type may be limited in how many of its jobs run at
// once; a key (limit_key of a job, an account for example) also in how much
// time must lie between two starts. Queue and type are checked by the claim,
// lane by lane. Of a limited key only as many jobs stand in the claim index as
// the key has room for; the others wait in an index of their own, so that a
// hundred thousand of them cost a claim nothing. A job takes its place in the
// line when its key has room for it: that makes keys take turns.
//
// limits holds what was set; limit_keys the limited keys that have jobs
// waiting or a start not long ago.

// roomOf begins an expression for the room that a queue or type has: NULL when
// it has no limit. A running job counts whether or not its lease has run out:
// until a rescue says otherwise it may be at work.
const roomOf = `(SELECT l.max_running - (SELECT count(*) FROM jobs AS r INDEXED BY jobs_lease
   WHERE r.state = 'running' AND r.lease_expires_at IS NOT NULL AND iif(l.scope = 'queue', r.queue, r.type) = l.name)
   FROM limits AS l WHERE l.scope = `

// roomInKey is an expression for the room that a key has: NULL when it has no
// limit. Starts that must lie apart are let through one by one.
func roomInKey(key string) string {
	return `(SELECT iif(EXISTS (SELECT 1 FROM limit_keys AS t WHERE t.key = ` + key + ` AND t.next_at > 0), 0, min(
     coalesce(l.max_running - (SELECT count(*) FROM jobs AS r INDEXED BY jobs_holding WHERE r.state = 'running' AND r.limit_key = ` + key + `), 1000000),
     iif(l.interval_ms IS NULL, 1000000, 1)))
   FROM limits AS l WHERE l.scope = 'key' AND l.name IN (` + key + `, '*') ORDER BY l.name = '*' LIMIT 1)`
}

// sqlKeysDue opens the keys whose next start may come.
const sqlKeysDue = `UPDATE limit_keys SET changed = 1, next_at = 0 WHERE key IN
   (SELECT key FROM limit_keys INDEXED BY limit_keys_next WHERE next_at <> 0 AND next_at > 0 AND next_at <= (SELECT ms FROM db_clock)
    ORDER BY next_at LIMIT 500)`

// theChanged are the keys that a settlement looks at.
const theChanged = `(SELECT key FROM limit_keys INDEXED BY limit_keys_changed WHERE changed = 1 ORDER BY key LIMIT 500)`

// sqlKeysClose takes jobs out of the claim index whose key has no room any
// more, or that a more urgent one has overtaken.
var sqlKeysClose = `UPDATE jobs AS j SET wait_key = ` + place + `, ready_key = NULL
 WHERE j.seq IN (SELECT i.seq FROM limit_keys AS k CROSS JOIN jobs AS i INDEXED BY jobs_exposed ON i.limit_key = k.key AND i.ready_key IS NOT NULL
   WHERE k.key IN ` + theChanged + ` AND (coalesce(` + roomInKey(`k.key`) + `, 1) <= 0
     OR EXISTS (SELECT 1 FROM jobs AS w INDEXED BY jobs_waiting WHERE w.limit_key = i.limit_key AND w.queue = i.queue AND w.type = i.type
       AND w.wait_key IS NOT NULL AND w.wait_key < max(coalesce(i.not_before, 0), i.created_at) - i.priority * 30000))
   LIMIT 1000)`

// sqlKeysOpen puts the next jobs of the changed keys into the claim index: of
// each lane (queue and type) of a key as many as the key has room for, so that
// one whose queue nobody works does not hold up the key's others. Its age
// counts from now, so that keys take turns; what a negative priority made it
// wait, it has waited already. The walk goes from job to job, so its cost is
// what it lets through.
var sqlKeysOpen = `WITH RECURSIVE
 open(key, room) AS MATERIALIZED (
   SELECT k.key, coalesce(` + roomInKey(`k.key`) + `, 1000000) FROM limit_keys AS k WHERE k.key IN ` + theChanged + `),
 head(key, room, seq) AS (
   SELECT o.key, o.room, (SELECT w.seq FROM jobs AS w INDEXED BY jobs_waiting
     WHERE w.wait_key IS NOT NULL AND w.limit_key = o.key ORDER BY w.queue, w.type, w.wait_key LIMIT 1)
   FROM open AS o WHERE o.room > 0
   UNION ALL
   SELECT h.key, h.room, coalesce(
     (SELECT w.seq FROM jobs AS w INDEXED BY jobs_waiting
      WHERE w.wait_key IS NOT NULL AND w.limit_key = h.key AND w.queue = p.queue AND w.type > p.type ORDER BY w.type, w.wait_key LIMIT 1),
     (SELECT w.seq FROM jobs AS w INDEXED BY jobs_waiting
      WHERE w.wait_key IS NOT NULL AND w.limit_key = h.key AND w.queue > p.queue ORDER BY w.queue, w.type, w.wait_key LIMIT 1))
   FROM head AS h CROSS JOIN jobs AS p ON p.seq = h.seq),
 next(seq, room) AS (
   SELECT h.seq, min(h.room, 500) - (SELECT count(*) FROM jobs AS x INDEXED BY jobs_exposed
     WHERE x.ready_key IS NOT NULL AND x.limit_key = h.key AND x.queue = p.queue AND x.type = p.type)
   FROM head AS h CROSS JOIN jobs AS p ON p.seq = h.seq
   UNION ALL
   SELECT (SELECT w.seq FROM jobs AS w INDEXED BY jobs_waiting
     WHERE w.wait_key IS NOT NULL AND w.limit_key = p.limit_key AND w.queue = p.queue AND w.type = p.type
     AND (w.wait_key, w.seq) > (+p.wait_key, +p.seq) ORDER BY w.wait_key, w.seq LIMIT 1), n.room - 1
   FROM next AS n CROSS JOIN jobs AS p ON p.seq = n.seq WHERE n.room > 1)
 UPDATE jobs AS j SET ready_key = max(j.wait_key, c.ms - max(j.priority, 0) * 30000), wait_key = NULL
 FROM db_clock AS c WHERE j.seq IN (SELECT seq FROM next WHERE room > 0)`

// sqlKeysSettled takes the marks away; a key of which nothing is left goes.
const sqlKeysSettled = `UPDATE limit_keys AS k SET changed = 0, next_at = iif(k.next_at = 0
   AND NOT EXISTS (SELECT 1 FROM jobs AS w INDEXED BY jobs_waiting WHERE w.wait_key IS NOT NULL AND w.limit_key = k.key)
   AND NOT EXISTS (SELECT 1 FROM jobs AS x INDEXED BY jobs_exposed WHERE x.ready_key IS NOT NULL AND x.limit_key = k.key), -1, k.next_at)
 WHERE k.key IN ` + theChanged

const sqlKeysForget = `DELETE FROM limit_keys INDEXED BY limit_keys_next WHERE next_at <> 0 AND next_at = -1`

// sqlSetLimit stores a limit. Arguments: 1 scope, 2 name, 3 max_running, 4
// interval (ms), 5 seed (NULL when set by hand, which leaves the seed). A seed
// that was applied before changes nothing.
const sqlSetLimit = `INSERT INTO limits(scope, name, max_running, interval_ms, seed, created_at, updated_at)
 SELECT ?1, ?2, ?3, ?4, ?5, c.ms, c.ms FROM db_clock AS c WHERE true
 ON CONFLICT DO UPDATE SET max_running = excluded.max_running, interval_ms = excluded.interval_ms,
   seed = coalesce(excluded.seed, limits.seed), updated_at = excluded.updated_at
 WHERE excluded.seed IS NULL OR limits.seed IS NOT excluded.seed`

const sqlDropLimit = `DELETE FROM limits WHERE scope = ? AND name = ? RETURNING 1`

// sqlLimitTouch marks the keys that a change of a limit concerns.
const sqlLimitTouch = `UPDATE limit_keys SET changed = 1 WHERE changed = 0 AND (key = ?1 OR ?1 = '*')`

// sqlStrays takes up to a thousand jobs of a key that has just got a limit out
// of the claim index, from a cursor on. Arguments: 1 name, 2 and 3 cursor
// (key, seq). The answer is the next cursor.
const sqlStrays = `UPDATE jobs AS j SET wait_key = ` + place + `, ready_key = NULL
 WHERE j.seq IN (SELECT i.seq FROM jobs AS i INDEXED BY jobs_exposed
   WHERE i.ready_key IS NOT NULL AND i.limit_key IS NOT NULL AND (i.limit_key, i.seq) > (?2, ?3) AND (?1 = '*' OR i.limit_key = ?1)
   ORDER BY i.limit_key, i.seq LIMIT 1000)
 RETURNING CAST(limit_key AS BLOB), seq`

// sqlLimits lists limits in the order of their scope and name. Arguments: 1
// and 2 the scope and name of the one before, 3 how many at most (-1 for all).
const sqlLimits = `SELECT ` + limitColumns + ` FROM limits AS l WHERE (l.scope, l.name) > (?1, ?2) ORDER BY l.scope, l.name LIMIT ?3`

const sqlLimit = `SELECT ` + limitColumns + ` FROM limits AS l WHERE l.scope = ? AND l.name = ?`

const limitColumns = `CAST(l.scope AS BLOB), CAST(l.name AS BLOB), l.max_running, l.interval_ms,
   iif(l.scope = 'key',
     (SELECT count(*) FROM jobs AS r INDEXED BY jobs_holding WHERE r.state = 'running' AND r.limit_key IS NOT NULL AND (r.limit_key = l.name OR l.name = '*')),
     (SELECT count(*) FROM jobs AS r INDEXED BY jobs_lease WHERE r.state = 'running' AND r.lease_expires_at IS NOT NULL
        AND iif(l.scope = 'queue', r.queue, r.type) = l.name))`

const sqlPause = `INSERT INTO queues(name, paused, created_at, updated_at) SELECT ?1, ?2, c.ms, c.ms FROM db_clock AS c WHERE true
 ON CONFLICT DO UPDATE SET paused = excluded.paused, updated_at = excluded.updated_at WHERE queues.paused <> excluded.paused`

// settle records what lets the jobs of changed keys into the claim index.
func settle(b *libsql.Batch) {
	b.Exec(sqlKeysDue)
	b.Exec(sqlKeysClose)
	b.Exec(sqlKeysOpen)
	b.Exec(sqlKeysSettled)
	b.Exec(sqlKeysForget)
}

// Scope of a limit.
const (
	LimitQueue = "queue" // all jobs of a queue
	LimitType  = "type"  // all jobs of a type
	LimitKey   = "key"   // all jobs with a limit key; the name * is each key by itself
)

// EachKey is the name of the limit of every key that has none of its own.
const EachKey = "*"

// Limit says how many jobs may run at once and how close two starts may be.
type Limit struct {
	Scope      string
	Name       string
	MaxRunning *int64        // nil for any number; 0 lets none start
	Interval   time.Duration // of a key: the least time between two starts; 0 for none
	Running    int64         // now; filled in by Limits
}

// MarshalJSON implements json.Marshaler. The interval is shown as "1s" or
// "1m30s", and as null for none.
func (l Limit) MarshalJSON() ([]byte, error) {
	var interval *string
	if l.Interval > 0 {
		interval = optional(l.Interval.String())
	}
	return json.Marshal(struct {
		Scope      string  `json:"scope"`
		Name       string  `json:"name"`
		MaxRunning *int64  `json:"max_running"`
		Interval   *string `json:"interval"`
		Running    int64   `json:"running"`
	}{l.Scope, l.Name, l.MaxRunning, interval, l.Running})
}

// ErrNoLimit is returned for a limit that is not set.
var ErrNoLimit = errors.New("no such limit")

func (l Limit) check() error {
	invalid := func(field, reason string) error {
		return &job.Invalid{Field: field, Code: "invalid", Reason: reason}
	}
	switch {
	case l.Scope != LimitQueue && l.Scope != LimitType && l.Scope != LimitKey:
		return invalid("scope", "must be queue, type or key")
	case l.Name == "":
		return invalid("name", "is required")
	case l.MaxRunning == nil && l.Interval == 0:
		return invalid("max_running", "is required where there is no interval")
	case l.MaxRunning != nil && (*l.MaxRunning < 0 || *l.MaxRunning > 1_000_000):
		return invalid("max_running", "must be between 0 and 1000000")
	case l.Interval != 0 && l.Scope != LimitKey:
		return invalid("interval", "goes with the scope key only")
	case l.Interval != 0 && (l.Interval < time.Millisecond || l.Interval > 24*time.Hour):
		return invalid("interval", "must be between 1ms and 24h")
	}
	return job.CheckText("name", l.Name, job.MaxName)
}

// SetLimit stores a limit, at once for what starts from now on. Jobs that run
// already go on.
func (q *Queue) SetLimit(ctx context.Context, l Limit) error {
	return q.setLimit(ctx, l, nil)
}

// SeedLimits applies limits from a configuration. Each value is applied once:
// what is set by hand later stays until the configured value changes.
func (q *Queue) SeedLimits(ctx context.Context, limits []Limit) error {
	for _, l := range limits {
		seed := fmt.Sprintf("interval %s", l.Interval)
		if l.MaxRunning != nil {
			seed += fmt.Sprintf(", max_running %d", *l.MaxRunning)
		}
		if err := q.setLimit(ctx, l, seed); err != nil {
			return err
		}
	}
	return nil
}

func (q *Queue) setLimit(ctx context.Context, l Limit, seed any) error {
	if err := l.check(); err != nil {
		return err
	}
	var most, interval any
	if l.MaxRunning != nil {
		most = *l.MaxRunning
	}
	if l.Interval > 0 {
		interval = millis(l.Interval)
	}
	var b libsql.Batch
	b.Exec(sqlSetLimit, l.Scope, l.Name, most, interval, seed)
	if l.Scope == LimitKey {
		b.Exec(sqlLimitTouch, l.Name)
	}
	if _, err := q.db.Write(ctx, &b); err != nil {
		return fmt.Errorf("set limit of %s %s: %w", l.Scope, l.Name, err)
	}
	if l.Scope == LimitKey { // also after a repeat: an earlier call may have ended half way
		if err := q.sweepStrays(ctx, l.Name); err != nil {
			return fmt.Errorf("set limit of key %s: %w", l.Name, err)
		}
	}
	q.signal()
	return nil
}

// sweepStrays lets every job of the key wait for its turn that stood in the
// claim index before the key had a limit.
func (q *Queue) sweepStrays(ctx context.Context, name string) error {
	key, seq := "", int64(0)
	for {
		var b libsql.Batch
		n := b.Query(sqlStrays, name, key, seq)
		res, err := q.db.Write(ctx, &b)
		if err != nil || len(res[n].Rows) == 0 {
			return err
		}
		for _, r := range res[n].Rows {
			if k := r.Str(0); k > key || k == key && r.Int(1) > seq {
				key, seq = k, r.Int(1)
			}
		}
	}
}

// DropLimit takes a limit away.
func (q *Queue) DropLimit(ctx context.Context, scope, name string) error {
	var b libsql.Batch
	n := b.Query(sqlDropLimit, scope, name)
	if scope == LimitKey {
		b.Exec(sqlLimitTouch, name)
	}
	res, err := q.db.Write(ctx, &b)
	if err == nil && len(res[n].Rows) == 0 {
		err = ErrNoLimit
	}
	if err != nil {
		return fmt.Errorf("drop limit of %s %s: %w", scope, name, err)
	}
	q.signal()
	return nil
}

// Limits lists all limits with how many jobs run under each.
func (q *Queue) Limits(ctx context.Context) ([]Limit, error) {
	return q.limits(ctx, libsql.Query(sqlLimits, "", "", -1))
}

// LimitsPage lists up to limit of them, from a cursor on ("" for the first).
// next is the cursor of the page that follows, "" when this is the last.
func (q *Queue) LimitsPage(ctx context.Context, cursor string, limit int) (list []Limit, next string, err error) {
	scope, name, _ := strings.Cut(cursor, " ")
	list, err = q.limits(ctx, libsql.Query(sqlLimits, scope, name, limit+1))
	if len(list) > limit {
		list = list[:limit]
		next = list[limit-1].Scope + " " + list[limit-1].Name
	}
	return list, next, err
}

// GetLimit returns one limit.
func (q *Queue) GetLimit(ctx context.Context, scope, name string) (*Limit, error) {
	list, err := q.limits(ctx, libsql.Query(sqlLimit, scope, name))
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("limit of %s %s: %w", scope, name, ErrNoLimit)
	}
	if err != nil {
		return nil, err
	}
	return &list[0], nil
}

func (q *Queue) limits(ctx context.Context, query libsql.Stmt) ([]Limit, error) {
	res, err := q.db.Read(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("list limits: %w", err)
	}
	out := make([]Limit, len(res[0].Rows))
	for i, r := range res[0].Rows {
		out[i] = Limit{
			Scope: r.Str(0), Name: r.Str(1), MaxRunning: r.IntPtr(2),
			Interval: time.Duration(r.Int(3)) * time.Millisecond, Running: r.Int(4),
		}
	}
	return out, nil
}

// Pause stops claims from a queue; jobs may still be stored, and those that
// run go on.
func (q *Queue) Pause(ctx context.Context, name string) error { return q.pause(ctx, name, 1) }

// Resume lets claims from a queue go on.
func (q *Queue) Resume(ctx context.Context, name string) error { return q.pause(ctx, name, 0) }

func (q *Queue) pause(ctx context.Context, name string, paused int64) error {
	if name == "" {
		return &job.Invalid{Field: "name", Code: "invalid", Reason: "is required"}
	}
	if err := job.CheckText("name", name, job.MaxName); err != nil {
		return err
	}
	var b libsql.Batch
	b.Exec(sqlPause, name, paused)
	if _, err := q.db.Write(ctx, &b); err != nil {
		return fmt.Errorf("pause or resume queue %s: %w", name, err)
	}
	q.signal()
	return nil
}
