package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/postroom/postroom/core/libsql"
)

const trashMoney = `{"name":"money","conditions":{"op":"subject_contains","value":"money"},"action_type":"trash"}`
const moveLists = `{"name":"lists","conditions":{"op":"header_match","header":"List-Id","pattern":"."},"action_type":"move","action_parameters":{"folder":"Lists"}}`

// All mail is posted while the queuerunner is killed ten times: every message
// ends stored once, decided once and acted upon, and its file is whole.
func TestKillsLoseNothingAndDoubleNothing(t *testing.T) {
	t.Parallel()
	mails := messages(t)
	s := newSystem(t)
	api := s.server()
	runner := s.runner()
	account := api.account()
	for _, rule := range []string{moveLists, trashMoney} {
		if r := api.postJSON("/v1/rules", rule); r.status != http.StatusCreated {
			t.Fatalf("rule: %d %s", r.status, r.body)
		}
	}
	db := s.open()

	var posting sync.WaitGroup
	posting.Go(func() {
		for i, raw := range mails {
			r := api.do("POST", "/v1/messages?account="+account, "message/rfc822", bytes.NewReader(raw))
			if r.status != http.StatusAccepted {
				t.Errorf("message %d: %d %s", i, r.status, r.body)
			}
		}
	})
	const kills = 10
	for n := range kills {
		// Each kill comes when a further part of the mail has been decided.
		want := int64(len(mails) * (n + 1) / (kills + 2))
		s.until("enough is decided for the next kill", func() bool { return s.count(db, "SELECT count(*) FROM decisions") >= want })
		runner.kill()
		runner = s.runner()
	}
	posting.Wait()
	s.settled(db, int64(len(mails)))

	for i, raw := range mails {
		sum := sha256.Sum256(raw)
		hash := hex.EncodeToString(sum[:])
		if n := s.count(db, "SELECT count(*) FROM messages AS m JOIN decisions AS d ON d.message_id = m.id WHERE m.content_sha256 = ?", hash); n != 1 {
			t.Errorf("message %d has %d stored decisions, want 1", i, n)
		}
	}
	files := s.files()
	if len(files) != len(mails) {
		t.Errorf("%d files in the Maildir, want %d", len(files), len(mails))
	}
	for path, raw := range files {
		sum := sha256.Sum256(raw)
		if !strings.Contains(path, hex.EncodeToString(sum[:])) {
			t.Errorf("the file %s was changed", path)
		}
	}
	if n := s.count(db, "SELECT count(*) FROM jobs WHERE state IN ('failed', 'canceled') OR state = 'running' AND type <> 'account.sync'"); n != 0 {
		t.Errorf("%d jobs failed or hang", n)
	}
	for i, raw := range mails {
		if r := api.do("POST", "/v1/messages?account="+account, "message/rfc822", bytes.NewReader(raw)); r.status != http.StatusOK || !bytes.Contains(r.body, []byte(`"duplicate":true`)) {
			t.Errorf("message %d posted again: %d %s", i, r.status, r.body)
		}
	}
	s.settled(db, int64(len(mails)))
	if again := s.files(); len(again) != len(files) {
		t.Errorf("%d files after posting again, %d before", len(again), len(files))
	}
	if code := runner.stop(); code != 0 {
		t.Errorf("the runner's exit code is %d", code)
	}
	if code := api.stop(); code != 0 {
		t.Errorf("the apiserver's exit code is %d", code)
	}
}

// settled waits until n messages are stored, decided and acted upon.
func (s *system) settled(db libsql.DB, n int64) {
	s.Helper()
	s.until("all messages are decided and acted upon", func() bool {
		return s.count(db, "SELECT count(*) FROM messages") == n && s.count(db, "SELECT count(*) FROM decisions") == n &&
			s.count(db, "SELECT count(*) FROM actions WHERE status <> 'completed'") == 0
	})
}

// open looks at the database as another process does.
func (s *system) open() libsql.DB {
	s.Helper()
	db, err := libsql.Open(s.Context(), libsql.Options{Path: s.database()})
	if err != nil {
		s.Fatal(err)
	}
	return db
}

func (s *system) count(db libsql.DB, sql string, args ...any) int64 {
	s.Helper()
	res, err := db.Read(s.Context(), libsql.Query(sql, args...))
	if err != nil {
		s.Fatal(err)
	}
	return res[0].Rows[0].Int(0)
}

