package worker

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
)

// handClock is a clock that stands still until it is moved.
type handClock struct {
	system.Real
	mu     sync.Mutex
	now    time.Time
	timers []*handTimer
}

type handTimer struct {
	clock *handClock
	c     chan time.Time
	at    time.Time // zero when it has fired or was stopped
}

func newHandClock() *handClock { return &handClock{now: time.Now().Round(0)} }

func (c *handClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *handClock) NewTimer(d time.Duration) system.Timer {
	t := &handTimer{clock: c, c: make(chan time.Time, 1)}
	c.mu.Lock()
	c.timers = append(c.timers, t)
	c.mu.Unlock()
	t.Reset(d)
	return t
}

func (c *handClock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	for _, t := range c.timers {
		t.fireIfDue()
	}
}

// await waits until n timers wait for the clock.
func (c *handClock) await(n int) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		c.mu.Lock()
		armed := 0
		for _, t := range c.timers {
			if !t.at.IsZero() {
				armed++
			}
		}
		c.mu.Unlock()
		if armed >= n {
			return
		}
	}
}

func (t *handTimer) C() <-chan time.Time { return t.c }

func (t *handTimer) Reset(d time.Duration) {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	t.at = t.clock.now.Add(d)
	t.fireIfDue()
}

func (t *handTimer) Stop() {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	t.at = time.Time{}
	t.clock.timers = slices.DeleteFunc(t.clock.timers, func(o *handTimer) bool { return o == t })
}

func (t *handTimer) fireIfDue() {
	if t.at.IsZero() || t.at.After(t.clock.now) {
		return
	}
	t.at = time.Time{}
	select {
	case t.c <- t.clock.now:
	default:
	}
}

// hangingDB answers no call while it hangs, except that the call's context
// ends it.
type hangingDB struct {
	libsql.DB
	mu    sync.Mutex
	hangs chan struct{}  // closed when it goes on; nil while it answers
	fails bool           // it does not hang, it fails
	stuck chan stuckCall // receives each call that is not answered
}

type stuckCall struct {
	name string // of the op
	ctx  context.Context
}

func (d *hangingDB) hang() (goOn func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	hangs := make(chan struct{})
	d.hangs = hangs
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.hangs = nil
		close(hangs)
	}
}

// fail makes every call fail.
func (d *hangingDB) fail() (goOn func()) {
	d.mu.Lock()
	d.fails = true
	d.mu.Unlock()
	return d.hang()
}

func (d *hangingDB) wait(ctx context.Context, name string) error {
	d.mu.Lock()
	hangs, fails := d.hangs, d.fails
	d.mu.Unlock()
	if hangs == nil {
		return nil
	}
	select {
	case d.stuck <- stuckCall{name, ctx}:
	default:
	}
	if fails {
		return &libsql.Error{Class: libsql.Unavailable, Op: "call"}
	}
	select {
	case <-hangs:
		return nil
	case <-ctx.Done():
		return &libsql.Error{Class: libsql.Canceled, Op: "write"}
	}
}

func (d *hangingDB) Write(ctx context.Context, b *libsql.Batch) ([]libsql.Result, error) {
	if err := d.wait(ctx, "write"); err != nil {
		return nil, err
	}
	return d.DB.Write(ctx, b)
}

func (d *hangingDB) Merge(ctx context.Context, op *libsql.Op, items ...[]byte) ([]libsql.Row, error) {
	if err := d.wait(ctx, op.Name); err != nil {
		return nil, err
	}
	return d.DB.Merge(ctx, op, items...)
}

func (d *hangingDB) Read(ctx context.Context, stmts ...libsql.Stmt) ([]libsql.Result, error) {
	if err := d.wait(ctx, "read"); err != nil {
		return nil, err
	}
	return d.DB.Read(ctx, stmts...)
}

const testLease = time.Hour

// timed is a worker whose time is moved by hand, on a database that can hang.
func timed(t *testing.T, fn Handler[json.RawMessage]) (*Worker, *handClock, *hangingDB) {
	t.Helper()
	clock := newHandClock()
	db := &hangingDB{DB: dbtest.Open(t), stuck: make(chan stuckCall, 100)}
	w, err := New(queue.New(db, clock, job.Known()), zerolog.New(zerolog.NewTestWriter(t)), Config{
		Runner: queue.Runner{ID: "runner", Host: "test", Version: "test"}, Concurrency: 4,
		Lease: testLease, Heartbeat: testLease / 3, Poll: testLease / 10, DrainTimeout: time.Minute,
	}, Bind(job.ActionExecute, fn))
	if err != nil {
		t.Fatal(err)
	}
	return w, clock, db
}

func (w *Worker) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = w.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

