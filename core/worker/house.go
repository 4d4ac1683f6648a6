package worker

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
)

// The housekeeping is loops, one per concern, each on a goroutine of its own:
// a call to the database that hangs holds up no other concern, and above all
// not the deadlines, which need no database.

// every returns a loop that calls once at an interval, measured from start to
// start, and sooner again after a failure.
func (w *Worker) every(interval time.Duration, once func(context.Context) error) func(context.Context) {
	return func(ctx context.Context) {
		for ctx.Err() == nil {
			began := w.sys.Now()
			wait := interval
			if once(ctx) != nil {
				wait = min(interval/4, w.cfg.Poll)
				began = w.sys.Now()
			}
			w.pause(ctx, min(wait, wait-w.sys.Now().Sub(began)))
		}
	}
}

// deadlines stops handlers whose lease ran out here, by this machine's own
// steady clock: another runner may have their jobs by now.
func (w *Worker) deadlines(ctx context.Context) {
	t := w.sys.NewTimer(time.Hour)
	defer t.Stop()
	for {
		select {
		case <-t.C():
		case <-w.earlier: // a run has begun whose lease ends before all others
		case <-ctx.Done():
			return
		}
		t.Reset(w.endExpired())
	}
}

// endExpired stops the runs whose lease has ended and returns how long the
// next one lasts. A heartbeat may make it last longer; it is looked at then
// all the same.
func (w *Worker) endExpired() time.Duration {
	now := w.sys.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nextEnd = time.Time{}
	for _, r := range w.active {
		ends := r.leaseEnds()
		switch {
		case !ends.After(now):
			r.cancel(queue.ErrLeaseLost)
		case w.nextEnd.IsZero() || ends.Before(w.nextEnd):
			w.nextEnd = ends
		}
	}
	if w.nextEnd.IsZero() {
		return time.Hour // until a run begins
	}
	return w.nextEnd.Sub(now)
}

// heartbeat renews the leases of the jobs in hand. A call that is not answered
// in good time is left to itself and another one made: it may hang alone, or
// wait for a database that is slow and would have to wait anew.
func (w *Worker) heartbeat(ctx context.Context) error {
	answered := make(chan error, 1)
	w.sys.Go("heartbeat call", func() { answered <- w.beat(ctx) })
	t := w.sys.NewTimer(w.cfg.Lease / 3)
	defer t.Stop()
	select {
	case err := <-answered:
		return err
	case <-t.C():
		return errUnanswered
	case <-ctx.Done():
		return nil
	}
}

var errUnanswered = errors.New("the database has not answered yet")

// beat is one call of a heartbeat. It is of use for as long as a lease lasts.
func (w *Worker) beat(ctx context.Context) error {
	var runs []*activeRun
	w.each(func(r *activeRun) { runs = append(runs, r) })
	if len(runs) == 0 {
		return nil
	}
	leases := make([]queue.Lease, len(runs))
	for i, r := range runs {
		leases[i] = r.claimed.Lease
	}
	until := w.sys.Now().Add(w.cfg.Lease) // from before the call, never from its reply
	bound, cancel := context.WithTimeout(ctx, w.cfg.Lease)
	defer cancel()
	beats, err := w.q.Heartbeat(bound, leases, w.cfg.Lease)
	if ctx.Err() != nil {
		return nil
	}
	w.note("heartbeat", err)
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
	return err
}

// announce renews the runner's row.
func (w *Worker) announce(ctx context.Context) error {
	err := w.q.Register(ctx, w.cfg.Runner)
	if ctx.Err() != nil {
		return nil
	}
	w.note("register", err)
	return err
}

// heedCancels stops handlers whose job somebody wants canceled.
func (w *Worker) heedCancels(ctx context.Context) error {
	if w.Running() == 0 {
		return nil
	}
	ids, err := w.q.CancelRequested(ctx, w.cfg.Runner.ID)
	if ctx.Err() != nil {
		return nil
	}
	w.note("cancel requests", err)
	if len(ids) > 0 {
		w.each(func(r *activeRun) {
			if slices.Contains(ids, r.claimed.JobID) {
				r.cancel(ErrCanceled)
			}
		})
	}
	return err
}

// lookAround wakes the claim loop where no signal came, and takes back the
// jobs of runners that died. A rescuer judges only after a whole lease of its
// own unbroken contact: before that, the others may have been as cut off as
// it was itself.
func (w *Worker) lookAround(ctx context.Context) error {
	s, err := w.q.Look(ctx)
	if ctx.Err() != nil {
		return nil
	}
	w.note("look", err)
	if err != nil {
		return err
	}
	w.pass(s)
	if s.Ready && w.free() > 0 {
		w.reportUnknown(ctx)
	}
	w.returnLate(ctx)
	if !s.Expired || !w.sure() {
		return nil
	}
	return w.rescue(ctx)
}

