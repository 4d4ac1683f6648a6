package queuetest_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/queuetest"
	"github.com/postroom/postroom/core/step"
	"github.com/postroom/postroom/core/worker"
)

var types = job.Types{"page.fetch": {}, "page.index": {MaxAttempts: 2}, "nobody.knows": {}}

// asks is a testing.T that notes how a test would have failed.
type asks struct {
	testing.TB
	failed chan string
}

func (a asks) Fatalf(format string, args ...any) {
	a.failed <- fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestOneRunAtATime(t *testing.T) {
	t.Parallel()
	down := true
	rig := queuetest.New(t, types,
		worker.Bind("page.fetch", func(ctx context.Context, j *worker.Job[string]) (any, error) {
			text, err := step.Run(ctx, "download", func(context.Context) (string, error) { return "text of " + j.Payload, nil })
			if err != nil || down {
				return nil, errors.Join(err, job.RetryAfter(48*time.Hour, errors.New("the index is down")))
			}
			return nil, j.Commit(ctx, map[string]int{"bytes": len(text)}, func(b *queue.Batch) {
				b.Enqueue(job.New{Type: "page.index", Payload: job.Payload(text)})
				b.Enqueue(job.New{Type: "page.index", Payload: job.Payload(text), Delay: time.Hour})
			})
		}),
		worker.Bind("page.index", func(context.Context, *worker.Job[string]) (any, error) { return nil, errors.New("no room") }),
	)
	fetched := rig.Run(job.New{Type: "page.fetch", Payload: job.Payload("/a")})
	if fetched.State != job.Queued || fetched.Attempts != 1 || fetched.ErrorText() != "the index is down" || len(fetched.Stored) != 0 {
		t.Errorf("after the first run: %+v", fetched.Detail)
	}
	if s := fetched.Step("download"); s.Outcome != job.StepDone || string(s.Result) != `"text of /a"` {
		t.Errorf("step %+v", s)
	}
	down = false
	fetched = rig.Next() // two days later
	var result struct{ Bytes int }
	if fetched.Into(&result); result.Bytes != 10 || fetched.Attempts != 2 {
		t.Errorf("after the second run: %+v", fetched.Detail)
	}
	if len(fetched.Stored) != 2 || fetched.Stored[0].State != job.Queued || string(fetched.Stored[1].Payload) != `"text of /a"` {
		t.Errorf("stored %+v", fetched.Stored)
	}
	ran := rig.Drain() // two jobs of two attempts, of which one begins an hour later
	if len(ran) != 4 || ran[0].ID != fetched.Stored[0].ID || ran[3].ID != fetched.Stored[1].ID || ran[3].State != job.Failed || ran[3].ErrorText() != "no room" {
		t.Errorf("drained %d: %+v", len(ran), ran)
	}
	if next := rig.Next(); next != nil {
		t.Errorf("one more: %+v", next)
	}
	if report, err := rig.Queue.Verify(t.Context()); err != nil || len(report.Violations) > 0 {
		t.Errorf("the scratch database: %+v, %v", report, err)
	}
}

func TestSchedulesNeedNoWaiting(t *testing.T) {
	t.Parallel()
	rig := queuetest.New(t, types, worker.Bind("page.fetch", func(_ context.Context, j *worker.Job[any]) (any, error) {
		_, tick := j.Tick()
		return tick, nil
	}))
	if _, _, err := rig.Queue.SetCron(t.Context(), queue.NewCron{Name: "nightly", Schedule: "@daily", Type: "page.fetch"}); err != nil {
		t.Fatal(err)
	}
	rig.Advance(24 * time.Hour)
	if _, err := rig.Queue.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	var ticked bool
	if rig.Next().Into(&ticked); !ticked {
		t.Error("the job knows no tick")
	}
}

func TestWhatIsWrongIsSaid(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		test func(*queuetest.Rig)
		want string
	}{
		"a job that nobody handles": {func(r *queuetest.Rig) {
			r.Run(job.New{Type: "nobody.knows"})
		}, "the nobody.knows job is not run: none of the 1 runners knows the type"},
		"a job in a paused queue": {func(r *queuetest.Rig) {
			r.Run(job.New{Type: "page.fetch"})
			_ = r.Queue.Pause(context.Background(), job.DefaultQueue)
			r.Run(job.New{Type: "page.fetch"})
		}, "the page.fetch job is not run: the queue default is paused"},
		"a job that cannot be stored": {func(r *queuetest.Rig) {
			r.Run(job.New{Type: "page.fetch", Priority: 101})
		}, "store the job: priority"},
		"no result": {func(r *queuetest.Rig) {
			r.Run(job.New{Type: "page.index"}).Into(new(int))
		}, "the page.index job is failed, not completed: broken"},
		"another result": {func(r *queuetest.Rig) {
			r.Run(job.New{Type: "page.fetch"}).Into(new(int))
		}, `the result of the page.fetch job is "text": json: cannot unmarshal`},
		"no such step": {func(r *queuetest.Rig) {
			r.Run(job.New{Type: "page.fetch"}).Step("two")
		}, `the page.fetch job has no step "two"; it has "one"`},
		"no end": {func(r *queuetest.Rig) {
			r.Run(job.New{Type: "page.index", Payload: job.Payload("snooze")})
			r.Drain()
		}, "no end after 100 runs; the last was of a page.index job"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := asks{t, make(chan string, 1)}
			go func() {
				defer close(a.failed)
				c.test(queuetest.New(a, types,
					worker.Bind("page.fetch", func(ctx context.Context, _ *worker.Job[any]) (any, error) {
						return step.Run(ctx, "one", func(context.Context) (string, error) { return "text", nil })
					}),
					worker.Bind("page.index", func(_ context.Context, j *worker.Job[*string]) (any, error) {
						if j.Payload != nil {
							return nil, job.Snooze(time.Minute)
						}
						return nil, job.Fatal(errors.New("broken"))
					})))
			}()
			if got := <-a.failed; !strings.HasPrefix(got, "queuetest: "+c.want) {
				t.Errorf("it says %q, want %q", got, c.want)
			}
		})
	}
}
