package queue_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"pgregory.net/rapid"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
)

// What several processes do at once has the effect of some order of their
// calls, each between its beginning and its end: the answers, and the rows that
// are left, are those the model gives in that order.
func TestConcurrentHistoriesHaveAnOrder(t *testing.T) {
	t.Parallel()
	const clients, calls = 3, 3
	path := dbtest.Path(t)
	var queues []*queue.Queue
	for range clients { // a handle each, with a writer of its own, as processes have
		db, err := libsql.Open(t.Context(), libsql.Options{Path: path, Synchronous: "normal", RetryTimes: 3})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close(t.Context()) })
		queues = append(queues, queue.New(db, system.Real{}, job.Known()))
	}
	(&clock{t: t, db: queues[0].DB()}).set(0)
	checks := 0
	rapid.Check(t, func(rt *rapid.T) {
		w := startWorld(rt, queues[0])
		w.populate(rt)
		var histories [clients][]porcupine.Operation
		for c := range clients {
			for range calls {
				histories[c] = append(histories[c], porcupine.Operation{ClientId: c, Input: w.call(rt)})
			}
		}
		w.m.crowd = true
		begun := time.Now()
		ready := make(chan struct{})
		var all sync.WaitGroup
		for c := range clients {
			all.Go(func() {
				<-ready
				for i := range histories[c] {
					call := &histories[c][i]
					call.Call = time.Since(begun).Nanoseconds()
					call.Output = call.Input.(op).do(t.Context(), queues[c])
					call.Return = time.Since(begun).Nanoseconds()
				}
			})
		}
		close(ready)
		all.Wait()
		history := slices.Concat(histories[:]...)
		last := porcupine.Operation{Input: rowsOp{}, Call: time.Since(begun).Nanoseconds(), Output: rowsOp{}.do(t.Context(), queues[0])}
		last.Return = last.Call + 1
		checks++
		switch porcupine.CheckOperationsTimeout(inOrder(w.m), append(history, last), time.Minute) {
		case porcupine.Ok:
		case porcupine.Unknown:
			rt.Log("no order was found in a minute, and none was ruled out")
		case porcupine.Illegal:
			// It may not come again: what happened is told at once.
			t.Logf("check %d: no order of these calls explains what they gave\n%s", checks, told(w.m, history, last))
			rt.Fatal("no order explains it")
		}
	})
}

// inOrder makes the model one for porcupine, beginning where m stands.
func inOrder(m *model) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return m },
		Step: func(state, input, output any) (bool, any) {
			next := state.(*model).clone()
			err := input.(op).check(next, output)
			return err == nil, next
		},
		Equal: func(a, b any) bool { return a.(*model).fingerprint() == b.(*model).fingerprint() },
	}
}

// told is a history for people, with what is wrong at its end if the calls took
// effect in the order in which they returned.
func told(m *model, history []porcupine.Operation, last porcupine.Operation) string {
	var b strings.Builder
	fmt.Fprintf(&b, "before:\n%s", m.fingerprint())
	slices.SortFunc(history, func(x, y porcupine.Operation) int { return int(x.Return - y.Return) })
	m = m.clone()
	for _, call := range append(history, last) {
		fmt.Fprintf(&b, "client %d, %d to %d µs: %T%+v", call.ClientId, call.Call/1000, call.Return/1000, call.Input, call.Input)
		if call.Input != (rowsOp{}) {
			fmt.Fprintf(&b, " gave %+v", call.Output)
		}
		if err := call.Input.(op).check(m, call.Output); err != nil {
			fmt.Fprintf(&b, "\n\tin this order: %v", err)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// populate brings the queue, call by call, into a state in which there is
// something to quarrel over.
func (w *world) populate(t *rapid.T) {
	if rapid.Bool().Draw(t, "limited") {
		w.step(t, limitOp{queue.Limit{Scope: queue.LimitKey, Name: "x", MaxRunning: atMost(1)}, false})
		w.step(t, limitOp{queue.Limit{Scope: queue.LimitType, Name: job.DebugSleep, MaxRunning: atMost(2)}, false})
	}
	calls := w.actions(false, false, true)
	for _, name := range rapid.SliceOfN(rapid.SampledFrom([]string{
		"enqueue three", "enqueue three", "enqueue", "claim", "claim", "fail", "snooze", "end", "crash", "cancel", "retry", "advance", "claim alone",
	}), 3, 12).Draw(t, "before") {
		w.try(t, calls[name])
	}
	// What stands in line now must not be left behind.
	all, err := rows(t.Context(), w.q.DB())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all[0].Rows {
		w.m.jobs[r.Str(0)].lined = !r.Null(26)
	}
}

// try makes a call unless there is nothing to make it of.
func (w *world) try(t *rapid.T, call func(*rapid.T)) {
	if len(w.ids) == 0 || len(w.leases) == 0 {
		w.actions(false, true, false)["enqueue three"](t)
		w.actions(false, true, false)["claim"](t)
	}
	if len(w.leases) > 0 {
		call(t)
	}
}

// call draws one of the calls that are made at once.
func (w *world) call(t *rapid.T) op {
	if len(w.leases) == 0 {
		w.leases = []queue.Lease{{JobID: "none", Token: "none"}}
	}
	switch pick(t, "call", "enqueue", "claim", "claim", "finish", "finish", "heartbeat", "commit", "rescue", "cancel", "retry", "pull", "get", "by token", "pause", "alone", "advance") {
	case "enqueue":
		return enqueueOp{w.jobs(t, pick(t, "jobs", 1, 2), false, true)}
	case "claim":
		return claimOp{w.request(t)}
	case "finish":
		o := queue.Outcome{Kind: pick(t, "kind", queue.Completed, queue.Failed, queue.Fatal, queue.Snoozed, queue.HandedBack)}
		if o.Kind == queue.Failed || o.Kind == queue.Snoozed {
			o.Delay = pick(t, "delay", 0, time.Minute)
		}
		return finishOp{w.lease(t), o}
	case "heartbeat":
		return heartbeatOp{[]queue.Lease{w.lease(t)}, pick(t, "lease", time.Second, time.Minute)}
	case "commit":
		return commitOp{w.lease(t), "null", w.jobs(t, 1, false, true)}
	case "rescue":
		return rescueOp{}
	case "cancel":
		return cancelOp{w.id(t)}
	case "retry":
		return retryOp{w.id(t)}
	case "pull":
		return pullOp{pick(t, "type", modelTypes...), pick(t, "key", "k", "l")}
	case "by token":
		return byTokenOp{w.lease(t).Token}
	case "pause":
		return pauseOp{pick(t, "queue", "default", "b"), rapid.Bool().Draw(t, "paused")}
	case "alone":
		return claimSoloOp{w.request(t)}
	case "advance":
		return advanceOp{pick(t, "ms", int64(1), 1001, 60_001)}
	}
	return getOp{w.id(t)}
}