func TestAHangingDatabaseDoesNotDelayTheLocalDeadline(t *testing.T) {
	t.Parallel()
	type run struct {
		ctx context.Context
		end chan struct{}
	}
	runs := make(chan run)
	w, clock, db := timed(t, func(ctx context.Context, _ *Job[json.RawMessage]) (any, error) {
		r := run{ctx, make(chan struct{})}
		runs <- r
		<-r.end
		return nil, ctx.Err()
	})
	w.run(t)
	e, err := w.q.Enqueue(t.Context(), job.New{Type: job.ActionExecute})
	if err != nil {
		t.Fatal(err)
	}
	r := <-runs
	clock.await(6) // those of the deadlines, the claims and at least three other loops
	goOn := db.hang()
	clock.move(testLease / 3) // every loop that asks the database hangs now
	for range 3 {
		<-db.stuck
	}
	clock.move(2*testLease/3 - time.Millisecond)
	if err := r.ctx.Err(); err != nil {
		t.Errorf("before the deadline: %v, %v", err, context.Cause(r.ctx))
	}
	clock.move(time.Millisecond)
	<-r.ctx.Done()
	if cause := context.Cause(r.ctx); !errors.Is(cause, queue.ErrLeaseLost) {
		t.Errorf("cause %v", cause)
	}
	// The database is back before anybody took the job: it costs nothing.
	goOn()
	close(r.end)
	r = <-runs
	close(r.end)
	d, err := w.q.Detail(t.Context(), e.ID)
	if err != nil || d.Attempts != 1 || d.Failures != 0 || d.Crashes != 0 || len(d.Runs) == 0 || d.Runs[0].Outcome != "handed_back" {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestAHeartbeatThatHangsDoesNotHoldUpTheNext(t *testing.T) {
	t.Parallel()
	w, clock, db := timed(t, nil)
	w.active = append(w.active, &activeRun{Run: Run{claimed: queue.Claimed{Lease: queue.Lease{JobID: "a", Token: "b"}}}})
	defer db.hang()()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.every(testLease/3, w.heartbeat)(ctx) }()
	first := <-db.stuck
	var second stuckCall
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for began := clock.Now(); second.ctx == nil; {
		select {
		case second = <-db.stuck:
			if late := clock.Now().Sub(began); late > testLease/2 {
				t.Errorf("the next call came after %v of a lease of %v", late, testLease)
			}
		case <-tick.C:
			clock.move(testLease / 100)
		}
	}
	if err := first.ctx.Err(); err != nil {
		t.Errorf("the first call was given up: %v", err)
	}
	cancel()
	<-done
}

func TestAHeartbeatAnsweredLateTakesNothingBack(t *testing.T) {
	t.Parallel()
	now := time.Now()
	r := &activeRun{deadline: now}
	r.extend(now.Add(2 * time.Minute))
	r.extend(now.Add(time.Minute))
	if !r.leaseEnds().Equal(now.Add(2 * time.Minute)) {
		t.Errorf("the lease ends %v later", r.leaseEnds().Sub(now))
	}
}

// A whole machine that was stopped and goes on finds leases that ran out while
// nobody could renew them: their holders are given a lease's time.
func TestARunnerThatWasFrozenJudgesNobody(t *testing.T) {
	t.Parallel()
	w, clock, _ := timed(t, nil)
	die := func() string {
		e, err := w.q.Enqueue(t.Context(), job.New{Type: job.DebugEcho})
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.q.Claim(t.Context(), queue.ClaimRequest{Runner: "dead", Token: w.q.NewToken(), Types: []string{job.DebugEcho}, Limit: 1, Lease: -time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		return e.ID
	}
	// looks counts the looks around until the job is taken back.
	looks := func(id string) int {
		for n := 1; ; n++ {
			if err := w.lookAround(t.Context()); err != nil {
				t.Fatal(err)
			}
			d, err := w.q.Detail(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if d.State != job.Running {
				return n
			}
			clock.move(testLease / 10)
		}
	}
	if n := looks(die()); n != 11 {
		t.Errorf("a new runner took a job back at look %d, want 11: after a whole lease", n)
	}
	if n := looks(die()); n != 1 {
		t.Errorf("a runner in contact took a job back at look %d, want 1", n)
	}
	clock.move(10 * testLease)
	if n := looks(die()); n != 11 {
		t.Errorf("a frozen runner took a job back at look %d, want 11: after a whole lease", n)
	}
}

func TestAJobWhoseClaimWasAnsweredTooLateIsNotRun(t *testing.T) {
	t.Parallel()
	w, clock, _ := timed(t, func(context.Context, *Job[json.RawMessage]) (any, error) {
		t.Error("the handler was called")
		return nil, nil
	})
	e, err := w.q.Enqueue(t.Context(), job.New{Type: job.ActionExecute})
	if err != nil {
		t.Fatal(err)
	}
	claim, err := w.q.Claim(t.Context(), queue.ClaimRequest{Runner: "runner", Token: w.q.NewToken(), Types: []string{job.ActionExecute}, Limit: 1, Lease: testLease})
	if err != nil || len(claim.Jobs) != 1 {
		t.Fatalf("%+v, %v", claim, err)
	}
	clock.move(testLease)
	<-w.start(t.Context(), claim.Jobs[0], func(*activeRun) bool { return true }).ended
	d, err := w.q.Detail(t.Context(), e.ID)
	if err != nil || d.State != job.Queued || d.Attempts != 0 || len(d.Runs) != 1 || d.Runs[0].Outcome != "handed_back" {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestAllJobsOfADeadRunnerAreTakenBackAtOnce(t *testing.T) {
	t.Parallel()
	q := queue.New(dbtest.Open(t), system.Real{}, job.Known())
	const jobs = 2*queue.RescueBatch + 50
	list := make([]job.New, jobs)
	for i := range list {
		list[i] = job.New{Type: job.DebugEcho}
	}
	if _, err := q.EnqueueMany(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	c, err := q.Claim(t.Context(), queue.ClaimRequest{Runner: "dead", Token: q.NewToken(), Types: []string{job.DebugEcho}, Limit: jobs, Lease: time.Minute})
	if err != nil || len(c.Jobs) != jobs {
		t.Fatalf("%d, %v", len(c.Jobs), err)
	}
	var b libsql.Batch
	b.Exec("UPDATE jobs SET lease_expires_at = 1")
	if _, err := q.DB().Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	w, err := New(q, zerolog.Nop(), Config{Runner: queue.Runner{ID: "r"}, Concurrency: 1, Lease: time.Minute, Heartbeat: time.Second, Poll: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	w.contact, w.answered = time.Now().Add(-time.Hour), time.Now()
	if err := w.lookAround(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s, err := q.Look(t.Context()); err != nil || s.Expired {
		t.Errorf("%+v, %v: some were left", s, err)
	}
}

// An outage that outlasts the lease takes nothing from a job whose handler had
// succeeded: its outcome is stored when the database is back.
func TestAnOutcomeIsStoredAfterAnOutageHoweverLong(t *testing.T) {
	t.Parallel()
	begun, end := make(chan struct{}), make(chan struct{})
	w, clock, db := timed(t, func(context.Context, *Job[json.RawMessage]) (any, error) {
		close(begun)
		<-end
		return "done", nil
	})
	w.run(t)
	e, err := w.q.Enqueue(t.Context(), job.New{Type: job.ActionExecute})
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	goOn := db.fail()
	close(end)
	leaseEnd := clock.Now().Add(testLease)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for late := 0; late < 3; { // it tries again and again, long after its lease
		select {
		case c := <-db.stuck:
			if c.name == "complete" && clock.Now().After(leaseEnd) {
				late++
			}
		case <-tick.C:
			clock.move(testLease / 10)
		}
	}
	goOn()
	for {
		clock.move(testLease / 10)
		d, err := w.q.Detail(t.Context(), e.ID)
		if err != nil {
			t.Fatal(err)
		}
		if d.State == job.Running {
			continue
		}
		if d.State != job.Completed || d.Attempts != 1 || d.Crashes != 0 || len(d.Runs) != 1 {
			t.Errorf("%+v", d)
		}
		return
	}
}

// lateDB gives the first claim up for lost and writes it when land is called.
type lateDB struct {
	libsql.DB
	land func() error
}

func (d *lateDB) Write(ctx context.Context, b *libsql.Batch) ([]libsql.Result, error) {
	if d.land == nil {
		d.land = func() error { _, err := d.DB.Write(ctx, b); return err }
		return nil, &libsql.Error{Class: libsql.Unknown, Op: "write"}
	}
	return d.DB.Write(ctx, b)
}

func TestAClaimThatLandsAfterItWasGivenUpHoldsNothingUp(t *testing.T) {
	t.Parallel()
	w, clock, db := timed(t, func(context.Context, *Job[json.RawMessage]) (any, error) { return nil, nil })
	e, err := w.q.Enqueue(t.Context(), job.New{Type: job.ActionExecute})
	if err != nil {
		t.Fatal(err)
	}
	late := &lateDB{DB: db}
	w.q = queue.New(late, clock, job.Known())
	state := func() *queue.Detail {
		t.Helper()
		d, err := w.q.Detail(t.Context(), e.ID)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if got, err := w.claim(t.Context(), t.Context(), 4, nil); err != nil || len(got.Jobs) != 0 || w.Running() != 0 {
		t.Fatalf("%+v, %v, %d running", got, err, w.Running())
	}
	w.returnLate(t.Context())
	if err := late.land(); err != nil || state().State != job.Running {
		t.Fatalf("%v, the job is %s", err, state().State)
	}
	w.returnLate(t.Context())
	if d := state(); d.State != job.Queued || d.Attempts != 0 || d.Crashes != 0 || len(d.Runs) != 1 || d.Runs[0].Outcome != "handed_back" {
		t.Errorf("%+v", d)
	}
	if len(w.late) != 0 {
		t.Errorf("%d claims are still asked about", len(w.late))
	}
	// A claim of which nothing comes is forgotten once its lease would be over.
	late.land = nil
	if _, err := w.claim(t.Context(), t.Context(), 4, nil); err != nil || len(w.late) != 1 {
		t.Fatalf("%v, %d claims in doubt", err, len(w.late))
	}
	clock.move(testLease)
	w.returnLate(t.Context())
	if len(w.late) != 0 {
		t.Errorf("%d claims are still asked about", len(w.late))
	}
}
