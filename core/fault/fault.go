// Package fault makes a sound database misbehave as databases do, by the
// chances of a seed, so that everything above it can be rehearsed in the real
// binaries: replies that are lost after the commit, calls that stall, writes
// that are refused as busy, leases that end in the hands of their holders. It
// never breaks a promise of [libsql.DB], and what it does to a job another
// runner could have done. Only the wiring of a service puts it on, when
// queue.fault_seed is set. It may import core/libsql, core/queue and
// core/system.
package fault

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
)

// Warning goes with every key that makes a service misbehave on purpose.
const Warning = "this makes the service misbehave on purpose, to rehearse failure: it does not belong on a system that matters"

// Stall is how long a stalled call is kept waiting: longer than a short
// lease, shorter than a call may take.
const Stall = 5 * time.Second

// Kind is what happens to a call.
type Kind string

// The kinds.
const (
	None      Kind = "none"
	Busy      Kind = "busy"       // refused, nothing applied
	Late      Kind = "late"       // stalled before it begins
	Slow      Kind = "slow"       // applied, its reply stalled
	LostReply Kind = "lost_reply" // applied, its reply lost: class unknown
	LeaseLoss Kind = "lease_loss" // before it, a job in somebody's hands is taken away
)

// odds says how many calls of a thousand have which fault. Work must go on:
// a job that needs ten calls meets a fault in two of three runs.
type odds []struct {
	kind     Kind
	permille int
}

var (
	writes = odds{{Busy, 20}, {LostReply, 20}, {LeaseLoss, 20}, {Late, 2}, {Slow, 2}}
	reads  = odds{{Busy, 10}, {Late, 2}}
)

// DB is a database with faults. Health checks are exempt: a supervisor sees
// the truth.
type DB struct {
	libsql.DB
	sound *queue.Queue // the jobs, without faults
	sys   system.System
	log   zerolog.Logger

	mu     sync.Mutex
	chance *rand.Rand
	counts map[Kind]int
}

// New puts faults on db. The nth call has the same fault for the same seed.
func New(db libsql.DB, seed int64, sys system.System, log zerolog.Logger) *DB {
	return &DB{
		DB: db, sound: queue.New(db, sys, nil), sys: sys, log: log,
		chance: rand.New(rand.NewPCG(uint64(seed), 0)), //nolint:gosec // chance that can be repeated is the point
		counts: map[Kind]int{},
	}
}

// Write implements [libsql.DB].
func (d *DB) Write(ctx context.Context, b *libsql.Batch) ([]libsql.Result, error) {
	return meet(ctx, d, d.draw(writes), func() ([]libsql.Result, error) { return d.DB.Write(ctx, b) })
}

// Merge implements [libsql.DB].
func (d *DB) Merge(ctx context.Context, op *libsql.Op, items ...[]byte) ([]libsql.Row, error) {
	return meet(ctx, d, d.draw(writes), func() ([]libsql.Row, error) { return d.DB.Merge(ctx, op, items...) })
}

// Join implements libsql.DB.
func (d *DB) Join(ctx context.Context, fill func(*libsql.Batch)) ([]libsql.Result, error) {
	return meet(ctx, d, d.draw(writes), func() ([]libsql.Result, error) { return d.DB.Join(ctx, fill) })
}

// Read implements [libsql.DB].
func (d *DB) Read(ctx context.Context, stmts ...libsql.Stmt) ([]libsql.Result, error) {
	return meet(ctx, d, d.draw(reads), func() ([]libsql.Result, error) { return d.DB.Read(ctx, stmts...) })
}

// Close implements [libsql.DB]. It reports what was done.
func (d *DB) Close(ctx context.Context) error {
	d.mu.Lock()
	e := d.log.Info()
	for kind, n := range d.counts {
		e = e.Int(string(kind), n)
	}
	d.mu.Unlock()
	e.Msg("these faults were made on purpose")
	return d.DB.Close(ctx) //nolint:wrapcheck // it stands for the database
}

func (d *DB) draw(o odds) Kind {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.chance.IntN(1000)
	for _, f := range o {
		if n -= f.permille; n < 0 {
			d.counts[f.kind]++
			return f.kind
		}
	}
	return None
}

// meet makes the call, with the fault.
func meet[T any](ctx context.Context, d *DB, kind Kind, call func() (T, error)) (T, error) {
	var nothing T
	if kind != None {
		d.log.Debug().Ctx(ctx).Str("fault", string(kind)).Msg("a fault is made on purpose")
	}
	switch kind {
	case Busy:
		return nothing, failure(libsql.Busy)
	case Late:
		if !d.stall(ctx) {
			return nothing, failure(libsql.Canceled)
		}
	case LeaseLoss:
		d.takeAway(ctx)
	}
	v, err := call()
	switch {
	case err != nil:
	case kind == LostReply, kind == Slow && !d.stall(ctx):
		return nothing, failure(libsql.Unknown)
	}
	return v, err
}

// failure is an error as the storage face makes them.
func failure(class libsql.Class) error {
	return &libsql.Error{Class: class, Op: "call", Detail: "made on purpose by queue.fault_seed"}
}

// stall waits and says whether the call may go on: its context has not ended.
func (d *DB) stall(ctx context.Context) bool {
	t := d.sys.NewTimer(Stall)
	defer t.Stop()
	select {
	case <-t.C():
		return true
	case <-ctx.Done():
		return false
	}
}

// takeAway does what a rescuer does to the job of a runner it takes for dead.
func (d *DB) takeAway(ctx context.Context) {
	taken, err := d.sound.TakeAway(ctx)
	if err != nil {
		d.log.Debug().Err(err).Msg("no lease was ended on purpose")
	}
	for _, r := range taken {
		d.log.Info().Str("job_id", r.ID).Str("job_type", r.Type).Msg("a lease was ended on purpose")
	}
}
