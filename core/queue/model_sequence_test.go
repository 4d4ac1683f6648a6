package queue_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
)

// world is the queue beside its model, with what a client knows of both.
type world struct {
	q      *queue.Queue
	m      *model
	ids    []string
	asked  map[string]job.New // the first request with each id
	leases []queue.Lease      // all that were ever given out: stale ones too
	tokens int
}

const modelStart = 1_700_000_000_000 // ms

// startWorld empties the database and sets its clock.
func startWorld(t *rapid.T, q *queue.Queue) *world {
	var b libsql.Batch
	for _, table := range []string{"jobs", "job_keys", "job_runs", "job_log", "job_deps", "job_steps", "queues", "limits", "limit_keys", "test_clock"} {
		b.Exec("DELETE FROM " + table)
	}
	b.Exec("INSERT INTO test_clock VALUES (?)", modelStart)
	if _, err := q.DB().Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return &world{q: q, asked: map[string]job.New{}, m: newModel(modelStart)}
}

// step makes a call and holds its answer, and every row after it, against the
// model. rapid makes a failure smaller only while its message stays the same, so
// what is wrong goes to the log.
func (w *world) step(t *rapid.T, o op) any {
	t.Helper()
	got := o.do(t.Context(), w.q)
	t.Logf("%d ms: %T%+v gave %+v", w.m.now-modelStart, o, o, got)
	if err := o.check(w.m, got); err != nil {
		t.Log(err)
		t.Fatal("the answer is not the model's")
	}
	all, err := rows(t.Context(), w.q.DB())
	if err != nil {
		t.Fatal(err)
	}
	if wrong := w.m.compare(all); len(wrong) > 0 {
		t.Log(strings.Join(wrong, "\n"))
		t.Fatal("the rows are not the model's")
	}
	return got
}

func pick[T any](t *rapid.T, name string, from ...T) T { return rapid.SampledFrom(from).Draw(t, name) }

var modelTypes = []string{job.DebugEcho, job.DebugSleep, job.AccountSync, job.MessageIngest, "from.the.future"}

// job draws a job to store.
func (w *world) job(t *rapid.T, chains, limits bool) job.New {
	n := job.New{
		ID: fmt.Sprintf("00000000-0000-7000-8000-%012x", len(w.ids)), Type: pick(t, "type", modelTypes...),
		Queue: pick(t, "queue", "", "", "b"), Priority: pick(t, "priority", 0, 0, 1, -100, 100), MaxAttempts: pick(t, "attempts", 0, 1, 2),
		Payload: json.RawMessage(pick(t, "payload", "null", "1", `{"a":"2024-01-02"}`)), Key: pick(t, "key", "", "", "k", "l"),
	}
	again := len(w.ids) > 0 && pick(t, "again", false, false, false, false, true)
	if again {
		n.ID = pick(t, "id", w.ids...)
	}
	if n.Key != "" {
		n.KeyScope = pick(t, "scope", "", job.ScopeActive, job.ScopeUntil, job.ScopeForever)
		if n.KeyScope == job.ScopeUntil {
			n.KeyTTL = pick(t, "ttl", time.Second, time.Hour)
		}
	}
	switch pick(t, "time", "now", "now", "delay", "instant") {
	case "delay":
		n.Delay = pick(t, "delay", time.Millisecond, time.Second, time.Hour)
	case "instant":
		n.NotBefore = time.UnixMilli(w.m.now + pick(t, "instant", int64(-1000), 0, 1000, 3_600_000))
	}
	if limits {
		n.LimitKey = pick(t, "limit key", "", "x", "y")
	}
	if chains && len(w.ids) > 0 && rapid.Bool().Draw(t, "comes after") {
		for _, id := range rapid.SliceOfNDistinct(rapid.SampledFrom(w.ids), 1, 2, rapid.ID).Draw(t, "after") {
			if id != n.ID {
				n.After = append(n.After, id)
			}
		}
		if len(n.After) > 0 {
			n.AfterFailure = pick(t, "after failure", "", job.AfterCancel, job.AfterRun, job.AfterWait)
		}
	}
	switch {
	case !again:
		w.ids = append(w.ids, n.ID)
		w.asked[n.ID] = n
	case w.m.jobs[n.ID] == nil:
		return w.asked[n.ID] // an id stands for one request, also when its job is gone
	}
	return n
}

