package libsql

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/core/system"
)

func TestAWriteWaitsForAnotherProcess(t *testing.T) {
	t.Parallel()
	f := setup(t)
	release := holdElsewhere(t, f.opt.Path)
	result := make(chan error, 1)
	go func() {
		_, err := f.Write(t.Context(), batch(Exec("INSERT INTO t(k) VALUES (1)")))
		result <- err
	}()
	waitPending(t, f, 1)
	// Readers and the health check do not wait.
	if n := readInt(t, f, "SELECT count(*) FROM t"); n != 0 {
		t.Errorf("%d rows before the lock was free", n)
	}
	if v, err := f.Health(t.Context()); err != nil || v == 0 {
		t.Errorf("health is %d, %v", v, err)
	}
	select {
	case err := <-result:
		t.Fatalf("the write returned %v while another process held the lock", err)
	default:
	}
	release()
	if err := <-result; err != nil {
		t.Error(err)
	}
	if n := readInt(t, f, "SELECT count(*) FROM t"); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
}

func TestAWriteThatNeverGetsTheLockIsBusy(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	clk := &clock{}
	var classes []Class
	f := open(t, Options{Path: path, System: clk, BusyTimeout: time.Hour, CallTimeout: 24 * time.Hour, OnError: func(c Class) { classes = append(classes, c) }})
	release := pin(t, path)
	write := func() chan error {
		result := make(chan error, 1)
		go func() {
			_, err := f.Write(t.Context(), batch(Exec("CREATE TABLE IF NOT EXISTS late (k INTEGER) STRICT")))
			result <- err
		}()
		return result
	}
	first := write()
	waitPending(t, f, 1)
	clk.advance(59 * time.Minute)
	second := write()
	waitPending(t, f, 2)
	clk.advance(2 * time.Minute)
	wantClass(t, <-first, Busy)
	// The second has waited for two minutes only.
	waitPending(t, f, 1)
	release()
	if err := <-second; err != nil {
		t.Errorf("the second write did not have its whole busy timeout: %v", err)
	}
	if len(classes) != 1 || classes[0] != Busy {
		t.Errorf("OnError was told %v, want busy once", classes)
	}
}

func TestABusyCallIsRepeatedAsOftenAsTheOptionsSay(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	var attempts int
	f := open(t, Options{Path: path, BusyTimeout: time.Nanosecond, RetryTimes: 3, RetryBase: time.Nanosecond, OnError: func(Class) { attempts++ }})
	pin(t, path)
	_, err := f.Write(t.Context(), &Batch{})
	wantClass(t, err, Busy)
	if attempts != 4 {
		t.Errorf("%d attempts, want 1 and 3 repeats", attempts)
	}
}

func TestProbeWriterSharesOneProbe(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	clk := &clock{}
	commits := make(chan int, 100)
	f := open(t, Options{Path: path, System: clk, BusyTimeout: time.Hour, CallTimeout: 24 * time.Hour, OnCommit: func(n, _ int) { commits <- n }})
	release := pin(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			waited, err := f.ProbeWriter(ctx)
			wantClass(t, err, Canceled)
			if waited < 10*time.Minute {
				t.Errorf("the probe says it waited for %s", waited)
			}
		})
	}
	waitPending(t, f, 1)
	clk.advance(10 * time.Minute)
	cancel()
	wg.Wait()
	if v, err := f.Health(t.Context()); err != nil || v == 0 {
		t.Errorf("health is %d, %v", v, err)
	}

	// The probe gives up in the end; the next one goes on counting.
	clk.advance(time.Hour)
	waitFor(t, func() bool { f.lock.mu.Lock(); defer f.lock.mu.Unlock(); return f.lock.flight == nil })
	again, cancelAgain := context.WithCancel(t.Context())
	result := make(chan time.Duration, 1)
	go func() {
		waited, err := f.ProbeWriter(again)
		wantClass(t, err, Canceled)
		result <- waited
	}()
	waitPending(t, f, 1)
	cancelAgain()
	if waited := <-result; waited < 70*time.Minute {
		t.Errorf("the second probe says it waited for %s only", waited)
	}

	release()
	waitFor(t, func() bool { f.lock.mu.Lock(); defer f.lock.mu.Unlock(); return f.lock.flight == nil })
	if waited, err := f.ProbeWriter(t.Context()); err != nil || waited >= 10*time.Minute {
		t.Errorf("with the lock free the probe says %s, %v", waited, err)
	}
	if len(commits) != 2 {
		t.Errorf("%d commits, want one for each of the two probes that got the lock", len(commits))
	}
}

// childIncrement adds to a counter from several goroutines, without repeats:
// a busy error would reach the caller.
func childIncrement(args []string) error {
	ctx := context.Background()
	f, err := Open(ctx, Options{Path: args[0], Synchronous: "normal"})
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			for range n {
				if _, err := f.Write(ctx, batch(Exec("UPDATE t SET v = v + 1 WHERE k = 1"))); err != nil {
					errs[i] = err
					return
				}
				if _, err := f.Read(ctx, Query("SELECT v FROM t")); err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(append(errs, f.Close(ctx))...)
}

func TestTwoProcessesOfManyWritersLoseNoUpdate(t *testing.T) {
	t.Parallel()
	f := setup(t)
	mustWrite(t, f, Exec("INSERT INTO t(k, v) VALUES (1, 0)"))
	cmds := make([]*exec.Cmd, 2)
	out := make([]bytes.Buffer, len(cmds))
	for i := range cmds {
		cmds[i] = Child(t, nil, "increment", f.opt.Path, "100")
		cmds[i].Stderr = &out[i]
		if err := cmds[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 {
		mustWrite(t, f, Exec("UPDATE t SET v = v + 1 WHERE k = 1"))
	}
	for i, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, &out[i])
		}
	}
	if n := readInt(t, f, "SELECT v FROM t"); n != 2*8*100+100 {
		t.Errorf("the counter is %d, want %d", n, 2*8*100+100)
	}
}

func TestWatchTellsOfAnotherHandlesCommit(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	f, other := open(t, Options{Path: path}), open(t, Options{Path: path, Synchronous: "normal"})
	signal := f.Watch(t.Context())
	if signal == nil {
		t.Skip("folders cannot be watched here")
	}
	mustWrite(t, other, Exec("CREATE TABLE news (k INTEGER) STRICT"))
	<-signal
}

// A process that writes much is not woken by every page it writes: after a
// signal the watch rests, and what was written meanwhile is met then.
func TestWatchRestsAfterASignal(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	over := make(chan time.Time)
	f := open(t, Options{Path: path, System: resting{over: over}})
	other := open(t, Options{Path: path, Synchronous: "normal"})
	signal := f.Watch(t.Context())
	if signal == nil {
		t.Skip("folders cannot be watched here")
	}
	mustWrite(t, other, Exec("CREATE TABLE news (k INTEGER) STRICT"))
	<-signal
	for range 10 {
		mustWrite(t, other, Exec("INSERT INTO news VALUES (1)"))
	}
	select {
	case <-signal:
		t.Error("a signal while the watch rests")
	default:
	}
	close(over)
	<-signal
}

// resting is a system whose watch rests until told otherwise.
type resting struct {
	system.Real

	over chan time.Time
}

func (s resting) NewTimer(d time.Duration) system.Timer {
	if d == watchRest {
		return &handTimer{c: s.over}
	}
	return s.Real.NewTimer(d)
}
