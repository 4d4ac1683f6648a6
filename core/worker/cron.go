package worker

import (
	"context"

	"github.com/postroom/postroom/core/queue"
)

// cron stores the jobs of schedules when their instants come. Every runner does
// it; each instant is dealt with once. A schedule that is new or was changed is
// seen at the next poll.
func (w *Worker) cron(ctx context.Context) {
	known := map[string]string{} // what is broken, and was told
	for ctx.Err() == nil {
		t, err := w.q.Tick(ctx)
		w.reportTicks(t, known)
		if ctx.Err() != nil {
			return
		}
		w.note("cron", err)
		wait := w.cfg.Poll
		if t.Next != nil {
			wait = min(wait, *t.Next)
		}
		w.pause(ctx, wait)
	}
}

func (w *Worker) reportTicks(t queue.Ticks, known map[string]string) {
	for _, d := range t.Done {
		w.metrics.ticked(d.Name, string(d.Outcome))
		level, msg := w.log.Debug(), "a schedule stored its job"
		switch {
		case d.Outcome == queue.TickSkipped:
			level, msg = w.log.Warn(), "a schedule stored no job, because the one before has not ended"
		case d.Outcome == queue.TickDropped:
			level, msg = w.log.Warn(), "a schedule stored no job, because its time was missed"
		case d.Since != d.At:
			level, msg = w.log.Info(), "a schedule stored one job for several times that were missed"
		}
		if d.JobID != "" {
			level = level.Str("job_id", d.JobID)
		}
		level.Str("cron", d.Name).Stringer("tick", d.At).Stringer("since", d.Since).Msg(msg)
	}
	for name, err := range t.Broken {
		if known[name] != err.Error() {
			known[name] = err.Error()
			w.log.Error().Str("cron", name).Err(err).Msg("a schedule is due that this runner cannot read; it waits for one that can")
		}
	}
}
