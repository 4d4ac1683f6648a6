package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
)

func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	done := db.enqueue(job.DebugEcho, `1`)
	startRunner(t, db.path) // which goes on meanwhile
	db.await(done, job.Completed)
	waiting := db.enqueue("a.type", `1`)

	dir := t.TempDir()
	file := filepath.Join(dir, "backup.db")
	out := decode[backedUp](t, fine(t, db.path, "backup", file, "-json"))
	if info, err := os.Stat(file); err != nil || out.File != file || out.Bytes != info.Size() || out.Schema == 0 || out.Verified == nil || !*out.Verified {
		t.Errorf("%+v (%v)", out, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("beside the backup there are %v (%v)", entries, err)
	}
	if r := cli(t, db.path, "backup", file); r.code != exitFailed || !strings.Contains(r.err, "exists already") {
		t.Errorf("%+v", r)
	}

	place := filepath.Join(t.TempDir(), "restored", "postroom.db")
	if out := fine(t, place, "restore", file); !strings.HasPrefix(out, place+": ") {
		t.Error(out)
	}
	if out := fine(t, place, "verify"); !strings.HasPrefix(out, "2 jobs, ") || !strings.Contains(out, "no violation") {
		t.Error(out)
	}
	if out := fine(t, place, "jobs", "show", waiting); !strings.Contains(out, "queued") {
		t.Error(out)
	}

	t.Run("a database that is there is set aside, and said", func(t *testing.T) {
		t.Parallel()
		other := none(t)
		fine(t, other, "restore", file)
		if r := cli(t, other, "restore", file); r.code != exitFailed || !strings.Contains(r.err, "-replace") {
			t.Errorf("%+v", r)
		}
		r := cli(t, other, "restore", "-replace", "-json", file)
		aside := decode[backedUp](t, r.out).SetAside
		if r.code != exitFine || aside == "" || !strings.Contains(r.err, aside+" now") {
			t.Errorf("%+v", r)
		}
		if _, err := os.Stat(aside); err != nil {
			t.Error(err)
		}
	})

	t.Run("a terminal shows how far it is", func(t *testing.T) {
		t.Parallel()
		terminal, screen := openTerminal(t)
		var out bytes.Buffer
		lookup := func(name string) (string, bool) {
			if name == "PATHS_DATABASE" {
				return db.path, true
			}
			return "", false
		}
		if code := run(t.Context(), []string{"backup", filepath.Join(t.TempDir(), "b.db")}, lookup, strings.NewReader(""), &out, terminal); code != exitFine {
			t.Errorf("exit %d", code)
		}
		if err := terminal.Close(); err != nil {
			t.Fatal(err)
		}
		if got := <-screen; !strings.Contains(got, "\r[##############################] ") || !strings.Contains(got, " copied\x1b[K") {
			t.Errorf("the screen got %q", got)
		}
	})
}

func TestABackupOfABrokenDatabaseIsRefused(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	var b libsql.Batch
	b.Exec("INSERT INTO job_run_rows(job_id, run, runner, outcome, started_at, finished_at, created_at) VALUES ('gone', 1, 'r', 'failed', 1, 1, 1)")
	if _, err := db.q.DB().Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "backup.db")
	r := cli(t, db.path, "backup", file)
	if r.code != exitFailed || !strings.Contains(r.out, "every run has its job: gone") || !strings.Contains(r.err, "-verify=false") {
		t.Errorf("%+v", r)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("there are %v (%v)", entries, err)
	}
	if out := fine(t, db.path, "backup", "-verify=false", file); !strings.Contains(out, "not verified") {
		t.Error(out)
	}
}
