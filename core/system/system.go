// Package system is the one door through which queue, writer and worker reach
// time, timers, randomness and goroutine starts. Production uses Real; a
// simulator supplies its own and so decides what happens when. Beside that are
// the signals and the memory of a service's process. It imports the standard
// library only.
package system

import (
	"crypto/rand"
	"time"
)

// System supplies the effects that would make a run differ from the last one.
type System interface {
	// Now returns the local time with its monotonic reading. It measures
	// durations and local deadlines; due times and leases are judged by the
	// database's clock, never by this one.
	Now() time.Time
	// NewTimer returns a timer that fires once after d.
	NewTimer(d time.Duration) Timer
	// Read fills p with random bytes and never fails (crypto/rand's contract).
	Read(p []byte)
	// Go starts fn on a goroutine of its own; name says what it is in traces
	// of a simulation.
	Go(name string, fn func())
}

// Timer is the part of time.Timer that is used.
type Timer interface {
	C() <-chan time.Time
	Reset(d time.Duration)
	Stop()
}

// Real is the operating system's clock, randomness and goroutines.
type Real struct{}

// Now returns time.Now.
func (Real) Now() time.Time { return time.Now() }

// NewTimer wraps time.NewTimer.
func (Real) NewTimer(d time.Duration) Timer { return realTimer{time.NewTimer(d)} }

// Read fills p from crypto/rand.
func (Real) Read(p []byte) { _, _ = rand.Read(p) }

// Go starts a goroutine.
func (Real) Go(_ string, fn func()) { go fn() }

type realTimer struct{ t *time.Timer }

func (r realTimer) C() <-chan time.Time   { return r.t.C }
func (r realTimer) Reset(d time.Duration) { r.t.Reset(d) }
func (r realTimer) Stop()                 { r.t.Stop() }

// Skew returns s with a clock that is off by offset: a machine whose clock is
// wrong, for rehearsals.
func Skew(s System, offset time.Duration) System {
	if offset == 0 {
		return s
	}
	return skewed{s, offset}
}

type skewed struct {
	System
	offset time.Duration
}

func (s skewed) Now() time.Time { return s.System.Now().Add(s.offset) }
