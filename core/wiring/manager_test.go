package wiring

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// supervisor is the socket of a service manager.
func supervisor(t *testing.T) (path string, next func() string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "m") //nolint:usetesting // the path of t.TempDir may be too long
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = conn.Close(), os.RemoveAll(dir) })
	return path, func() string {
		t.Helper()
		_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second)) // it is open
		buf := make([]byte, 1<<10)
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

func environment(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

func TestManager(t *testing.T) {
	t.Parallel()

	t.Run("hears how the service is", func(t *testing.T) {
		t.Parallel()
		path, next := supervisor(t)
		m := NewManager(environment("NOTIFY_SOCKET", path), zerolog.Nop())
		m.Waiting("the database")
		m.Ready()
		m.Stopping()
		for _, want := range []string{"STATUS=waiting for the database", "READY=1\nSTATUS=at work", "STOPPING=1\nSTATUS=draining"} {
			if got := next(); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
	})

	t.Run("is told that the service is alive, and nothing while it is not", func(t *testing.T) {
		t.Parallel()
		path, next := supervisor(t)
		var log strings.Builder
		m := NewManager(environment("NOTIFY_SOCKET", path, "WATCHDOG_USEC", "20000", "WATCHDOG_PID", strconv.Itoa(os.Getpid())), zerolog.New(&log))
		ctx, cancel := context.WithCancel(t.Context())
		asked := 0
		m.Watch(ctx, func(ctx context.Context) error {
			switch asked++; asked {
			case 2:
				return errors.New("no answer")
			case 3:
				<-ctx.Done() // hangs
				return ctx.Err()
			case 5:
				m.say("the end")
				cancel()
				return ctx.Err()
			}
			return nil
		})
		for _, want := range []string{"WATCHDOG=1", "WATCHDOG=1", "the end"} { // of the first and the fourth time
			if got := next(); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
		if n := strings.Count(log.String(), "does not answer itself"); n != 2 {
			t.Errorf("%d words about it: %s", n, &log)
		}
	})

	for name, lookup := range map[string]func(string) (string, bool){
		"there is none":                     environment(),
		"it wants no watchdog":              environment("NOTIFY_SOCKET", "/nowhere"),
		"it watches another process":        environment("NOTIFY_SOCKET", "/nowhere", "WATCHDOG_USEC", "20000", "WATCHDOG_PID", "1"),
		"it grants what is no time":         environment("NOTIFY_SOCKET", "/nowhere", "WATCHDOG_USEC", "-1"),
		"it grants what is not even number": environment("NOTIFY_SOCKET", "/nowhere", "WATCHDOG_USEC", "soon"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			NewManager(lookup, zerolog.Nop()).Watch(t.Context(), func(context.Context) error {
				t.Error("it was watched")
				return nil
			})
		})
	}

	t.Run("a socket that is gone is a warning", func(t *testing.T) {
		t.Parallel()
		var log strings.Builder
		NewManager(environment("NOTIFY_SOCKET", "/nowhere/s"), zerolog.New(&log)).Ready()
		if !strings.Contains(log.String(), "was not told") {
			t.Error(log.String())
		}
	})
}
