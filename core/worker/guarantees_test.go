package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
	"github.com/postroom/postroom/core/worker"
)

// handler is a job type of the mail path bound to a test's function.
func handler(fn func(ctx context.Context, j *worker.Job[json.RawMessage]) (any, error)) worker.Binding {
	return worker.Bind(job.ActionExecute, fn)
}

func TestTheHandlersContextEndsWithItsCause(t *testing.T) {
	t.Parallel()
	causes := make(chan error, 1)
	running := make(chan string, 1)
	r := start(t, handler(func(ctx context.Context, j *worker.Job[json.RawMessage]) (any, error) {
		running <- j.ID()
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return nil, ctx.Err()
	}))
	t.Run("canceled", func(t *testing.T) {
		id := r.enqueue(job.ActionExecute, "1")
		<-running
		if _, err := r.q.Cancel(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if cause := <-causes; !errors.Is(cause, worker.ErrCanceled) {
			t.Errorf("cause %v", cause)
		}
		r.await(id, job.Canceled)
	})
	t.Run("lease lost", func(t *testing.T) {
		id := r.enqueue(job.ActionExecute, "2")
		<-running
		var b libsql.Batch // another runner has it now
		b.Exec("UPDATE jobs SET lease_token = 'other' WHERE id = ?", id)
		if _, err := r.q.DB().Write(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		if cause := <-causes; !errors.Is(cause, queue.ErrLeaseLost) {
			t.Errorf("cause %v", cause)
		}
		if d, err := r.q.Detail(t.Context(), id); err != nil || d.State != job.Running || len(d.Runs) != 0 {
			t.Errorf("the stale run changed the job: %+v, %v", d, err)
		}
	})
}

func TestARunThatTakesTooLongIsAFailedAttempt(t *testing.T) {
	t.Parallel()
	types := job.Known()
	short := types[job.ActionExecute]
	short.Timeout = 50 * time.Millisecond
	types[job.ActionExecute] = short
	q := queue.New(dbtest.Open(t), system.Real{}, types)
	var cause atomic.Value
	r := startOn(t, q, "runner-1", handler(func(ctx context.Context, _ *worker.Job[json.RawMessage]) (any, error) {
		<-ctx.Done()
		cause.Store(context.Cause(ctx))
		return nil, ctx.Err()
	}))
	e, err := q.Enqueue(t.Context(), job.New{Type: job.ActionExecute, MaxAttempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	d := r.await(e.ID, job.Failed)
	if *d.LastError != "timed out after 50ms: context deadline exceeded" || !errors.Is(cause.Load().(error), worker.ErrTimeout) {
		t.Errorf("error %q, cause %v", *d.LastError, cause.Load())
	}
}

// A run that the database did not let go on spends no attempt, however often
// that happens, and its error is kept with the run. There is no such excuse
// for what is wrong, for good, or takes too long.
func TestAnOutageSpendsNoAttempt(t *testing.T) {
	t.Parallel()
	types := job.Known()
	quick := types[job.ActionExecute]
	quick.Backoff = job.Backoff{Base: time.Millisecond, Cap: time.Millisecond}
	types[job.ActionExecute] = quick
	q := queue.New(dbtest.Open(t), system.Real{}, types)
	database := func(c libsql.Class) error { return fmt.Errorf("record: %w", &libsql.Error{Class: c, Op: "commit"}) }
	cases := map[string]struct {
		err   error
		spent int64 // failures of three runs that end so, where the budget is two
	}{
		"full":                             {database(libsql.Full), 0},
		"unavailable":                      {database(libsql.Unavailable), 0},
		"busy":                             {database(libsql.Busy), 0},
		"unknown":                          {database(libsql.Unknown), 0},
		"beside another error":             {errors.Join(errors.New("the disk is full"), database(libsql.Full)), 0},
		"where the handler names the time": {job.RetryAfter(0, database(libsql.Full)), 0},
		"corrupt":                          {database(libsql.Corrupt), 2},
		"refused":                          {database(libsql.Constraint), 2},
		"given up with its context":        {fmt.Errorf("%w: %w", database(libsql.Unknown), context.DeadlineExceeded), 2},
		"for good":                         {job.Fatal(database(libsql.Full)), 1},
	}
	r := startOn(t, q, "runner-1", handler(func(_ context.Context, j *worker.Job[json.RawMessage]) (any, error) {
		var name string
		if err := json.Unmarshal(j.Payload, &name); err != nil || j.Number() > 3 {
			return nil, err
		}
		return nil, cases[name].err
	}))
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			e, err := q.Enqueue(t.Context(), job.New{Type: job.ActionExecute, Payload: job.Payload(name), MaxAttempts: 2})
			if err != nil {
				t.Fatal(err)
			}
			state := job.Completed
			if c.spent > 0 {
				state = job.Failed
			}
			d := r.await(e.ID, state)
			if d.Failures != c.spent || c.spent == 0 && (d.Attempts != 1 || len(d.Runs) != 2 || d.Runs[0].Outcome != "snoozed" || *d.Runs[0].Error != c.err.Error()) {
				t.Errorf("%+v", d)
			}
		})
	}
}

func TestAHandlerThatEndsItsGoroutineFails(t *testing.T) {
	t.Parallel()
	r := start(t, handler(func(context.Context, *worker.Job[json.RawMessage]) (any, error) {
		runtime.Goexit()
		return nil, nil
	}))
	e, err := r.q.Enqueue(t.Context(), job.New{Type: job.ActionExecute, MaxAttempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	if d := r.await(e.ID, job.Failed); *d.LastError != "panic: the handler ended its goroutine" {
		t.Errorf("error %q", *d.LastError)
	}
}

// Runs share goroutines: each handler that waits needs one of its own, and one
// that panics or ends its goroutine leaves the others theirs.
func TestEverySlotRunsWhateverTheOthersDo(t *testing.T) {
	t.Parallel()
	const slots, rounds = 4, 5
	var together sync.WaitGroup
	together.Add(slots)
	r := start(t, handler(func(_ context.Context, j *worker.Job[json.RawMessage]) (any, error) {
		if string(j.Payload) == "0" {
			together.Done()
			together.Wait() // never ends unless all of them run at once
			return nil, nil
		}
		if string(j.Payload) == "1" {
			runtime.Goexit()
		}
		panic("on purpose")
	}))
	var ids []string
	for _, payload := range slices.Concat(slices.Repeat([]string{"1", "2"}, slots*rounds), slices.Repeat([]string{"0"}, slots)) {
		e, err := r.q.Enqueue(t.Context(), job.New{Type: job.ActionExecute, MaxAttempts: 1, Payload: json.RawMessage(payload)})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.ID)
	}
	for i, id := range ids {
		if i < len(ids)-slots {
			r.await(id, job.Failed)
		} else {
			r.await(id, job.Completed)
		}
	}
}

func TestHeartbeatsKeepALongRunsLease(t *testing.T) {
	t.Parallel()
	keepsItsLease(t, func(*rig) {})
}

// keepsItsLease shows that a run that takes longer than its lease keeps it,
// beside a runner that rescues whatever it can, also after what is done to its
// own runner meanwhile.
func keepsItsLease(t *testing.T, meanwhile func(*rig)) *rig {
	t.Helper()
	q := queue.New(dbtest.Open(t), system.Real{}, job.Known())
	release := make(chan struct{})
	r := startOn(t, q, "one", handler(func(context.Context, *worker.Job[json.RawMessage]) (any, error) {
		<-release
		return nil, nil
	}))
	id := r.enqueue(job.ActionExecute, "1")
	first := r.lease(id, 0)
	startOn(t, q, "two") // the lease is one second
	meanwhile(r)
	for expires := first; expires < first+2000; { // two leases later it still is the first's
		expires = r.lease(id, expires)
	}
	close(release)
	if d := r.await(id, job.Completed); d.Attempts != 1 || d.Crashes != 0 || d.Runs[0].Runner != "one" {
		t.Errorf("%+v", d)
	}
	return r
}

// lease waits until the job's lease ends later than the moment given.
func (r *rig) lease(id string, after int64) int64 {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		res, err := r.q.DB().Read(r.t.Context(), libsql.Query("SELECT lease_expires_at FROM jobs WHERE id = ?", id))
		if err != nil {
			r.t.Fatal(err)
		}
		if at := res[0].Rows[0].Int(0); at > after {
			return at
		}
	}
	return 0
}

func TestADeadRunnersJobIsTakenBack(t *testing.T) {
	t.Parallel()
	q := queue.New(dbtest.Open(t), system.Real{}, job.Known())
	e, err := q.Enqueue(t.Context(), job.New{Type: job.DebugEcho})
	if err != nil {
		t.Fatal(err)
	}
	// A runner that claims and is never heard of again.
	_, err = q.Claim(t.Context(), queue.ClaimRequest{Runner: "dead", Token: q.NewToken(), Types: []string{job.DebugEcho}, Limit: 1, Lease: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	d := startOn(t, q, "alive").await(e.ID, job.Completed)
	if d.Attempts != 2 || d.Crashes != 1 || d.Runs[0].Runner != "dead" || d.Runs[0].Outcome != "rescued" || d.Runs[1].Runner != "alive" {
		t.Errorf("job %+v", d)
	}
}

func TestShutdownHandsWorkBack(t *testing.T) {
	t.Parallel()
	t.Run("a handler that heeds its context returns its job at once", func(t *testing.T) {
		t.Parallel()
		running := make(chan struct{}, 1)
		r := start(t, handler(func(ctx context.Context, _ *worker.Job[json.RawMessage]) (any, error) {
			running <- struct{}{}
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}))
		id := r.enqueue(job.ActionExecute, "1")
		<-running
		r.stop()
		r.w.Hurry()
		if err := <-r.done; err != nil {
			t.Error(err)
		}
		r.done <- nil
		d, err := r.q.Detail(t.Context(), id)
		if err != nil || d.State != job.Queued || d.Attempts != 0 || d.Failures != 0 || d.Runs[0].Outcome != "handed_back" {
			t.Errorf("%+v, %v", d, err)
		}
		if runners, err := r.q.Runners(t.Context()); err != nil || len(runners) != 0 {
			t.Errorf("runners %+v, %v", runners, err)
		}
	})
	t.Run("one that ignores it is handed back all the same, and fenced off", func(t *testing.T) {
		t.Parallel()
		running, release, finished := make(chan struct{}, 1), make(chan struct{}), make(chan error, 1)
		r := start(t, handler(func(ctx context.Context, j *worker.Job[json.RawMessage]) (any, error) {
			running <- struct{}{}
			<-release
			finished <- j.Commit(context.WithoutCancel(ctx), nil, func(*queue.Batch) {})
			return nil, nil
		}))
		id := r.enqueue(job.ActionExecute, "1")
		<-running
		r.stop()
		r.w.Hurry()
		<-r.done
		r.done <- nil
		d, err := r.q.Detail(t.Context(), id)
		if err != nil || d.State != job.Queued || d.Attempts != 0 {
			t.Errorf("%+v, %v", d, err)
		}
		// Another runner has the job when the handler wakes up at last.
		_, err = r.q.Claim(t.Context(), queue.ClaimRequest{Runner: "next", Token: "next", Types: []string{job.ActionExecute}, Limit: 1, Lease: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		close(release)
		if err := <-finished; !errors.Is(err, queue.ErrLeaseLost) {
			t.Errorf("the late commit: %v", err)
		}
		for r.w.Running() > 0 { // the late run ends, and logs that
			runtime.Gosched()
		}
	})
	t.Run("work that ends by itself is waited for", func(t *testing.T) {
		t.Parallel()
		running, release := make(chan struct{}, 1), make(chan struct{})
		r := start(t, handler(func(context.Context, *worker.Job[json.RawMessage]) (any, error) {
			running <- struct{}{}
			<-release
			return "done", nil
		}))
		id := r.enqueue(job.ActionExecute, "1")
		<-running
		r.stop()
		for !r.w.Draining() {
			runtime.Gosched()
		}
		close(release)
		<-r.done
		r.done <- nil
		if d, err := r.q.Detail(t.Context(), id); err != nil || d.State != job.Completed {
			t.Errorf("%+v, %v", d, err)
		}
	})
}

func TestAFollowUpJobStartsAtOnce(t *testing.T) {
	t.Parallel()
	child := make(chan string, 1)
	r := start(t, handler(func(ctx context.Context, j *worker.Job[json.RawMessage]) (any, error) {
		return nil, j.Commit(ctx, "handed over", func(b *queue.Batch) {
			child <- b.Enqueue(job.New{Type: job.DebugEcho, Payload: json.RawMessage(`7`)})
		})
	}))
	id := r.enqueue(job.ActionExecute, "1")
	if p := r.await(id, job.Completed); string(p.Result) != `"handed over"` {
		t.Errorf("parent %+v", p)
	}
	if d := r.await(<-child, job.Completed); *d.ParentID != id || string(d.Result) != "7" {
		t.Errorf("child %+v", d)
	}
}

func TestAResultThatIsNotUTF8IsRepaired(t *testing.T) {
	t.Parallel()
	r := start(t, handler(func(ctx context.Context, j *worker.Job[json.RawMessage]) (any, error) {
		result := json.RawMessage("[\"caf\xe9\"]")
		if string(j.Payload) == `"commit"` {
			return nil, j.Commit(ctx, result, func(*queue.Batch) {})
		}
		return result, nil
	}))
	for _, how := range []string{`"return"`, `"commit"`} {
		if d := r.await(r.enqueue(job.ActionExecute, how), job.Completed); string(d.Result) != "[\"caf\uFFFD\"]" {
			t.Errorf("%s: %q", how, d.Result)
		}
	}
}

func TestUnboundTypesWait(t *testing.T) {
	t.Parallel()
	r := start(t)
	id := r.enqueue("nobody.knows", "1")
	r.await(r.enqueue(job.DebugEcho, "1"), job.Completed)
	if d, err := r.q.Detail(t.Context(), id); err != nil || d.State != job.Queued || d.Attempts != 0 {
		t.Errorf("%+v, %v", d, err)
	}
}
