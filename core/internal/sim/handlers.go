package sim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/step"
	"github.com/postroom/postroom/core/worker"
)

// The job types of the simulated world, by what their handlers do.
const (
	typeEcho   = "sim.echo"   // is done at once
	typeSteps  = "sim.steps"  // n steps, each of which takes a while
	typeFlaky  = "sim.flaky"  // fails n times, sometimes between steps
	typeFatal  = "sim.fatal"  // fails for good
	typeSnooze = "sim.snooze" // snoozes n times
	typeChain  = "sim.chain"  // commits with n follow-up jobs
	typeSpin   = "sim.spin"   // does not heed its context
	typeWait   = "sim.wait"   // heeds it
	typePanic  = "sim.panic"  // panics
	typeSlow   = "sim.slow"   // takes longer than it may
	typeKiller = "sim.killer" // kills its process in its first 2n runs
	typeOnce   = "sim.once"   // has an effect on the world that must not be repeated
)

var allTypes = []string{
	typeEcho, typeEcho, typeSteps, typeSteps, typeSteps, typeFlaky, typeFlaky, typeFatal, typeSnooze,
	typeChain, typeChain, typeChain, typeSpin, typeSpin, typeWait, typeWait, typePanic, typeSlow,
}

func jobTypes() job.Types {
	types := job.Types{}
	for _, name := range append([]string{typeKiller, typeOnce}, allTypes...) {
		types[name] = job.Type{
			Name: name, Queue: job.DefaultQueue, MaxAttempts: 3, Timeout: time.Minute,
			Backoff:  job.Backoff{Base: 500 * time.Millisecond, Cap: 4 * time.Second, Jitter: 0.25},
			KeyScope: job.ScopeActive,
		}
	}
	slow := types[typeSlow]
	slow.Timeout = 2 * time.Second
	types[typeSlow] = slow
	other := types[typeChain] // some work waits in another queue
	other.Queue = otherQueue
	types[typeChain] = other
	return types
}

// payload says how a handler is to go about it.
type payload struct {
	N     int   `json:"n"`
	MS    int64 `json:"ms"`
	Long  bool  `json:"long"`  // takes several times as long: longer than a lease, perhaps
	Again bool  `json:"again"` // does something again after an error, where it may
}

func (p payload) takes() time.Duration {
	d := time.Duration(p.MS) * time.Millisecond
	if p.Long {
		d *= 5
	}
	return d
}

// run is what a handler of the simulation is given.
type run struct {
	p *proc
	*worker.Job[payload]
}

func (r *run) say(kind, name, text string) {
	r.p.w.record(entry{kind: kind, proc: r.p.name, job: r.ID(), run: r.Number(), name: name, text: text})
}

func (r *run) name() string { return fmt.Sprintf("%s run %d", r.ID(), r.Number()) }

// sleep takes a while, and ends early with an error if ctx does.
func (r *run) sleep(ctx context.Context, d time.Duration) error {
	slept := r.p.sleep(ctx.Done(), d)
	r.p.handOverAt(r.name() + " wakes")
	if !slept {
		r.say("context ended", "", fmt.Sprint(context.Cause(ctx)))
		return ctx.Err()
	}
	return nil
}

// bindings are the handlers of a process.
func bindings(p *proc) []worker.Binding {
	bind := func(typ string, h func(context.Context, *run) (any, error)) worker.Binding {
		return worker.Bind(typ, func(ctx context.Context, j *worker.Job[payload]) (any, error) {
			r := &run{p, j}
			r.say("handler starts", typ, "")
			how := "panics"
			defer func() { r.say("handler ends", typ, how) }()
			if p.w.plan.writes { // once: what comes of it is the answer
				if err := r.Write(ctx, func(*queue.Batch) {}); err != nil {
					how = text(err)
					return nil, err
				}
			}
			result, err := h(ctx, r)
			// Its last call may have woken the claim loop, which must not race
			// the slot that becomes free now.
			p.handOver(r.name() + " ends")
			how = text(err)
			return result, err
		})
	}
	return []worker.Binding{
		bind(typeEcho, func(context.Context, *run) (any, error) { return "done", nil }),
		bind(typeSteps, func(ctx context.Context, r *run) (any, error) { return nil, r.steps(ctx, 1+r.Payload.N, -1) }),
		bind(typeFlaky, flaky),
		bind(typeFatal, func(context.Context, *run) (any, error) { return nil, job.Fatal(errors.New("for good")) }),
		bind(typeSnooze, func(_ context.Context, r *run) (any, error) {
			if r.Number() <= int64(r.Payload.N) {
				return nil, job.Snooze(r.Payload.takes())
			}
			return nil, nil
		}),
		bind(typeChain, chain),
		bind(typeSpin, func(_ context.Context, r *run) (any, error) {
			return nil, r.sleep(context.Background(), r.Payload.takes())
		}),
		bind(typeWait, func(ctx context.Context, r *run) (any, error) { return nil, r.sleep(ctx, r.Payload.takes()) }),
		bind(typePanic, func(_ context.Context, r *run) (any, error) {
			if r.Failures() < int64(r.Payload.N) {
				panic("simulated")
			}
			return nil, nil
		}),
		bind(typeOnce, once),
		bind(typeKiller, func(_ context.Context, r *run) (any, error) {
			if err := r.sleep(context.Background(), r.Payload.takes()/4); err != nil {
				return nil, err
			}
			if r.Number() <= int64(2*r.Payload.N) {
				p.w.work.die(p)
				p.handOver(r.name() + " is dead")
			}
			return nil, nil
		}),
		bind(typeSlow, func(ctx context.Context, r *run) (any, error) { return nil, r.sleep(ctx, r.Payload.takes()) }),
	}
}

