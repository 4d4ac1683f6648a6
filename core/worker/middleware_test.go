package worker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queuetest"
	"github.com/postroom/postroom/core/worker"
)

func TestMiddleware(t *testing.T) {
	t.Parallel()
	gone := errors.New("gone")
	type key struct{}
	var trail []string
	note := func(name string) worker.Middleware {
		return func(ctx context.Context, r *worker.Run, next func(context.Context) (any, error)) (any, error) {
			trail = append(trail, name+" before "+r.Type())
			defer func() { trail = append(trail, name+" after") }()
			return next(context.WithValue(ctx, key{}, fmt.Sprint(ctx.Value(key{}), name)))
		}
	}
	rig := queuetest.NewWith(t, job.Types{"x": {}, "y": {}, "z": {}}, worker.Config{Middleware: []worker.Middleware{
		note("first"), note("second"),
		func(ctx context.Context, r *worker.Run, next func(context.Context) (any, error)) (any, error) {
			if r.Type() == "z" {
				return r.Queue(), nil // in the handler's place
			}
			result, err := next(ctx)
			if errors.Is(err, gone) {
				err = job.Fatal(err)
			}
			return result, err
		},
	}},
		worker.Bind("x", func(ctx context.Context, _ *worker.Job[int]) (any, error) { return ctx.Value(key{}), nil }),
		worker.Bind("y", func(_ context.Context, j *worker.Job[string]) (any, error) {
			if j.Payload == "panic" {
				panic("at the disco")
			}
			return nil, gone
		}),
		worker.Bind("z", func(context.Context, *worker.Job[any]) (any, error) { panic("z is never called") }),
	)
	var result string
	if rig.Run(job.New{Type: "x", Payload: job.Payload(1)}).Into(&result); result != "<nil>firstsecond" {
		t.Errorf("the handler's context has %q", result)
	}
	if want := []string{"first before x", "second before x", "second after", "first after"}; !slices.Equal(trail, want) {
		t.Errorf("%q, want %q", trail, want)
	}
	if ran := rig.Run(job.New{Type: "y", Payload: job.Payload("")}); ran.State != job.Failed || ran.ErrorText() != "gone" || ran.Attempts != 1 {
		t.Errorf("an error that was made fatal: %+v", ran.Detail)
	}
	if ran := rig.Run(job.New{Type: "y", MaxAttempts: 1, Payload: job.Payload("panic")}); ran.ErrorText() != "panic: at the disco" || trail[len(trail)-1] != "first after" {
		t.Errorf("a panic: %+v", ran.Detail)
	}
	if ran := rig.Run(job.New{Type: "x", Payload: job.Payload("no number")}); ran.State != job.Failed || ran.ErrorText() != "the payload (byte 1, line 1) must be of type int" {
		t.Errorf("a payload that does not decode: %+v", ran.Detail)
	}
	if rig.Run(job.New{Type: "z"}).Into(&result); result != job.DefaultQueue {
		t.Errorf("an answer in the handler's place: %q", result)
	}
}

// A worker that is asked for one job does that one, renews its lease while it
// takes, and gives it back when it is to stop.
func TestRunNext(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	rig := queuetest.New(t, job.Types{"x": {}}, worker.Bind("x", func(context.Context, *worker.Job[any]) (any, error) { return "done", nil }))
	w, err := worker.New(rig.Queue, zerolog.Nop(), worker.Config{Heartbeat: time.Millisecond}, worker.Bind("x", func(ctx context.Context, j *worker.Job[any]) (any, error) {
		for begun := beat(ctx, t, rig, j.ID()); beat(ctx, t, rig, j.ID()) == begun; { // until the lease is renewed
			if ctx.Err() != nil {
				t.Error("the lease was not renewed")
				break
			}
		}
		stop()
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}))
	if err != nil {
		t.Fatal(err)
	}
	if id, err := w.RunNext(ctx); id != "" || err != nil {
		t.Errorf("of nothing: %q, %v", id, err)
	}
	e, err := rig.Queue.EnqueueMany(t.Context(), []job.New{{Type: "x"}, {Type: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	if id, err := w.RunNext(ctx); id != e[0].ID || err != nil {
		t.Errorf("%q, %v", id, err)
	}
	if d, err := rig.Queue.Detail(t.Context(), e[0].ID); err != nil || d.State != job.Queued || d.Attempts != 0 || d.Runs[0].Outcome != "handed_back" {
		t.Errorf("a job whose worker was stopped: %+v, %v", d, err)
	}
	if d, err := rig.Queue.Detail(t.Context(), e[1].ID); err != nil || len(d.Runs) != 0 {
		t.Errorf("the job behind it was run too: %+v, %v", d, err)
	}
	if ran := rig.Next(); string(ran.Result) != `"done"` {
		t.Errorf("%+v", ran.Detail)
	}
}

// beat is when a job was last heard of.
func beat(ctx context.Context, t *testing.T, rig *queuetest.Rig, id string) job.Time {
	t.Helper()
	j, err := rig.Queue.Get(ctx, id)
	if err != nil || j.HeartbeatAt == nil {
		t.Errorf("%+v, %v", j, err)
		return 0
	}
	return *j.HeartbeatAt
}
