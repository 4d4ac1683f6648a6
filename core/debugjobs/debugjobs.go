// Package debugjobs holds the handlers for trying the queue out. They are
// bound only when queue.debug_jobs is true. It may import core/job, core/step
// and core/worker.
package debugjobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/step"
	"github.com/postroom/postroom/core/worker"
)

// ExitCode is what debug.exit ends its process with.
const ExitCode = 99

// Bindings lists the debug handlers.
func Bindings() []worker.Binding {
	return []worker.Binding{
		worker.Bind(job.DebugEcho, echo),
		worker.Bind(job.DebugSleep, sleep),
		worker.Bind(job.DebugSpin, spin),
		worker.Bind(job.DebugFail, fail),
		worker.Bind(job.DebugPanic, panics),
		worker.Bind(job.DebugSteps, steps),
		worker.Bind(job.DebugExit, exit),
	}
}

func echo(_ context.Context, j *worker.Job[json.RawMessage]) (any, error) {
	return j.Payload, nil
}

type duration struct {
	MS int64 `json:"ms"`
}

// sleep heeds its context.
func sleep(ctx context.Context, j *worker.Job[duration]) (any, error) {
	t := time.NewTimer(time.Duration(j.Payload.MS) * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return nil, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// spin ignores its context, as a handler should not.
func spin(_ context.Context, j *worker.Job[duration]) (any, error) {
	for end := time.Now().Add(time.Duration(j.Payload.MS) * time.Millisecond); time.Now().Before(end); {
	}
	return nil, nil
}

type failure struct {
	Times *int64 `json:"times"` // always, when missing
	Fatal bool   `json:"fatal"`
}

func fail(_ context.Context, j *worker.Job[failure]) (any, error) {
	if j.Payload.Times != nil && j.Failures() >= *j.Payload.Times {
		return nil, nil
	}
	err := fmt.Errorf("debug.fail: failure %d", j.Failures()+1)
	if j.Payload.Fatal {
		return nil, job.Fatal(err)
	}
	return nil, err
}

func panics(context.Context, *worker.Job[struct{}]) (any, error) {
	panic("debug.panic")
}

type stepsPayload struct {
	N         int   `json:"n"`
	FailAfter int64 `json:"fail_after"`
}

// steps runs n steps and fails once after step fail_after. Each step's result
// is the run in which its body was executed.
func steps(ctx context.Context, j *worker.Job[stepsPayload]) (any, error) {
	if j.Payload.N < 0 || j.Payload.N > 10_000 {
		return nil, job.Fatal(errors.New("payload.n must be between 0 and 10000"))
	}
	done := make([]int64, j.Payload.N)
	for i := range done {
		run, err := step.Run(ctx, fmt.Sprintf("step_%d", i+1), func(context.Context) (int64, error) {
			return j.Attempt(), nil
		})
		if err != nil {
			return nil, err
		}
		done[i] = run
		if int64(i+1) == j.Payload.FailAfter && j.Failures() == 0 {
			return nil, job.RetryAfter(0, fmt.Errorf("debug.steps: failed after step %d", i+1))
		}
	}
	return map[string]any{"steps": done}, nil
}

func exit(context.Context, *worker.Job[struct{}]) (any, error) {
	os.Exit(ExitCode)
	return nil, nil
}
