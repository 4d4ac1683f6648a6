package worker

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
)

// suspect stores a job whose runners have died as often as the budget allows.
func suspect(t *testing.T, q *queue.Queue) string {
	t.Helper()
	e, err := q.Enqueue(t.Context(), job.New{Type: job.DebugPanic, Delay: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	forward(t, q, "solo = 1, crashes = 3, attempts = 3, claims = 3, not_before = 1", e.ID)
	return e.ID
}

func forward(t *testing.T, q *queue.Queue, set, id string) {
	t.Helper()
	var b libsql.Batch
	b.Exec("UPDATE jobs SET "+set+" WHERE id = ?", id)
	if _, err := q.DB().Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
}

// aloneRun is a suspect's run, with how many other jobs were in hand.
type aloneRun struct {
	id     string
	beside int
}

// soloRig is a worker with an ordinary job type that runs until it is let go,
// and the suspect's.
func soloRig(t *testing.T, q *queue.Queue, soloWait time.Duration) (ordinary chan *Run, alone chan aloneRun, letGo chan struct{}) {
	t.Helper()
	ordinary, alone, letGo = make(chan *Run, 10), make(chan aloneRun, 10), make(chan struct{})
	var w *Worker
	w, err := New(q, zerolog.New(zerolog.NewTestWriter(t)), Config{
		Runner: queue.Runner{ID: "r", Host: "test", Version: "test"}, Concurrency: 4,
		Lease: 2 * time.Second, Heartbeat: 100 * time.Millisecond, Poll: 10 * time.Millisecond, DrainTimeout: 5 * time.Second,
	}, Bind(job.DebugEcho, func(ctx context.Context, j *Job[json.RawMessage]) (any, error) {
		ordinary <- j.Run
		select {
		case <-letGo:
		case <-ctx.Done():
		}
		return nil, context.Cause(ctx)
	}), Bind(job.DebugPanic, func(_ context.Context, j *Job[json.RawMessage]) (any, error) {
		alone <- aloneRun{j.ID(), w.Running() - 1}
		return nil, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	if soloWait > 0 {
		w.soloWait = soloWait
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return ordinary, alone, letGo
}

func TestAJobWhoseRunnersDiedRunsAlone(t *testing.T) {
	t.Parallel()
	q := queue.New(dbtest.Open(t), system.Real{}, job.Known())
	echo := func() {
		t.Helper()
		if _, err := q.Enqueue(t.Context(), job.New{Type: job.DebugEcho}); err != nil {
			t.Fatal(err)
		}
	}
	echo()
	ordinary, alone, letGo := soloRig(t, q, 0)
	<-ordinary // one job is in hand
	id := suspect(t, q)
	held := func() bool {
		d, err := q.Detail(t.Context(), id)
		return err == nil && d.State == job.Running
	}
	for !held() { // reserved, and waiting for the other to end
	}
	echo() // and this one is not started meanwhile
	select {
	case <-alone:
		t.Fatal("it ran beside another job")
	case <-ordinary:
		t.Fatal("a job was started while one waits to run alone")
	default:
	}
	close(letGo)
	if r := <-alone; r.id != id || r.beside != 0 {
		t.Errorf("%s ran beside %d others", r.id, r.beside)
	}
	<-ordinary // and then the work goes on
}

func TestAJobThatCannotRunAloneIsHandedBackUnspent(t *testing.T) {
	t.Parallel()
	q := queue.New(dbtest.Open(t), system.Real{}, job.Known())
	if _, err := q.Enqueue(t.Context(), job.New{Type: job.DebugEcho}); err != nil {
		t.Fatal(err)
	}
	ordinary, alone, letGo := soloRig(t, q, 50*time.Millisecond)
	<-ordinary
	id := suspect(t, q)
	for {
		d, err := q.Detail(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if len(d.Runs) > 0 {
			if r := d.Runs[0]; r.Outcome != "handed_back" || *r.Error != errNotAlone.Error() || d.Attempts != 3 || d.Crashes != 3 {
				t.Errorf("%+v", d)
			}
			break
		}
	}
	close(letGo)
	forward(t, q, "not_before = 1", id)
	if r := <-alone; r.id != id {
		t.Errorf("ran %s", r.id)
	}
}
