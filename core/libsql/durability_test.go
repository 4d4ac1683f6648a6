package libsql_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
)

const enqueues = 100

// childEnqueue stores jobs one after another in the database args[0], as
// durably as args[1] says.
func childEnqueue(args []string) error {
	ctx := context.Background()
	db, err := libsql.Open(ctx, libsql.Options{Path: args[0], Synchronous: args[1]})
	if err != nil {
		return err
	}
	q := queue.New(db, system.Real{}, job.Known())
	for range enqueues {
		if _, err := q.Enqueue(ctx, job.New{Type: "test.durable"}); err != nil {
			return err
		}
	}
	return nil // and no Close: its checkpoint would add syncs of its own
}

func TestEveryEnqueueIsOnDiskBeforeItReturns(t *testing.T) {
	t.Parallel()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed: whether a commit reaches the disk was not checked")
	}
	full, normal := countSyncs(t, strace, "full"), countSyncs(t, strace, "normal")
	if full < enqueues {
		t.Errorf("%d syncs for %d enqueues with synchronous=full, want at least one each", full, enqueues)
	}
	if normal >= enqueues {
		t.Errorf("%d syncs for %d enqueues with synchronous=normal: the count shows nothing", normal, enqueues)
	}
}

func countSyncs(t *testing.T, strace, synchronous string) int {
	t.Helper()
	path := dbtest.Path(t)
	summary := filepath.Join(t.TempDir(), "strace")
	cmd := libsql.Child(t, []string{strace, "-f", "-c", "-e", "trace=fsync,fdatasync", "-o", summary}, "enqueue", path, synchronous)
	if out, err := cmd.CombinedOutput(); err != nil {
		if strings.Contains(string(out), "ptrace") {
			t.Skipf("strace may not trace here: %s", out)
		}
		t.Fatalf("%v: %s", err, out)
	}
	return sumCalls(t, summary)
}

// summaryLine is a line of strace -c: % time, seconds, usecs/call, calls,
// perhaps errors, name.
var summaryLine = regexp.MustCompile(`^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?f(?:data)?sync$`)

func sumCalls(t *testing.T, path string) int {
	t.Helper()
	n := 0
	for line := range strings.Lines(readFile(t, path)) {
		if m := summaryLine.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			calls, err := strconv.Atoi(m[1])
			if err != nil {
				t.Fatal(err)
			}
			n += calls
		}
	}
	return n
}
