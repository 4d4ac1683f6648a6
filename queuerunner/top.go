package main

import (
	"context"
	"flag"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
)

// topCommand is `top`.
func topCommand(c *call, flags *flag.FlagSet) action {
	every := time.Second
	durationFlag(flags, &every, "every", "how often to look: a `DURATION` from 200ms to 1m")
	asJSON := flags.Bool("json", false, "look for that long, print JSON and end")
	return func(ctx context.Context, _ []string) error {
		if every < 200*time.Millisecond || every > time.Minute {
			return wrongUse("-every must be between 200ms and 1m, not %s", every)
		}
		ctx, _, stop := system.StopSignals(ctx)
		defer stop()
		return c.withQueue(ctx, func(q *queue.Queue) error {
			t := &top{q: q, since: time.Now(), changes: map[job.State]int64{}}
			events := queue.NewEvents(q, func(error) {}) // a look reports it, too
			defer events.Close()
			l, err := events.Listen(ctx, nil, queue.EventFilter{})
			if err != nil {
				return err
			}
			following, end := context.WithCancel(ctx)
			var counting sync.WaitGroup
			defer counting.Wait()
			defer end()
			counting.Go(func() { t.count(following, events, l) })
			if s := c.screen(); s != nil && !*asJSON {
				return s.show(ctx, t, every)
			}
			wait(ctx, every)
			v, err := t.look(ctx)
			switch {
			case ctx.Err() != nil:
				return nil // interrupted
			case err != nil:
				return err
			case *asJSON:
				return c.printJSON(v)
			}
			return c.printf("%s", v)
		})
	}
}

// top watches a database.
type top struct {
	q *queue.Queue

	mu      sync.Mutex
	since   time.Time
	changes map[job.State]int64 // since then
}

// topView is what one look shows.
type topView struct {
	PerSecond topRates      `json:"per_second"`
	Queues    []queue.Depth `json:"queues"`
	Runners   []topRunner   `json:"runners"`

	now time.Time
}

// topRates is how many jobs came to a state, a second, since the last look.
type topRates struct {
	Queued    float64 `json:"queued"` // retries and what was handed back included
	Running   float64 `json:"running"`
	Completed float64 `json:"completed"`
	Failed    float64 `json:"failed"`
	Canceled  float64 `json:"canceled"`
}

type topRunner struct {
	queue.Runner
	Running int64 `json:"running"` // jobs in its hands
}

// count follows the log. What it misses, because there was too much, is not in
// the rates.
func (t *top) count(ctx context.Context, events *queue.Events, l *queue.Listener) {
	for ctx.Err() == nil {
		for {
			page, err := l.Next(ctx)
			t.mu.Lock()
			for _, e := range page.Events {
				t.changes[e.State]++
			}
			t.mu.Unlock()
			if err != nil {
				break
			}
		}
		l.Close()
		for ctx.Err() == nil {
			again, err := events.Listen(ctx, nil, queue.EventFilter{})
			if err == nil {
				l = again
				break
			}
			wait(ctx, time.Second)
		}
	}
	l.Close()
}

// look reads what there is, and the rates since the last look.
func (t *top) look(ctx context.Context) (*topView, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	v := &topView{Runners: []topRunner{}, now: time.Now()}
	var err error
	if v.Queues, err = t.q.Queues(ctx); err != nil {
		return nil, err
	}
	runners, err := t.q.Runners(ctx)
	if err != nil {
		return nil, err
	}
	held, err := t.q.Held(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range runners {
		v.Runners = append(v.Runners, topRunner{r, held[r.ID]})
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	rate := func(s job.State) float64 {
		return math.Round(10*float64(t.changes[s])/v.now.Sub(t.since).Seconds()) / 10
	}
	v.PerSecond = topRates{rate(job.Queued), rate(job.Running), rate(job.Completed), rate(job.Failed), rate(job.Canceled)}
	t.since, t.changes = v.now, map[job.State]int64{}
	return v, nil
}

// String is the view for a person, as wide as it is.
func (v *topView) String() string {
	r := v.PerSecond
	queues := newTable("QUEUE", "QUEUED", "RUNNING", "COMPLETED", "FAILED", "CANCELED", "AT MOST", "OLDEST WAITING")
	for _, d := range v.Queues {
		name, waiting := short(d.Name), "-"
		if d.Paused {
			name += " (paused)"
		}
		if d.OldestWaitingAt != nil {
			waiting = (time.Duration(d.OldestWaitingFor) * time.Millisecond).Round(time.Second).String()
		}
		cells := []string{name}
		for _, s := range job.States {
			cells = append(cells, fmt.Sprint(d.Depth[s]))
		}
		queues.row(append(cells, number(d.MaxRunning), waiting)...)
	}
	runners := newTable("RUNNER", "RUNNING", "SLOTS", "HEARTBEAT", "VERSION", "QUEUES")
	for _, r := range v.Runners {
		in := "all"
		if len(r.Queues) > 0 {
			in = short(fmt.Sprint(r.Queues))
		}
		runners.row(short(r.ID), fmt.Sprint(r.Running), fmt.Sprint(r.Concurrency), ago(v.now.Sub(r.HeartbeatAt.Time())), short(r.Version), in)
	}
	return fmt.Sprintf("a second: %.1f queued, %.1f started, %.1f completed, %.1f failed, %.1f canceled\n\n%s\n%s",
		r.Queued, r.Running, r.Completed, r.Failed, r.Canceled, queues, runners)
}

// ago is a time that has passed, of which another machine's clock may make less
// than nothing.
func ago(d time.Duration) string { return max(d, 0).Round(time.Second).String() + " ago" }

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
