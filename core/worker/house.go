package worker

import (
	"context"
	"slices"
	"time"

	"github.com/postroom/postroom/core/queue"
)

// How the database is looked at after another process's commit was signaled:
// the signal comes before the commit can be read, so the looks go on for a
// while, never closer than five milliseconds after the first.
var looksAfterSignal = []time.Duration{time.Millisecond, 5 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond}

// watch wakes the claim loop when another process stored a job.
func (w *Worker) watch(ctx context.Context) {
	events := w.q.DB().Watch(ctx)
	for {
		select {
		case <-events: // nil, and so silent, where there is nothing to watch
		case <-ctx.Done():
			return
		}
		for _, d := range looksAfterSignal {
			w.pause(ctx, d)
			if ctx.Err() != nil || w.free() == 0 {
				break // a slot that becomes free claims anyway
			}
			if w.look(ctx) {
				break
			}
		}
	}
}

// look asks whether there is something to claim and passes it on.
func (w *Worker) look(ctx context.Context) bool {
	s, err := w.q.Look(ctx)
	if ctx.Err() != nil {
		return false
	}
	w.note("look", err)
	if err != nil {
		return false
	}
	w.pass(s)
	return s.Ready
}

func (w *Worker) pass(s queue.Sight) {
	if s.NextDue != nil {
		select {
		case w.dueIn <- *s.NextDue:
		default:
		}
	}
	if s.Ready {
		w.signal()
	}
}

// housekeeping does at each poll what no signal announces: due jobs, cancel
// requests, leases of its own and of dead runners.
func (w *Worker) housekeeping(ctx context.Context) {
	var beaten time.Time
	for ctx.Err() == nil {
		if now := w.sys.Now(); now.Sub(beaten) >= w.cfg.Heartbeat {
			if w.heartbeat(ctx) {
				beaten = now
			}
		}
		w.endExpired()
		w.heedCancels(ctx)
		w.lookAround(ctx)
		w.pause(ctx, min(w.cfg.Poll, w.cfg.Heartbeat))
	}
}

// heartbeat renews the runner's row and the leases of its jobs.
func (w *Worker) heartbeat(ctx context.Context) bool {
	if !w.Draining() {
		err := w.q.Register(ctx, w.cfg.Runner)
		w.note("register", err)
		if err != nil {
			return false
		}
	}
	var runs []*activeRun
	w.each(func(r *activeRun) { runs = append(runs, r) })
	leases := make([]queue.Lease, len(runs))
	for i, r := range runs {
		leases[i] = r.claimed.Lease
	}
	until := w.sys.Now().Add(w.cfg.Lease) // from before the call, never from its reply
	beats, err := w.q.Heartbeat(ctx, leases, w.cfg.Lease)
	w.note("heartbeat", err)
	if err != nil {
		return false
	}
	for i, b := range beats {
		switch {
		case !b.Held:
			runs[i].cancel(queue.ErrLeaseLost)
		case b.CancelRequested:
			runs[i].extend(until)
			runs[i].cancel(ErrCanceled)
		default:
			runs[i].extend(until)
		}
	}
	return true
}

// endExpired stops handlers whose lease ran out here, by this machine's own
// steady clock: another runner may have their jobs by now.
func (w *Worker) endExpired() {
	now := w.sys.Now()
	w.each(func(r *activeRun) {
		if now.After(r.leaseEnds()) {
			r.cancel(queue.ErrLeaseLost)
		}
	})
}

// heedCancels stops handlers whose job somebody wants canceled.
func (w *Worker) heedCancels(ctx context.Context) {
	if w.Running() == 0 {
		return
	}
	ids, err := w.q.CancelRequested(ctx, w.cfg.Runner.ID)
	if ctx.Err() != nil {
		return
	}
	w.note("cancel requests", err)
	if len(ids) > 0 {
		w.each(func(r *activeRun) {
			if slices.Contains(ids, r.claimed.JobID) {
				r.cancel(ErrCanceled)
			}
		})
	}
}

// lookAround wakes the claim loop where no signal came, and takes back the
// jobs of runners that died. A rescuer judges only after a whole lease of its
// own unbroken contact: before that, the others may have been as cut off as
// it was itself.
func (w *Worker) lookAround(ctx context.Context) {
	s, err := w.q.Look(ctx)
	if ctx.Err() != nil {
		return
	}
	w.note("look", err)
	if err != nil {
		return
	}
	if w.Draining() {
		return
	}
	w.pass(s)
	if s.Ready && w.free() > 0 {
		w.reportUnknown(ctx)
	}
	w.mu.Lock()
	sure := !w.contact.IsZero() && w.sys.Now().Sub(w.contact) >= w.cfg.Lease
	w.mu.Unlock()
	if !s.Expired || !sure {
		return
	}
	rescued, err := w.q.Rescue(ctx)
	w.note("rescue", err)
	for _, r := range rescued {
		w.metrics.finished(r.Type, "rescued")
		w.log.Warn().Str("job_id", r.ID).Str("job_type", r.Type).Int64("crashes", r.Crashes).
			Str("state", string(r.State)).Msg("took back a job whose runner stopped renewing its lease")
	}
}

// reportUnknown warns once of each job type that waits and no runner knows.
func (w *Worker) reportUnknown(ctx context.Context) {
	types, err := w.q.UnknownTypes(ctx)
	if ctx.Err() != nil {
		return
	}
	w.note("unknown types", err)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range types {
		if !w.reported[t] {
			w.reported[t] = true
			w.log.Warn().Str("job_type", t).Msg("jobs of a type that no runner knows are waiting")
		}
	}
}