// returnLate hands back, unspent, what a claim took that landed after it had
// been given up for lost: nobody works on it.
func (w *Worker) returnLate(ctx context.Context) {
	w.mu.Lock()
	late := w.late
	w.late = nil
	w.mu.Unlock()
	for _, l := range late {
		jobs, err := w.q.ClaimedBy(ctx, l.token, l.until)
		for _, c := range jobs {
			_, err = w.q.Finish(ctx, c.Lease, queue.Outcome{Kind: queue.HandedBack})
			if errors.Is(err, queue.ErrLeaseLost) {
				err = nil // it was taken back meanwhile
			}
			if err != nil {
				break
			}
			w.log.Warn().Str("job_id", c.JobID).Str("job_type", c.Type).Msg("handed back: the claim that took it landed after its reply had been given up")
		}
		if ctx.Err() != nil {
			return
		}
		w.note("late claim", err)
		if (err != nil || len(jobs) == 0) && w.sys.Now().Before(l.until) {
			w.mu.Lock()
			w.late = append(w.late, l)
			w.mu.Unlock()
		}
	}
}

// rescue takes back all jobs whose lease has run out, a batch at a time.
func (w *Worker) rescue(ctx context.Context) error {
	for {
		rescued, err := w.q.Rescue(ctx)
		if ctx.Err() != nil {
			return nil
		}
		w.note("rescue", err)
		for _, r := range rescued {
			w.metrics.ended(r.Type, "rescued")
			line := w.log.Warn()
			if r.State == job.Failed {
				line = w.log.Error()
			}
			line.Str("job_id", r.ID).Str("job_type", r.Type).Int64("crashes", r.Crashes).Bool("runs_alone_next", r.Solo).
				Str("state", string(r.State)).Msg("took back a job whose runner stopped renewing its lease")
		}
		if err != nil || len(rescued) < queue.RescueBatch {
			return err
		}
	}
}

func (w *Worker) sure() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.contact.IsZero() && w.sys.Now().Sub(w.contact) >= w.cfg.Lease
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
		if _, mine := w.bound[t]; !mine && !w.reported[t] { // its own it may not have announced yet
			w.reported[t] = true
			w.log.Warn().Str("job_type", t).Msg("jobs of a type that no runner knows are waiting")
		}
	}
}

// Retention is done in small batches that leave the writer to others for most
// of the time: the wait after a batch is four times as long as it took.
const (
	pruneInterval = time.Minute
	pruneBatch    = 50
	pruneLeast    = 10
	pruneMost     = 500
	pruneTarget   = 2 * time.Millisecond
)

// prune deletes what has been kept for long enough.
func (w *Worker) prune(ctx context.Context) error {
	for size := pruneBatch; ; {
		began := w.sys.Now()
		n, err := w.q.Prune(ctx, w.cfg.Retention, size)
		if ctx.Err() != nil {
			return nil
		}
		w.note("prune", err)
		if err != nil || n < size {
			return err
		}
		took := w.sys.Now().Sub(began)
		if took > 2*pruneTarget {
			size = max(size/2, pruneLeast)
		} else if took < pruneTarget {
			size = min(size*2, pruneMost)
		}
		w.pause(ctx, max(4*took, pruneTarget))
	}
}

// How the database is looked at after another process's commit was signaled:
// the signal comes before the commit can be read, so the looks go on for a
// while, never closer than five milliseconds after the first.
var looksAfterSignal = []time.Duration{time.Millisecond, 5 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond}

// watch wakes the claim loop when another process stored a job.
func (w *Worker) watch(ctx context.Context) {
	events := w.q.DB().Watch(ctx)
	if events == nil {
		w.followWork(ctx)
		return
	}
	for ctx.Err() == nil {
		select {
		case <-events:
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

// followWork looks for more after there was work, where nothing tells of what
// other processes store: soon, and then ever more rarely, until looking around
// is as often. A busy runner finds a job long before the next poll, an idle
// one asks no more than it must.
func (w *Worker) followWork(ctx context.Context) {
	if w.cfg.Eager <= 0 {
		<-ctx.Done()
		return
	}
	for ctx.Err() == nil {
		select {
		case <-w.stirred:
		case <-ctx.Done():
			return
		}
		for d := w.cfg.Eager; d < w.cfg.Poll; d *= 2 {
			w.pause(ctx, d)
			if ctx.Err() != nil || len(w.stirred) > 0 {
				break // from the start, then
			}
			if w.free() > 0 {
				w.look(ctx)
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
		w.due.Reset(*s.NextDue)
	}
	if s.Ready || s.Suspect {
		w.signal()
	}
}
