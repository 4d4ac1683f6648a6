package job

import (
	"errors"
	"time"
)

// A handler answers by what it returns. nil completes the job. An error is a
// failed attempt, tried again after the type's backoff until max_attempts is
// reached; one that says that the database is away, busy or full is tried again
// and spends no attempt. The wrappers below say otherwise.

type fatalError struct{ err error }

func (e *fatalError) Error() string { return e.err.Error() }
func (e *fatalError) Unwrap() error { return e.err }

// Fatal fails the job at once: trying again would not help.
func Fatal(err error) error { return &fatalError{err} }

// IsFatal says whether err was made by Fatal.
func IsFatal(err error) bool {
	var f *fatalError
	return errors.As(err, &f)
}

type snoozeError struct{ d time.Duration }

func (e *snoozeError) Error() string { return "snoozed for " + e.d.String() }

// Snooze puts the job back for d and spends no attempt.
func Snooze(d time.Duration) error { return &snoozeError{max(d, 0)} }

// SnoozeOf returns the duration of a Snooze.
func SnoozeOf(err error) (time.Duration, bool) {
	if err == nil {
		return 0, false // without the allocation
	}
	var s *snoozeError
	if errors.As(err, &s) {
		return s.d, true
	}
	return 0, false
}

type retryError struct {
	d   time.Duration
	err error
}

func (e *retryError) Error() string { return e.err.Error() }
func (e *retryError) Unwrap() error { return e.err }

// RetryAfter is a failed attempt that is tried again after d, whatever the
// type's backoff.
func RetryAfter(d time.Duration, err error) error { return &retryError{max(d, 0), err} }

// RetryAfterOf returns the duration of a RetryAfter.
func RetryAfterOf(err error) (time.Duration, bool) {
	var r *retryError
	if errors.As(err, &r) {
		return r.d, true
	}
	return 0, false
}