// files reads all messages of the Maildir.
func (s *system) files() map[string][]byte {
	s.Helper()
	out := map[string][]byte{}
	for _, pattern := range []string{"new/*", "cur/*", ".*/new/*", ".*/cur/*"} {
		paths, err := filepath.Glob(filepath.Join(s.maildir(), pattern))
		if err != nil {
			s.Fatal(err)
		}
		for _, path := range paths {
			raw, err := os.ReadFile(path)
			if err != nil {
				s.Fatal(err)
			}
			out[path] = raw
		}
	}
	return out
}

// Two runners and two servers on one file: nothing runs twice, and nobody
// hears of a lock.
func TestFourProcessesShareOneFile(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "QUEUE_DEBUG_JOBS=true", "LOG_LEVEL=debug")
	servers := []*process{s.server(), s.server()}
	runners := []*process{s.runner(), s.runner()}
	account := servers[0].account()
	var clients sync.WaitGroup
	const each = 60
	for c := range 4 {
		clients.Go(func() {
			api := servers[c%2]
			for i := range each {
				if r := api.postJSON("/v1/jobs", fmt.Sprintf(`{"type":"debug.echo","payload":%d}`, i)); r.status != http.StatusCreated {
					t.Errorf("job: %d %s", r.status, r.body)
				}
				if r := api.do("POST", "/v1/messages?account="+account, "message/rfc822", strings.NewReader(fmt.Sprintf("Subject: %d.%d\n\nx", c, i))); r.status != http.StatusAccepted {
					t.Errorf("message: %d %s", r.status, r.body)
				}
			}
		})
	}
	clients.Wait()
	db := s.open()
	s.settled(db, 4*each)
	s.until("all jobs end", func() bool {
		return s.count(db, "SELECT count(*) FROM jobs WHERE finished_at IS NULL AND type <> 'account.sync'") == 0
	})
	if n := s.count(db, "SELECT count(*) FROM jobs WHERE type <> 'account.sync' AND (state <> 'completed' OR attempts <> 1 OR claims <> 1)"); n != 0 {
		t.Errorf("%d jobs did not run exactly once", n)
	}
	for _, p := range append(servers, runners...) {
		if code := p.stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
		if strings.Contains(p.log.String(), "locked") || strings.Contains(p.log.String(), `"level":"error"`) {
			t.Errorf("a log speaks of locks or errors:\n%s", p.log.tail(20))
		}
	}
}

// An import whose runner is killed again and again ends all the same, with each
// message once in the Maildir and once in the database.
func TestAnImportOutlivesItsRunners(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	const n, batch = 2500, 1000
	var box bytes.Buffer
	for i := range n {
		fmt.Fprintf(&box, "From x@example.org Thu Jan  1 00:00:00 2026\nSubject: number %d\n\nbody of %d\n\n", i, i)
	}
	path := filepath.Join(s.dir, "box")
	if err := os.WriteFile(path, box.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	api := s.server()
	runner := s.runner()
	account := api.account()
	db := s.open()
	if r := api.postJSON("/v1/accounts/"+account+"/import", fmt.Sprintf(`{"path":%q}`, path)); r.status != http.StatusAccepted {
		t.Fatalf("%d %s", r.status, r.body)
	}
	for stored := int64(0); stored <= batch; stored += batch {
		// At work on the next batch: some of it is delivered, none is stored.
		s.until("a part of the next batch is delivered", func() bool {
			delivered, _ := os.ReadDir(filepath.Join(s.maildir(), "cur")) // it is made by the import
			return s.count(db, "SELECT count(*) FROM messages") >= stored && int64(len(delivered)) > stored
		})
		runner.kill()
		runner = s.runner()
	}
	s.until("it is done", func() bool {
		return s.count(db, "SELECT count(*) FROM jobs WHERE type = 'mail.import' AND state = 'completed'") == 1
	})
	t.Logf("the import's runner died %d times", s.count(db, "SELECT count(*) FROM job_runs AS r JOIN jobs AS j ON j.id = r.job_id WHERE j.type = 'mail.import' AND r.outcome = 'rescued'"))
	if stored, files := s.count(db, "SELECT count(*) FROM messages"), len(s.files()); stored != n || files != n {
		t.Errorf("%d messages and %d files, want %d", stored, files, n)
	}
	if done := s.count(db, "SELECT done FROM mail_tasks WHERE kind = 'mail.import'"); done != n {
		t.Errorf("the task says that %d are done", done)
	}
	s.verified()
}
