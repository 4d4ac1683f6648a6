// Package exampletest lets examples, which have no testing.TB, show what takes
// one. It imports the standard library only.
package exampletest

import (
	"context"
	"fmt"
	"os"
	"testing"
)

// TB stands in an example for the *testing.T of a test.
type TB struct {
	testing.TB
	cleanups []func()
}

// New returns a TB; the example calls Done when it is over.
func New() *TB { return &TB{} }

// Done does what the end of a test does.
func (t *TB) Done() {
	for i := len(t.cleanups) - 1; i >= 0; i-- {
		t.cleanups[i]()
	}
}

// Helper implements [testing.TB].
func (t *TB) Helper() {}

// Cleanup implements [testing.TB].
func (t *TB) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }

// Context implements [testing.TB].
func (t *TB) Context() context.Context { return context.Background() }

// TempDir implements [testing.TB].
func (t *TB) TempDir() string {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Logf implements [testing.TB]: an example's output is for its reader.
func (t *TB) Logf(string, ...any) {}

// Log implements [testing.TB].
func (t *TB) Log(...any) {}

// Errorf implements [testing.TB].
func (t *TB) Errorf(format string, args ...any) {
	_, _ = fmt.Fprintf(os.Stdout, format+"\n", args...) // which its expected output then lacks
}

// Fatalf implements [testing.TB].
func (t *TB) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
