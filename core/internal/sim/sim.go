// Package sim runs the real queue, steps and worker on a real libsql file in
// a world that is decided by a seed: several runners and clients, their clocks,
// the order in which everything happens, and what goes wrong. A checker then
// holds the history of that world against docs/lifecycle.md. One seed is one
// history, so a seed that found a mistake finds it again; docs/simulator.md
// says how to read and extend it.
//
// It is used by tests only, and may import every package of the core that the
// queue's work needs.
package sim

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
)

// Options change what a run does beside its seed.
type Options struct {
	Mutation *Mutation // a mistake to be made on purpose; nil for none
	Server   bool      // the database is a server, which has mishaps of its own
	Trace    bool      // keep the whole history as text
}

// Result is what a run came to.
type Result struct {
	Seed       uint64
	Violations []Violation
	Trace      []string // the history, one line an event, if it was asked for
	Hash       string   // of the trace
	Stats      Stats
}

// Stats say how much a run had to do.
type Stats struct {
	Steps, Calls, Jobs, Runs, Rescues, Poisoned, Pruned, Ticks, Faults int
	Fake                                                               time.Duration // time that passed inside
}

func (s *Stats) add(o Stats) {
	s.Steps += o.Steps
	s.Calls += o.Calls
	s.Jobs += o.Jobs
	s.Runs += o.Runs
	s.Rescues += o.Rescues
	s.Poisoned += o.Poisoned
	s.Pruned += o.Pruned
	s.Ticks += o.Ticks
	s.Faults += o.Faults
	s.Fake += o.Fake
}

// Violation is a broken promise.
type Violation struct {
	Rule string // a short name of the promise
	Job  string // "" where it is about no single job
	At   int    // the event at which it was seen
	Text string
}

func (v Violation) String() string {
	return fmt.Sprintf("%s: job %s, event %d: %s", v.Rule, v.Job, v.At, v.Text)
}

// Run lives through the world of the seed and checks its history. The store
// must be used by one run at a time.
func Run(t *testing.T, store *Store, seed uint64, opt Options) *Result {
	t.Helper()
	res := &Result{Seed: seed}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(seed, opt)
		ctx := context.Background()
		file, err := libsql.Open(ctx, libsql.Options{Path: store.path, Synchronous: "normal", System: ofFile{}})
		if err != nil {
			t.Fatalf("seed %d: open: %v", seed, err)
		}
		defer func() {
			if err := file.Close(ctx); err != nil {
				t.Errorf("seed %d: close: %v", seed, err)
			}
		}()
		w.file = file
		if err := store.reset(ctx, file); err != nil {
			t.Fatalf("seed %d: reset: %v", seed, err)
		}
		w.live()
		changes, rows, err := store.result(ctx, file)
		if err != nil {
			t.Fatalf("seed %d: read the result: %v", seed, err)
		}
		res.Violations = slices.Concat(w.violations, check(w, changes, rows))
		// What operators have must find no fault either.
		report, err := queue.New(file, ofFile{}, w.work.types).Verify(ctx)
		if err != nil {
			t.Fatalf("seed %d: verify: %v", seed, err)
		}
		for _, v := range report.Violations {
			res.Violations = append(res.Violations, Violation{Rule: "verify: " + v.Rule, Job: v.What, At: len(w.history), Text: v.Detail})
		}
		res.Stats = w.stats
		res.Stats.Steps, res.Stats.Fake = w.step, time.Since(w.began)
		if opt.Trace {
			res.Trace = w.trace(changes)
			sum := sha256.Sum256([]byte(strings.Join(res.Trace, "\n")))
			res.Hash = hex.EncodeToString(sum[:])
		}
	})
	return res
}