// steps runs n steps and fails before the one at failAt.
func (r *run) steps(ctx context.Context, n, failAt int) error {
	for i := range n {
		if i == failAt {
			return errors.New("fails between steps")
		}
		name := fmt.Sprintf("s%d", i)
		made, err := step.Run(ctx, name, func(ctx context.Context) (int64, error) {
			r.say("body starts", name, "")
			if err := r.sleep(ctx, r.Payload.takes()/4); err != nil {
				return 0, err
			}
			r.say("body ends", name, "")
			return r.Number(), nil
		})
		if err != nil {
			return err
		}
		r.say("step done", name, fmt.Sprint(made))
	}
	return nil
}

// flaky fails as often as it is told to.
func flaky(ctx context.Context, r *run) (any, error) {
	if r.Failures() >= int64(r.Payload.N) {
		return nil, r.steps(ctx, 3, -1)
	}
	if err := r.steps(ctx, 3, int(r.Failures())%3); err != nil && r.Payload.Again {
		return nil, job.RetryAfter(r.Payload.takes(), err)
	}
	return nil, errors.New("fails")
}

// chain hands over to follow-up jobs.
func chain(ctx context.Context, r *run) (any, error) {
	if err := r.sleep(ctx, r.Payload.takes()/2); err != nil {
		return nil, err
	}
	commit := func() error {
		return r.Commit(ctx, "handed over", func(b *queue.Batch) {
			for range r.Payload.N {
				b.Enqueue(job.New{Type: typeEcho, Payload: job.Payload(payload{})})
			}
		})
	}
	err := commit()
	for range 3 {
		if err == nil || !r.Payload.Again {
			break
		}
		r.say("commits again", "", text(err))
		err = commit()
	}
	return nil, err
}

// effectStep is the step of typeOnce.
const effectStep = "effect"

// once has an effect outside of the database, where nothing fences it. What it
// knows of that after a crash depends on the payload.
func once(ctx context.Context, r *run) (any, error) {
	w := r.p.w
	effect := func(ctx context.Context) (int64, error) {
		r.say("body starts", effectStep, "")
		disturbed := r.p.disturbed
		if err := r.sleep(ctx, r.Payload.takes()/2); err != nil {
			return 0, err
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		w.effects[r.ID()]++
		if r.p.disturbed == disturbed {
			r.say("effect", effectStep, "")
		} else {
			r.say("effect of a zombie", effectStep, "")
		}
		if r.Payload.N == 3 && r.Failures() == 0 {
			return 0, step.Uncertain(errors.New("the line went dead"))
		}
		return r.Number(), r.sleep(ctx, r.Payload.takes()/4)
	}
	var reconcile func(context.Context) (int64, step.Verdict, error)
	switch r.Payload.N {
	case 1, 3:
		reconcile = func(context.Context) (int64, step.Verdict, error) {
			r.p.handOver(r.name() + " reconciles")
			if w.effects[r.ID()] > 0 {
				return r.Number(), step.Happened, nil
			}
			return 0, step.DidNotHappen, nil
		}
	case 2:
		reconcile = func(context.Context) (int64, step.Verdict, error) { return 0, step.CannotTell, nil }
	}
	made, err := step.Once(ctx, effectStep, effect, reconcile)
	if err == nil {
		r.say("step done", effectStep, fmt.Sprint(made))
	}
	return nil, err
}
