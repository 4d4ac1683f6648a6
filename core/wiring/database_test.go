package wiring

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/system"
)

// impatient is a system whose timers have always fired.
type impatient struct {
	system.Real
	waits []time.Duration
}

func (s *impatient) NewTimer(d time.Duration) system.Timer {
	s.waits = append(s.waits, d)
	return s.Real.NewTimer(0)
}

func TestPersist(t *testing.T) {
	t.Parallel()
	away := &libsql.Error{Class: libsql.Unavailable, Op: "open"}
	busy := &libsql.Error{Class: libsql.Busy, Op: "open"}

	t.Run("says once what is wrong and waits ever longer", func(t *testing.T) {
		t.Parallel()
		var log strings.Builder
		sys := &impatient{}
		answers := []error{away, away, away, busy, busy, away, away, away, away, nil}
		calls := 0
		err := Persist(t.Context(), sys, zerolog.New(&log), "try", func() error {
			calls++
			return answers[calls-1]
		})
		if err != nil || calls != len(answers) {
			t.Errorf("%v after %d calls", err, calls)
		}
		if n := strings.Count(log.String(), "does not answer"); n != 3 {
			t.Errorf("%d words about it:\n%s", n, &log)
		}
		if n := strings.Count(log.String(), "answers again"); n != 1 {
			t.Errorf("%d words about its return", n)
		}
		if w := sys.waits; w[0] != firstWait || w[1] != 2*firstWait || w[len(w)-1] != longestWait {
			t.Errorf("waits %v", w)
		}
	})

	t.Run("gives up where trying again does not help", func(t *testing.T) {
		t.Parallel()
		for _, want := range []error{
			errors.New("anything"), libsql.ErrIncompatible,
			&libsql.Error{Class: libsql.Invalid}, &libsql.Error{Class: libsql.Corrupt},
		} {
			calls := 0
			err := Persist(t.Context(), &impatient{}, zerolog.Nop(), "try", func() error { calls++; return want })
			if !errors.Is(err, want) || calls != 1 {
				t.Errorf("%v after %d calls, want %v", err, calls, want)
			}
		}
	})

	t.Run("ends with its context", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		err := Persist(ctx, system.Real{}, zerolog.Nop(), "try", func() error { cancel(); return away })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
}
