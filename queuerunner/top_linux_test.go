package main

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
)

func TestTopWithoutATerminal(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.enqueue(job.DebugSleep, `{"ms":600000}`)
	waiting := db.enqueue("nobody.knows", `null`)
	startRunner(t, db.path)
	db.await(waiting, job.Queued)
	await(t, "the job is held", func() bool { held, err := db.q.Held(t.Context()); return err == nil && len(held) == 1 })
	if err := db.q.Pause(t.Context(), job.DefaultQueue); err != nil {
		t.Fatal(err)
	}
	var v struct {
		PerSecond map[string]float64 `json:"per_second"`
		Queues    []queue.Depth
		Runners   []struct {
			ID                   string
			Concurrency, Running int64
		}
	}
	if err := json.Unmarshal([]byte(fine(t, db.path, "top", "-json", "-every", "200ms")), &v); err != nil {
		t.Fatal(err)
	}
	if len(v.PerSecond) != 5 || len(v.Queues) != 1 || v.Queues[0].Depth[job.Running] != 1 || len(v.Runners) != 1 || v.Runners[0].Running != 1 || v.Runners[0].Concurrency != 10 {
		t.Errorf("%+v", v)
	}
	out := fine(t, db.path, "top", "-every", "200ms")
	for _, want := range []string{"0.0 completed", "default (paused)", v.Runners[0].ID, "s ago", "OLDEST WAITING"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Errorf("escape sequences for a pipe: %q", out)
	}
	if r := cli(t, db.path, "top", "-every", "1ms"); r.code != exitWrong || !strings.Contains(r.err, "between 200ms and 1m") {
		t.Errorf("%+v", r)
	}
}

// On a terminal it goes on until a key ends it, follows the window's size, and
// leaves the terminal as it found it.
func TestTopOnATerminal(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]string{"q": "q", "ctrl-c": "\x03"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			lookup := func(name string) (string, bool) {
				if name == "PATHS_DATABASE" {
					return db.path, true
				}
				return "", false
			}
			terminal := openLive(t)
			terminal.resize(t, 12, 100)
			before := terminal.modes(t)
			done := make(chan int, 1)
			go func() {
				done <- run(context.Background(), []string{"top", "-every", "200ms"}, lookup, terminal.program, terminal.program, terminal.program)
			}()
			terminal.await(t, "every 200ms; q ends")
			terminal.await(t, "completed")
			db.enqueue("nobody.knows", `null`) // appears by itself
			terminal.await(t, "default")
			terminal.resize(t, 12, 20)
			terminal.await(t, "a second: 0.0 queue…")
			if _, err := terminal.master.WriteString(end); err != nil {
				t.Fatal(err)
			}
			if code := <-done; code != exitFine {
				t.Errorf("exit code %d", code)
			}
			terminal.await(t, leavePage)
			if after := terminal.modes(t); after != before {
				t.Errorf("the terminal is left in another state: %+v, was %+v", after, before)
			}
		})
	}
}

// live is a terminal with a person at it.
type live struct {
	master, program *os.File
	out             chan string
	seen            strings.Builder
}

func openLive(t *testing.T) *live {
	t.Helper()
	l := &live{out: make(chan string, 1024)}
	l.master, l.program = openPTY(t)
	go func() {
		defer close(l.out)
		buf := make([]byte, 4096)
		for {
			n, err := l.master.Read(buf)
			if err != nil {
				return
			}
			l.out <- string(buf[:n])
		}
	}()
	t.Cleanup(func() {
		_, _ = l.master.WriteString("q\n") // for a program that still waits for a key
		_ = l.program.Close()
		for range l.out {
		}
		_ = l.master.Close()
	})
	return l
}

// await waits until a text has been written since the last one.
func (l *live) await(t *testing.T, text string) {
	t.Helper()
	limit := time.After(time.Minute)
	for {
		if _, rest, found := strings.Cut(l.seen.String(), text); found {
			l.seen.Reset()
			l.seen.WriteString(rest)
			return
		}
		select {
		case s := <-l.out:
			l.seen.WriteString(s)
		case <-limit:
			t.Fatalf("no %q in %q", text, l.seen.String())
		}
	}
}

func (l *live) resize(t *testing.T, rows, columns uint16) {
	t.Helper()
	size := [4]uint16{rows, columns}
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, l.program.Fd(), syscall.TIOCSWINSZ, uintptr(unsafe.Pointer(&size))); errno != 0 {
		t.Fatal(errno)
	}
	// Who has the terminal as its own is told by the system; this program has not.
	if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil {
		t.Fatal(err)
	}
}

func (l *live) modes(t *testing.T) (m syscall.Termios) {
	t.Helper()
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, l.program.Fd(), syscall.TCGETS, uintptr(unsafe.Pointer(&m))); errno != 0 {
		t.Fatal(errno)
	}
	return m
}
