package step_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/step"
)

// histories is how many random histories a test run plays; STEP_SEEDS plays
// more, from the seed STEP_SEED on.
const histories = 30

// trouble is how long a history goes wrong; then its job may come to an end.
const trouble = 6

// Whatever happens to a job's runs, no body is executed again once its success
// is stored, and an effect happens as often as somebody who knew said that it
// had not: at the end, once.
func TestRandomHistories(t *testing.T) {
	t.Parallel()
	r := setup(t)
	number := func(name string, otherwise int) uint64 {
		n, err := strconv.Atoi(os.Getenv(name))
		if err != nil {
			n = otherwise
		}
		return uint64(n)
	}
	first := number("STEP_SEED", 1)
	for seed := first; seed < first+number("STEP_SEEDS", histories); seed++ {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			newHistory(t, r, seed).play()
		})
	}
}

// history is one job with random steps that random things happen to.
type history struct {
	t      *testing.T
	r      *rig
	random *rand.Rand // of the job's runs, which follow one another
	steps  []*act

	mu  sync.Mutex
	log []string
}

// act is one step of it.
type act struct {
	name       string
	once       bool
	reconciles bool
	world      world
	stored     bool // its success is
}

func newHistory(t *testing.T, r *rig, seed uint64) *history {
	h := &history{t: t, r: r, random: rand.New(rand.NewPCG(seed, 0))}
	for i := range 1 + h.random.IntN(4) {
		h.steps = append(h.steps, &act{name: fmt.Sprintf("s%d", i), once: h.random.IntN(3) > 0, reconciles: h.random.IntN(3) > 0})
	}
	return h
}

func (h *history) act(name string) *act {
	for _, a := range h.steps {
		if a.name == name {
			return a
		}
	}
	h.t.Fatalf("there is no step %s", name)
	return nil
}

func (h *history) note(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log = append(h.log, fmt.Sprintf(format, args...))
}

// wrong reports a broken promise with what led to it.
func (h *history) wrong(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.t.Errorf(format+"\n%q", append(args, h.log)...)
}

func (h *history) play() {
	d := h.r.play(h.t, h.run)
	// A person retries it until it is done, and settles what is uncertain.
	for d.State != job.Completed {
		h.note("%s: %s", d.State, text(d.LastError))
		for _, s := range d.Steps {
			if a := h.act(s.Name); s.Outcome == job.StepUncertain {
				if _, err := h.r.q.SettleStep(h.t.Context(), d.ID, s.Name, queue.Settlement{Happened: a.world.changed() > 0}); err != nil {
					h.t.Fatal(err)
				}
			}
		}
		d = h.r.retry(h.t, d.ID)
	}
	if len(d.Steps) != len(h.steps) {
		h.wrong("%d steps of %d are recorded", len(d.Steps), len(h.steps))
	}
	for _, s := range d.Steps {
		a := h.act(s.Name)
		if n := a.world.changed(); s.Outcome != job.StepDone || n < 1 || a.once && n != 1 {
			h.wrong("step %s is %s and happened %d times", s.Name, s.Outcome, n)
		}
	}
}

// run is the job's handler.
func (h *history) run(ctx context.Context, j *run) (any, error) {
	bad := j.Number() <= trouble
	if d := h.r.job(h.t, j.ID()); j.Number() > 1 {
		for _, s := range d.Steps {
			h.act(s.Name).stored = s.Outcome == job.StepDone
		}
	}
	p := &plan{faults: map[int]fault{}}
	ctx = withPlan(ctx, p)
	if bad {
		at := 1 + h.random.IntN(3*len(h.steps))
		f := fault{after: h.random.IntN(2) == 0}
		switch h.random.IntN(4) {
		case 0:
			f.act = func() error { return errAway }
			if f.after {
				f.act = func() error { return errUnknown }
			}
		default:
			f.act = func() error {
				h.note("run %d dies at write %d, after: %v", j.Number(), at, f.after)
				j.die()
				return nil
			}
		}
		p.faults[at] = f
	}
	for _, a := range h.steps {
		var err error
		body := func(ctx context.Context) (string, error) { return h.execute(ctx, j, a, bad) }
		switch {
		case !a.once:
			_, err = step.Run(ctx, a.name, body)
		case a.reconciles:
			_, err = step.Once(ctx, a.name, body, func(ctx context.Context) (string, step.Verdict, error) {
				if bad {
					switch h.random.IntN(6) {
					case 0:
						return "", step.CannotTell, nil
					case 1:
						return "", step.Happened, errBroken
					case 2:
						h.note("run %d dies asking about %s", j.Number(), a.name)
						j.die()
					}
				}
				return a.world.look(ctx)
			})
		default:
			_, err = step.Once(ctx, a.name, body, nil)
		}
		if err != nil {
			h.note("run %d: %s: %v", j.Number(), a.name, err)
			return nil, err
		}
		a.stored = true
	}
	if bad && h.random.IntN(2) == 0 {
		return nil, errBroken
	}
	return nil, nil
}

// execute is the body of a step.
func (h *history) execute(ctx context.Context, j *run, a *act, bad bool) (string, error) {
	h.note("run %d executes %s", j.Number(), a.name)
	if a.stored {
		h.wrong("step %s is executed although its success is stored", a.name)
	}
	if bad {
		switch h.random.IntN(10) {
		case 0:
			return "", errBroken
		case 1:
			h.note("run %d dies before %s", j.Number(), a.name)
			j.die()
		case 2:
			return "", job.Snooze(0)
		case 3:
			panic("before " + a.name)
		case 4:
			return "", job.Fatal(step.Uncertain(errors.New("before")))
		}
	}
	a.world.change()
	if bad {
		switch h.random.IntN(10) {
		case 0:
			return "", step.Uncertain(errBroken)
		case 1:
			h.note("run %d dies after %s", j.Number(), a.name)
			j.die()
		case 2:
			panic("after " + a.name)
		case 3:
			j.end() // the process goes on and does not know
		}
	}
	return "", ctx.Err()
}