// jobs draws several for one call, in which an id that comes twice is the same
// request twice.
func (w *world) jobs(t *rapid.T, n int, chains, limits bool) []job.New {
	var list []job.New
	for range n {
		j := w.job(t, chains, limits)
		if i := slices.IndexFunc(list, func(o job.New) bool { return o.ID == j.ID && o.Type == j.Type }); i >= 0 {
			j = list[i]
		}
		list = append(list, j)
	}
	return list
}

func (w *world) request(t *rapid.T) queue.ClaimRequest {
	w.tokens++
	r := queue.ClaimRequest{
		Runner: pick(t, "runner", "r1", "r2"), Token: fmt.Sprintf("token-%d", w.tokens), Limit: pick(t, "limit", 1, 2, 10),
		Types: modelTypes[:pick(t, "types", 5, 4, 1)], Lease: pick(t, "lease", time.Minute, time.Second),
	}
	if pick(t, "some queues", false, false, true) {
		r.Queues = pick(t, "queues", []string{"b"}, []string{"default", "none"}, []string{})
	}
	return r
}

func (w *world) lease(t *rapid.T) queue.Lease {
	if len(w.leases) == 0 {
		t.Skip("nothing was claimed")
	}
	if held := slices.DeleteFunc(slices.Clone(w.leases), func(l queue.Lease) bool { return w.m.holder(l) == nil }); len(held) > 0 && pick(t, "held", true, true, true, false) {
		return pick(t, "lease", held...)
	}
	return pick(t, "lease", w.leases...)
}

func (w *world) id(t *rapid.T) string {
	if len(w.ids) == 0 {
		t.Skip("nothing was stored")
	}
	return pick(t, "id", w.ids...)
}

