package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/queue"
)

func TestARunnerWorksAndStops(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	id := db.enqueue(job.DebugEcho, `{"a":1}`)
	p := startRunner(t, db.path)
	if j := db.await(id, job.Completed); string(j.Result) != `{"a":1}` || j.Attempts != 1 {
		t.Errorf("job %+v", j)
	}
	p.signal(syscall.SIGINT)
	if code := p.exit(); code != exitFine {
		t.Errorf("exit %d", code)
	}
	if runners, err := db.q.Runners(t.Context()); err != nil || len(runners) != 0 {
		t.Errorf("runners left behind: %v %v", runners, err)
	}
}

func TestSIGTERM(t *testing.T) {
	t.Parallel()

	t.Run("lets a job end that needs no longer than the drain timeout", func(t *testing.T) {
		t.Parallel()
		db := newDatabase(t)
		id := db.enqueue(job.DebugSleep, `{"ms":700}`)
		p := startRunner(t, db.path)
		db.await(id, job.Running)
		p.signal(syscall.SIGTERM)
		if code := p.exit(); code != exitFine {
			t.Errorf("exit %d", code)
		}
		if j := db.job(id); j.State != job.Completed || j.Attempts != 1 {
			t.Errorf("job is %s with %d attempts", j.State, j.Attempts)
		}
	})

	for _, typ := range []string{job.DebugSleep, job.DebugSpin} {
		t.Run("hands "+typ+" back unspent when the drain timeout ends", func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			id := db.enqueue(typ, `{"ms":600000}`)
			p := startRunner(t, db.path, "queue.drain_timeout=5s")
			db.await(id, job.Running)
			p.signal(syscall.SIGTERM)
			if code := p.exit(); code != exitFine {
				t.Errorf("exit %d", code)
			}
			j := db.job(id)
			if j.State != job.Queued || j.Attempts != 0 || j.Failures != 0 || j.Crashes != 0 || j.ClaimedBy != nil {
				t.Errorf("job %+v", j.Job)
			}
			if !slices.Equal(outcomes(j), []string{"handed_back"}) {
				t.Errorf("outcomes %v", outcomes(j))
			}
		})
	}

	t.Run("twice cuts the waiting short", func(t *testing.T) {
		t.Parallel()
		db := newDatabase(t)
		id := db.enqueue(job.DebugSleep, `{"ms":600000}`)
		p := startRunner(t, db.path, "queue.drain_timeout=1h")
		db.await(id, job.Running)
		p.signal(syscall.SIGTERM)
		await(t, "the runner drains", func() bool { return len(p.logged("draining")) == 1 })
		p.signal(syscall.SIGTERM)
		if code := p.exit(); code != exitFine {
			t.Errorf("exit %d", code)
		}
		if j := db.job(id); j.State != job.Queued || j.Attempts != 0 {
			t.Errorf("job is %s with %d attempts", j.State, j.Attempts)
		}
	})
}

func TestARunnerThatDies(t *testing.T) {
	t.Parallel()

	t.Run("by its own job is replaced by another", func(t *testing.T) {
		t.Parallel()
		db := newDatabase(t)
		id := db.enqueue(job.DebugExit, `{}`)
		p := startRunner(t, db.path, "queue.lease=1s")
		if code := p.exit(); code != 99 {
			t.Fatalf("exit %d", code)
		}
		if j := db.job(id); j.State != job.Running {
			t.Fatalf("job is %s", j.State)
		}
		startRunner(t, db.path, "queue.lease=1s")
		var j *queue.Detail
		await(t, "the job is rescued", func() bool { j = db.job(id); return j.Crashes > 0 })
		if outcomes(j)[0] != "rescued" {
			t.Errorf("outcomes %v", outcomes(j))
		}
	})

	t.Run("of kill -9 loses no job", func(t *testing.T) {
		t.Parallel()
		db := newDatabase(t)
		id := db.enqueue(job.DebugSleep, `{"ms":600000}`)
		p := startRunner(t, db.path, "queue.lease=1s", "queue.concurrency=1")
		db.await(id, job.Running)
		waiting := db.enqueue(job.DebugEcho, `1`)
		p.signal(syscall.SIGKILL)
		if code := p.exit(); code != -1 {
			t.Fatalf("exit %d", code)
		}
		startRunner(t, db.path, "queue.lease=1s")
		db.await(waiting, job.Completed)
		await(t, "the job runs again", func() bool {
			j := db.job(id)
			return j.State == job.Running && j.Attempts >= 2 && j.Crashes >= 1
		})
	})
}

