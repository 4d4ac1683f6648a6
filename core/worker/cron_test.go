package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
	"github.com/postroom/postroom/core/worker"
)

// Each runner's poll is an hour, so only the timer can wake it when the time
// of a schedule has come.
func TestRunnersKeepSchedulesTogether(t *testing.T) {
	t.Parallel()
	path := dbtest.Path(t)
	q := queue.New(dbtest.OpenPath(t, path), system.Real{}, job.Known())
	c, _, err := q.SetCron(t.Context(), queue.NewCron{Name: "c", Schedule: "@every 1s", CatchUp: queue.CatchUpAll, Type: job.ActionExecute})
	if err != nil {
		t.Fatal(err)
	}
	ticks := make(chan time.Time, 100)
	keep := handler(func(_ context.Context, j *worker.Job[json.RawMessage]) (any, error) {
		at, ok := j.Tick()
		if !ok {
			return nil, job.Fatal(errors.New("the job does not know its tick"))
		}
		ticks <- at
		return nil, nil
	})
	for i := range 3 {
		own := queue.New(dbtest.OpenPath(t, path), system.Real{}, job.Known())
		w, err := worker.New(own, zerolog.New(zerolog.NewTestWriter(t)), worker.Config{
			Runner: queue.Runner{ID: fmt.Sprint("runner-", i), Host: "test", Version: "test"}, Concurrency: 4,
			Lease: time.Minute, Heartbeat: time.Second, Poll: time.Hour, DrainTimeout: 5 * time.Second,
		}, keep)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		t.Cleanup(func() { cancel(); <-done })
	}
	seen := map[time.Time]bool{}
	first := c.NextAt.Time()
	for !seen[first] || !seen[first.Add(time.Second)] || !seen[first.Add(2*time.Second)] {
		at := <-ticks
		if seen[at] {
			t.Fatalf("the tick of %s ran twice", at)
		}
		seen[at] = true
	}
}

func TestAJobThatNoScheduleStoredHasNoTick(t *testing.T) {
	t.Parallel()
	said := make(chan bool, 2)
	r := start(t, handler(func(_ context.Context, j *worker.Job[json.RawMessage]) (any, error) {
		_, ok := j.Tick()
		said <- ok
		return nil, nil
	}))
	r.await(r.enqueue(job.ActionExecute, "1"), job.Completed)
	if _, err := r.q.Enqueue(t.Context(), job.New{Type: job.ActionExecute, Key: "cron:x"}); err != nil {
		t.Fatal(err)
	}
	if <-said || <-said {
		t.Error("it has one")
	}
}

// logText is a log that is read when nobody writes it any more.
type logText struct {
	mu sync.Mutex
	strings.Builder
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Builder.Write(p)
}

// A schedule that cannot be read is told of once, and stops no other.
func TestABrokenScheduleIsReportedOnce(t *testing.T) {
	t.Parallel()
	log := &logText{}
	q := queue.New(dbtest.Open(t), system.Real{}, job.Known())
	for _, name := range []string{"broken", "sound"} {
		if _, _, err := q.SetCron(t.Context(), queue.NewCron{Name: name, Schedule: "@every 1s", Type: job.ActionExecute}); err != nil {
			t.Fatal(err)
		}
	}
	var b libsql.Batch
	b.Exec("UPDATE cron SET tz = 'Mars/Olympus_Mons' WHERE name = 'broken'")
	if _, err := q.DB().Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	ran := make(chan struct{}, 100)
	w, err := worker.New(q, zerolog.New(log), worker.Config{
		Runner: queue.Runner{ID: "r", Host: "test", Version: "test"}, Concurrency: 1,
		Lease: time.Minute, Heartbeat: time.Second, Poll: 20 * time.Millisecond, DrainTimeout: 5 * time.Second,
	}, handler(func(context.Context, *worker.Job[json.RawMessage]) (any, error) { ran <- struct{}{}; return nil, nil }))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	<-ran
	<-ran
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), `"cron":"broken"`); n != 1 {
		t.Errorf("reported %d times", n)
	}
}
