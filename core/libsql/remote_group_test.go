package libsql

import (
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/core/system"
)

// byHand is a system whose timers end when the test says so.
type byHand struct {
	system.Real

	timers chan *handTimer
}

type handTimer struct {
	d    time.Duration
	c    chan time.Time
	sets chan time.Duration
}

func (s byHand) NewTimer(d time.Duration) system.Timer {
	t := &handTimer{d: d, c: make(chan time.Time), sets: make(chan time.Duration, 10)}
	s.timers <- t
	return t
}

// next is the timer that was asked for.
func (s byHand) next(t *testing.T) *handTimer {
	t.Helper()
	waitFor(t, func() bool { return len(s.timers) > 0 })
	return <-s.timers
}

// end lets the timer end, and waits until it is set again if that is to be.
func (t *handTimer) end(tt *testing.T, again bool) {
	tt.Helper()
	t.c <- time.Time{}
	if again {
		waitFor(tt, func() bool { return len(t.sets) > 0 })
		if d := <-t.sets; d != t.d {
			tt.Errorf("set again for %v, want %v", d, t.d)
		}
	}
}

func (t *handTimer) C() <-chan time.Time   { return t.c }
func (t *handTimer) Reset(d time.Duration) { t.sets <- d }
func (t *handTimer) Stop()                 {}

// afterTwo is a database whose last group had two callers. write makes one more
// in the background, all of which wg waits for, and pending waits for so many.
func afterTwo(t *testing.T) (sys byHand, l *link, wg *sync.WaitGroup, write func(), pending func(int)) {
	t.Helper()
	sys = byHand{timers: make(chan *handTimer, 10)}
	r, l := linked(t, Options{System: sys})
	wg = &sync.WaitGroup{}
	write = func() {
		wg.Go(func() {
			if _, err := r.Write(t.Context(), batch(Exec("DELETE FROM t"))); err != nil {
				t.Error(err)
			}
		})
	}
	pending = func(n int) { waitFor(t, func() bool { return r.inbox.length() == n }) }
	arrived, held := l.hold()
	write()
	<-arrived
	write()
	write()
	pending(2)
	close(held)
	wg.Wait()
	if len(sys.timers) > 0 {
		t.Error("a group waited that came after a single caller")
	}
	return sys, l, wg, write, pending
}

// Callers that were answered together come back together: only then does a
// group wait for more, and no longer than they come.
func TestOnlyAfterCallersThatSharedARequestTheNextWaitsForMore(t *testing.T) {
	t.Parallel()
	sys, l, wg, write, pending := afterTwo(t)
	before := l.batches.Load()
	write()
	timer := sys.next(t)
	if timer.d <= 0 || timer.d > maxGather/8 {
		t.Errorf("it waits %v at a time, want some time up to %v", timer.d, maxGather/8)
	}
	write()
	write()
	pending(3)
	timer.end(t, true)
	timer.end(t, false) // nobody came meanwhile
	wg.Wait()
	if n := l.batches.Load() - before; n != 1 {
		t.Errorf("%d requests for three callers that came one after the other, want one", n)
	}

	write()
	sys.next(t).end(t, false)
	wg.Wait()
	write()
	wg.Wait()
	if len(sys.timers) > 0 {
		t.Error("a group waited that came after a single caller")
	}
}

// However many come, the group goes at last.
func TestAGroupDoesNotWaitForever(t *testing.T) {
	t.Parallel()
	sys, _, wg, write, pending := afterTwo(t)
	write()
	timer := sys.next(t)
	for i := range 8 {
		write()
		pending(i + 2)
		timer.end(t, i < 7)
	}
	wg.Wait()
}