func TestTwoRunnersShareOneFile(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	list := make([]job.New, 300)
	for i := range list {
		list[i] = job.New{Type: job.DebugEcho, Payload: job.Payload(i)}
	}
	runners := []*process{startRunner(t, db.path), startRunner(t, db.path)}
	for _, p := range runners {
		await(t, "the runner works", func() bool { return len(p.logged("queuerunner works")) == 1 })
	}
	ids := make([]string, 0, len(list))
	for part := range slices.Chunk(list, 10) { // many commits, so that both find something
		enqueued, err := db.q.EnqueueMany(t.Context(), part)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range enqueued {
			ids = append(ids, e.ID)
		}
	}
	for _, id := range ids {
		if j := db.await(id, job.Completed); j.Attempts != 1 || len(j.Runs) != 1 {
			t.Errorf("job %s: %d attempts, runs %+v", id, j.Attempts, j.Runs)
		}
	}
	for _, p := range runners {
		p.signal(syscall.SIGTERM)
		if code := p.exit(); code != exitFine {
			t.Errorf("exit %d", code)
		}
		if strings.Contains(p.log.String(), "locked") {
			t.Error("the log speaks of a lock")
		}
	}
}

func TestDebugJobsAreOffByDefault(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	id := db.enqueue(job.DebugEcho, `1`)
	p := startRunner(t, db.path, "queue.debug_jobs=false", "queue.poll=20ms")
	warned := func(typ string) (n int) {
		for _, line := range p.logged("jobs of a type that no runner knows are waiting") {
			if line["job_type"] == typ {
				n++
			}
		}
		return n
	}
	await(t, "a warning", func() bool { return warned(job.DebugEcho) > 0 })
	// Another type's warning shows that the runner has looked again since.
	db.enqueue("nobody.knows", `1`)
	await(t, "a second warning", func() bool { return warned("nobody.knows") > 0 })
	if n := warned(job.DebugEcho); n != 1 {
		t.Errorf("%d warnings", n)
	}
	if j := db.job(id); j.State != job.Queued || j.Attempts != 0 {
		t.Errorf("job is %s with %d attempts", j.State, j.Attempts)
	}
}

func TestTheDatabaseAtStart(t *testing.T) {
	t.Parallel()

	t.Run("is created when it is missing", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "a", "b", "postroom.db")
		p := startRunner(t, path)
		await(t, "the runner works", func() bool { return len(p.logged("queuerunner works")) == 1 })
		db := openDatabase(t, path)
		db.await(db.enqueue(job.DebugEcho, `1`), job.Completed)
	})

	t.Run("is waited for when it is away", func(t *testing.T) {
		t.Parallel()
		folder := filepath.Join(t.TempDir(), "not-mounted")
		if err := os.WriteFile(folder, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		p := startRunner(t, filepath.Join(folder, "postroom.db"))
		await(t, "a word about it", func() bool {
			return len(p.logged("the database does not answer; trying again")) == 1
		})
		if err := os.Remove(folder); err != nil {
			t.Fatal(err)
		}
		await(t, "the runner works", func() bool { return len(p.logged("queuerunner works")) == 1 })
		if n := len(p.logged("the database answers again")); n != 1 {
			t.Errorf("%d words about its return", n)
		}
	})

	t.Run("ends no runner's patience, but SIGTERM does", func(t *testing.T) {
		t.Parallel()
		folder := filepath.Join(t.TempDir(), "not-mounted")
		if err := os.WriteFile(folder, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		p := startRunner(t, filepath.Join(folder, "postroom.db"))
		await(t, "a word about it", func() bool {
			return len(p.logged("the database does not answer; trying again")) == 1
		})
		p.signal(syscall.SIGTERM)
		if code := p.exit(); code != exitFine {
			t.Errorf("exit %d", code)
		}
	})

	t.Run("is not migrated when that is turned off", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "postroom.db")
		for _, want := range []string{"there is no database", "and this program needs"} {
			p := startRunner(t, path, "database.auto_migrate=false")
			if code := p.exit(); code != exitFailed {
				t.Errorf("exit %d", code)
			}
			lines := p.logged("queuerunner gives up")
			if len(lines) != 1 || !strings.Contains(fmt.Sprint(lines[0]["error"]), want) ||
				!strings.Contains(fmt.Sprint(lines[0]["error"]), "`queuerunner migrate up`") {
				t.Errorf("log %v, want %q", lines, want)
			}
			fine(t, path, "migrate", "up")
			fine(t, path, "migrate", "down", "1")
		}
	})
}

