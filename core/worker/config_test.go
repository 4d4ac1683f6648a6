package worker

import (
	"testing"
	"time"

	"github.com/postroom/postroom/core/config"
	"github.com/postroom/postroom/core/system"
)

// What an embedder leaves out is what the services have.
func TestTheDefaultsAreThoseOfTheConfiguration(t *testing.T) {
	t.Parallel()
	want := config.Default().Queue
	var got Config
	got.fill(system.Real{})
	if got.Concurrency != want.Concurrency || got.Lease != want.Lease.Duration || got.Heartbeat != want.Lease.Duration/3 ||
		got.Poll != want.Poll.Duration || got.DrainTimeout != want.DrainTimeout.Duration {
		t.Errorf("defaults %+v, want %+v", got, want)
	}
	if got.Runner.ID == "" || got.Runner.PID == 0 {
		t.Errorf("the runner describes itself as %+v", got.Runner)
	}
	got.Heartbeat, got.DrainTimeout = time.Second, -1
	set := got
	if got.fill(system.Real{}); got.Heartbeat != set.Heartbeat || got.DrainTimeout != set.DrainTimeout || got.Runner.ID != set.Runner.ID {
		t.Errorf("what was set became %+v", got)
	}
}
