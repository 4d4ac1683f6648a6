package sim

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// seeds says which seeds to run: SEEDS=N for the first N, SEEDS=A-B for a
// range.
func seeds(t *testing.T) (first, last uint64) {
	t.Helper()
	v := os.Getenv("SEEDS")
	switch {
	case v != "":
	case raceDetector:
		return 1, 12
	default:
		return 1, 250
	}
	from, to, isRange := strings.Cut(v, "-")
	number := func(s string) uint64 {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil || n == 0 {
			t.Fatalf("SEEDS is %q, want a number of seeds or a range such as 17-17", v)
		}
		return n
	}
	if !isRange {
		return 1, number(v)
	}
	return number(from), number(to)
}

// each runs the seeds on all cores and gives their results to fn, until fn
// says stop. A store serves one run at a time.
func each(t *testing.T, first, last uint64, opt Options, fn func(*testing.T, *Store, *Result) (more bool)) {
	var next atomic.Uint64
	next.Store(first)
	var stop atomic.Bool
	var mu sync.Mutex
	for i := range runtime.GOMAXPROCS(0) {
		t.Run("worker "+strconv.Itoa(i+1), func(t *testing.T) {
			t.Parallel()
			store := NewStore(t)
			for !stop.Load() {
				seed := next.Add(1) - 1
				if seed > last {
					return
				}
				res := Run(t, store, seed, opt)
				mu.Lock()
				if !fn(t, store, res) {
					stop.Store(true)
				}
				mu.Unlock()
			}
		})
	}
}

// report tells a violation with the story of its job.
func report(t *testing.T, store *Store, res *Result, opt Options) {
	t.Helper()
	opt.Trace = true
	again := Run(t, store, res.Seed, opt)
	if len(again.Violations) == 0 {
		t.Errorf("seed %d: a violation did not come again, which is a mistake of the simulator: %v", res.Seed, res.Violations)
		return
	}
	v := again.Violations[0]
	for _, more := range again.Violations[:min(6, len(again.Violations))] {
		t.Errorf("seed %d: %s", res.Seed, more)
		if v.Job == "" {
			v = more
		}
	}
	story := again.Trace
	if v.Job != "" {
		story = Story(again.Trace, v.Job)
	}
	t.Log("its story:\n" + strings.Join(story[max(0, len(story)-80):], "\n"))
}

func TestNoSeedBreaksAPromise(t *testing.T) {
	t.Parallel()
	first, last := seeds(t)
	breaksNoPromise(t, first, last, Options{})
}

// The same with a database on a server: make sim SERVER=1.
func TestNoSeedOnAServerBreaksAPromise(t *testing.T) {
	t.Parallel()
	first, last := seeds(t)
	if os.Getenv("SEEDS") == "" {
		last = min(last, 100)
	}
	breaksNoPromise(t, first, last, Options{Server: true})
}

func breaksNoPromise(t *testing.T, first, last uint64, opt Options) {
	t.Helper()
	var total Stats
	var ran int
	began := time.Now()
	t.Run("seeds", func(t *testing.T) {
		t.Parallel()
		failures := 0
		each(t, first, last, opt, func(t *testing.T, store *Store, res *Result) bool {
			ran++
			total.add(res.Stats)
			if len(res.Violations) > 0 {
				failures++
				report(t, store, res, opt)
			}
			return failures < 5
		})
	})
	t.Cleanup(func() {
		took := time.Since(began).Seconds()
		t.Logf("%d seeds in %.1f s, %.0f a second: %+v", ran, took, float64(ran)/took, total)
	})
}

func TestOneSeedIsOneHistory(t *testing.T) {
	t.Parallel()
	last := uint64(20)
	if raceDetector {
		last = 4
	}
	for name, opt := range map[string]Options{"on a file": {Trace: true}, "on a server": {Trace: true, Server: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			each(t, 1, last, opt, func(t *testing.T, store *Store, res *Result) bool {
				again := Run(t, store, res.Seed, opt)
				if again.Hash == res.Hash {
					return true
				}
				for i := range min(len(res.Trace), len(again.Trace)) {
					if res.Trace[i] != again.Trace[i] {
						t.Errorf("seed %d: two histories, line %d:\n%s\n%s\nbefore:\n%s", res.Seed, i, res.Trace[i], again.Trace[i], strings.Join(res.Trace[max(0, i-12):i], "\n"))
						return false
					}
				}
				t.Errorf("seed %d: histories of %d and %d lines", res.Seed, len(res.Trace), len(again.Trace))
				return false
			})
		})
	}
}

// TestSeedsThatFoundMistakes runs those that did; docs/simulator.md tells what.
func TestSeedsThatFoundMistakes(t *testing.T) {
	t.Parallel()
	for _, seed := range []uint64{31, 51, 560, 806, 1381, 4180} {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			store := NewStore(t)
			if res := Run(t, store, seed, Options{}); len(res.Violations) > 0 {
				report(t, store, res, Options{})
			}
		})
	}
}