func TestADatabaseThatNoWaitingMends(t *testing.T) {
	t.Parallel()

	t.Run("of a newer version", func(t *testing.T) {
		t.Parallel()
		db := newDatabase(t)
		var b libsql.Batch
		b.Exec("UPDATE meta SET value = '1000' WHERE key = 'min_compatible'")
		if _, err := db.q.DB().Write(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		for _, auto := range []string{"true", "false"} {
			p := startRunner(t, db.path, "database.auto_migrate="+auto)
			if code := p.exit(); code != exitFailed || !strings.Contains(p.log.String(), "upgrade this program") {
				t.Errorf("exit %d", code)
			}
		}
	})

	t.Run("that is no database", func(t *testing.T) {
		t.Parallel()
		p := startRunner(t, write(t, "postroom.db", strings.Repeat("no database ", 1000)))
		if code := p.exit(); code != exitFailed || len(p.logged("queuerunner gives up")) != 1 {
			t.Errorf("exit %d", code)
		}
	})
}

func TestMailGoesThroughTheRunner(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	folder := filepath.Join(t.TempDir(), "Maildir")
	fine(t, db.path, "accounts", "add", "-email", "me@example.com", "-path", folder)
	deliver := func(unique, subject string) {
		t.Helper()
		text := "From: a@example.com\r\nSubject: " + subject + "\r\n\r\nHi.\r\n"
		if err := os.WriteFile(filepath.Join(folder, "new", unique), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	decided := func(n int) (list []mail.Message) {
		t.Helper()
		await(t, "the message is decided", func() bool {
			var err error
			if list, _, err = db.mail.Messages(t.Context(), mail.MessageFilter{}, mail.PageOf{Limit: 10}); err != nil {
				t.Fatal(err)
			}
			return len(list) == n && list[0].Decision != nil
		})
		return list
	}

	p := startRunner(t, db.path, "mail.sync_interval=24h")
	await(t, "the folder is made", func() bool {
		_, err := os.Stat(filepath.Join(folder, "new"))
		return err == nil
	})
	deliver("1700000000.1_1.host", "Hello")
	if m := decided(1)[0]; *m.Subject != "Hello" || m.Decision.ActionType != "none" {
		t.Errorf("message %+v", m)
	}
	await(t, "the account rests", func() bool {
		page, err := db.q.List(t.Context(), queue.Filter{Type: job.AccountSync}, 1, 0)
		if err != nil {
			t.Fatal(err)
		}
		return page.Jobs[0].State == job.Queued && page.Jobs[0].NotBefore != nil
	})
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != exitFine {
		t.Errorf("exit %d", code)
	}

	// It came while nobody watched: the start wakes the account.
	deliver("1700000001.1_1.host", "Again")
	startRunner(t, db.path, "mail.sync_interval=24h")
	if m := decided(2)[0]; *m.Subject != "Again" {
		t.Errorf("message %+v", m)
	}
}
