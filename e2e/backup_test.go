package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/libsql/sqldtest"
)

// A backup that is taken while clients store and runners work holds every job
// that was acknowledged before it began; restored elsewhere it is sound, and
// runners do what is left on it. What was done after the backup is done again.
func TestABackupUnderLoadLosesNothing(t *testing.T) {
	t.Parallel()
	t.Run("file", func(t *testing.T) {
		t.Parallel()
		backUpUnderLoad(t, newSystem(t, backupEnv...), func(place *system) string { return filepath.Join(place.dir, "postroom.db") })
	})
	t.Run("server", func(t *testing.T) {
		t.Parallel()
		backUpUnderLoad(t, newSystemOnServer(t, backupEnv...), func(place *system) string {
			return filepath.Join(place.dir, "sqld", "data", "dbs", "default", "data") // where a server has its database
		})
	})
}

var backupEnv = []string{"QUEUE_DEBUG_JOBS=true", "QUEUE_CONCURRENCY=10", "QUEUE_LEASE=1s"}

func backUpUnderLoad(t *testing.T, s *system, file func(*system) string) {
	api := s.server()
	db := s.open()
	s.runner()
	s.runner()
	quit, ended := make(chan struct{}), make(chan struct{})
	acknowledged := make(chan []string)
	go func() { // a client that stores without a pause
		defer close(ended)
		var ids []string
		for {
			list := append(jobs(20, "debug.echo", func(i int) any { return i }), jobs(5, "debug.sleep", func(int) any { return map[string]int{"ms": 200} })...)
			api.enqueue(list)
			for _, j := range list {
				ids = append(ids, j.ID)
			}
			select {
			case <-quit:
				return
			case acknowledged <- slices.Clone(ids):
			default:
			}
		}
	}()
	s.until("work is under way", func() bool { return s.inState(db, "completed") > 100 })
	before := <-acknowledged // each of them, before the backup begins
	backup := filepath.Join(t.TempDir(), "backup.db")
	out, err := s.tool("queuerunner", "backup", backup)
	if err != nil {
		t.Fatalf("backup: %v\n%s", err, out)
	}
	close(quit)
	<-ended

	place := newSystem(t, backupEnv...)
	if out, err := place.tool("queuerunner", "restore", "-set", "paths.database="+file(place), backup); err != nil {
		t.Fatalf("restore: %v\n%s", err, out)
	}
	if s.sqld != nil {
		place.on(sqldtest.StartIn(t, filepath.Join(place.dir, "sqld")))
	}
	restored := place.open()
	stored := map[string]bool{}
	for _, r := range place.rows(restored, "SELECT CAST(id AS BLOB) FROM jobs WHERE type LIKE 'debug.%'") {
		stored[r.Str(0)] = true
	}
	missing := 0
	for _, id := range before {
		if !stored[id] {
			missing++
		}
	}
	if missing > 0 {
		t.Errorf("%d of %d jobs that were acknowledged before the backup are not in it", missing, len(before))
	}
	t.Logf("%d jobs acknowledged before the backup, %d in it: %d queued, %d running, %d completed; %d in the end", len(before), len(stored),
		place.inState(restored, "queued"), place.inState(restored, "running"), place.inState(restored, "completed"), s.count(db, "SELECT count(*) FROM jobs"))
	if out, err := place.tool("queuerunner", "verify"); err != nil {
		t.Errorf("verify: %v\n%s", err, out)
	}
	epoch := func(s *system, db libsql.DB) string {
		return s.rows(db, "SELECT CAST(value AS BLOB) FROM meta WHERE key = 'epoch'")[0].Str(0)
	}
	place.runner()
	place.allCompleted(restored, len(stored))
	place.exactlyOnce(restored, len(stored))
	if epoch(s, db) == epoch(place, restored) {
		t.Error("what was restored goes on in the old epoch")
	}
	if _, err := os.Stat(backup); err != nil {
		t.Errorf("the backup is gone: %v", err)
	}
}
