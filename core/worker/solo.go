package worker

import (
	"context"
	"errors"
	"time"

	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
)

// soloRetry is how long a job waits for its next chance to run alone when this
// runner's other jobs did not end in time.
const soloRetry = 30 * time.Second

// errNotAlone ends the wait of a job that was to run alone.
var errNotAlone = errors.New("the runner's other jobs did not end in time")

// solo runs a job alone whose runners have died too often. It reserves the
// job, lets the jobs in hand end while it claims no more, and then runs it: if
// the process dies now it is clear which job did it. The next one has to wait
// as long as this one took, so that ordinary work goes on.
func (w *Worker) solo(ctx, work context.Context) {
	began := w.sys.Now()
	if began.Before(w.nextSolo) {
		return
	}
	w.nextSolo = began.Add(w.cfg.Poll)
	c, err := w.reserve(ctx, work)
	if err != nil || c == nil {
		return
	}
	defer func() { now := w.sys.Now(); w.nextSolo = now.Add(now.Sub(began)) }()
	turn := make(chan struct{})
	r := w.start(work, *c, func(r *activeRun) bool { return w.begin(r, turn) })
	r.log().Warn().Ctx(r.ctx).Int("waits_for", w.Running()-1).Msg("its runners died: it runs alone once the other jobs have ended")
	timeout := w.sys.NewTimer(w.soloWait)
	defer timeout.Stop()
	waiting := true
	for {
		if waiting && w.Running() == 1 {
			waiting = false
			close(turn)
		}
		select {
		case <-r.ended:
			return
		case <-w.freed:
		case <-timeout.C():
			if waiting {
				waiting = false
				r.cancel(errNotAlone)
			}
		case <-ctx.Done():
			if waiting {
				r.cancel(ErrShutdown)
			}
			return
		}
	}
}

// reserve claims a job that must run alone.
func (w *Worker) reserve(ctx, work context.Context) (*queue.Claimed, error) {
	req := w.request(1)
	deadline := w.sys.Now().Add(w.cfg.Lease)
	c, err := w.q.ClaimSolo(work, req)
	if libsql.ClassOf(err) == libsql.Unknown {
		var jobs []queue.Claimed
		if jobs, err = w.recoverClaim(ctx, work, req.Token, deadline); len(jobs) > 0 {
			c = &jobs[0]
		}
	}
	w.note("claim", err)
	return c, err
}

// begin waits for the job's turn and records that it runs alone from here on.
// Without a turn it is handed back.
func (w *Worker) begin(r *activeRun, turn <-chan struct{}) bool {
	select {
	case <-turn:
	case <-r.ctx.Done():
		w.store(r, queue.Outcome{Kind: queue.HandedBack, Delay: soloRetry, Error: context.Cause(r.ctx).Error()})
		return false
	}
	for {
		err := w.q.BeginSolo(context.WithoutCancel(r.ctx), r.claimed.Lease)
		if errors.Is(err, queue.ErrLeaseLost) {
			r.log().Warn().Ctx(r.ctx).Msg("the lease was lost before the job could run alone; nothing was changed")
			return false
		}
		w.note("begin alone", err)
		if err == nil || w.sys.Now().After(r.leaseEnds()) {
			return err == nil
		}
		w.pause(r.ctx, 100*time.Millisecond)
	}
}