// actions are all calls, each with what it is drawn from.
func (w *world) actions(chains, limits, crashes bool) map[string]func(*rapid.T) {
	enqueue := func(n int) func(*rapid.T) {
		return func(t *rapid.T) { w.step(t, enqueueOp{w.jobs(t, n, chains, limits)}) }
	}
	claim := func(t *rapid.T) {
		for _, c := range w.step(t, claimOp{w.request(t)}).(answered[claimed]).v.Jobs {
			w.leases = append(w.leases, c.Lease)
		}
	}
	finish := func(kinds ...queue.Kind) func(*rapid.T) {
		return func(t *rapid.T) {
			o := queue.Outcome{Kind: pick(t, "kind", kinds...)}
			switch o.Kind {
			case queue.Completed:
				o.Result = json.RawMessage(pick(t, "result", "", `"done"`))
				if len(o.Result) == 0 {
					o.Result = nil
				}
			case queue.HandedBack:
			default:
				o.Delay, o.Error = pick(t, "delay", 0, time.Millisecond, time.Minute), pick(t, "error", "", "boom")
			}
			w.step(t, finishOp{w.lease(t), o})
		}
	}
	advance := func(t *rapid.T) {
		w.step(t, advanceOp{pick(t, "ms", int64(1), 999, 1000, 2000, 60_000, 60_001, 3_600_000)})
	}
	rescue := func(t *rapid.T) { w.step(t, rescueOp{}) }
	all := map[string]func(*rapid.T){
		"enqueue": enqueue(1), "enqueue more": enqueue(1), "enqueue three": enqueue(3), "claim": claim, "claim more": claim,
		"complete": finish(queue.Completed), "end": finish(queue.Completed, queue.Failed, queue.Fatal, queue.Snoozed, queue.HandedBack),
		"fail": finish(queue.Failed), "snooze": finish(queue.Snoozed), "advance": advance, "rescue": rescue,
		"heartbeat": func(t *rapid.T) {
			w.step(t, heartbeatOp{[]queue.Lease{w.lease(t), w.lease(t)}[:pick(t, "leases", 1, 2)], pick(t, "lease", time.Second, time.Minute)})
		},
		"commit": func(t *rapid.T) {
			w.step(t, commitOp{w.lease(t), pick(t, "result", "null", `"done"`), w.jobs(t, pick(t, "follow-ups", 0, 1, 2), chains, limits)})
		},
		"cancel":  func(t *rapid.T) { w.step(t, cancelOp{w.id(t)}) },
		"retry":   func(t *rapid.T) { w.step(t, retryOp{w.id(t)}) },
		"run now": func(t *rapid.T) { w.step(t, runNowOp{w.id(t)}) },
		"many": func(t *rapid.T) {
			w.id(t) // or nothing was stored
			ids := rapid.SliceOfN(rapid.SampledFrom(w.ids), 1, 4).Draw(t, "ids")
			w.step(t, manyOp{rapid.SampledFrom([]string{"cancel", "retry", "delete"}).Draw(t, "change"), ids})
		},
		"pull forward": func(t *rapid.T) {
			w.step(t, pullOp{pick(t, "type", modelTypes...), pick(t, "key", "k", "l")})
		},
		"by token": func(t *rapid.T) { w.step(t, byTokenOp{w.lease(t).Token}) },
		"look":     func(t *rapid.T) { w.step(t, lookOp{}) },
		"prune": func(t *rapid.T) {
			keep := func(name string) time.Duration { return pick(t, name, 0, time.Second, time.Minute, time.Hour) }
			w.step(t, pruneOp{queue.Retention{Completed: keep("completed"), Canceled: keep("canceled"), Failed: keep("failed")}})
		},
		"pause": func(t *rapid.T) {
			w.step(t, pauseOp{pick(t, "queue", "default", "b"), pick(t, "paused", false, false, true)})
		},
	}
	if limits {
		all["limit"] = func(t *rapid.T) {
			l := queue.Limit{Scope: pick(t, "scope", queue.LimitKey, queue.LimitKey, queue.LimitQueue, queue.LimitType)}
			l.Name = map[string]string{queue.LimitQueue: "default", queue.LimitType: job.DebugEcho}[l.Scope]
			if l.Scope == queue.LimitKey {
				l.Name = pick(t, "name", "x", queue.EachKey)
				l.Interval = pick(t, "interval", 0, 0, time.Second, time.Minute)
			}
			if n := pick(t, "most", -1, 0, 1, 2); n >= 0 {
				l.MaxRunning = atMost(int64(n))
			}
			w.step(t, limitOp{l, l.MaxRunning == nil && l.Interval == 0})
		}
	}
	if crashes {
		// Time passes until leases run out, again and again.
		crash := func(t *rapid.T) {
			w.step(t, advanceOp{pick(t, "ms", int64(60_001), 300_001)})
			rescue(t)
		}
		all["crash"], all["crash again"] = crash, crash
		all["claim alone"] = func(t *rapid.T) {
			if c := w.step(t, claimSoloOp{w.request(t)}).(answered[*queue.Claimed]).v; c != nil {
				w.leases = append(w.leases, c.Lease)
			}
		}
		all["begin alone"] = func(t *rapid.T) {
			l := w.lease(t)
			if j := w.m.holder(l); j != nil && j.solo == 0 {
				t.Skip("it is not reserved")
			}
			w.step(t, beginSoloOp{l})
		}
		all["hand back alone"] = func(t *rapid.T) {
			w.step(t, finishOp{w.lease(t), queue.Outcome{Kind: queue.HandedBack, Delay: pick(t, "delay", 0, 30*time.Second)}})
		}
	}
	return all
}

// Random sequences of everything a client can do to the queue: each answer and
// each row after each step is what docs/lifecycle.md says, and at the end the
// database keeps its invariants. -rapid.checks=N makes more of them.
func TestTheQueueDoesWhatItsModelSays(t *testing.T) {
	t.Parallel()
	for name, with := range map[string]struct{ chains, limits, crashes bool }{
		"plain": {}, "chains": {chains: true}, "limits": {limits: true}, "crashes": {crashes: true}, "all together": {true, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, err := libsql.Open(t.Context(), libsql.Options{Path: dbtest.Path(t), Synchronous: "normal"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = db.Close(t.Context()) })
			(&clock{t: t, db: db}).set(0)
			q := queue.New(db, system.Real{}, job.Known())
			rapid.Check(t, func(t *rapid.T) {
				w := startWorld(t, q)
				t.Repeat(w.actions(with.chains, with.limits, with.crashes))
				rep, err := q.Verify(t.Context())
				if err != nil || len(rep.Violations) > 0 {
					t.Logf("%+v, %v", rep, err)
					t.Fatal("the invariants do not hold")
				}
			})
		})
	}
}
