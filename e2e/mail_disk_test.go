package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The disk of a Maildir fills up, to its last byte and inode, while mail is
// posted, moved and imported. Everything waits and says why, no part of a
// message is ever seen, and when there is room again all goes on by itself.
func TestAFullDiskUnderAMaildir(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	if err := os.Mkdir(s.maildir(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("postroom-e2e", s.maildir(), "tmpfs", 0, "size=2m,nr_inodes=200"); err != nil {
		t.Skipf("a small disk cannot be mounted, which takes root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(s.maildir(), syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	source := filepath.Join(s.dir, "source")
	if err := os.Mkdir(source, 0o700); err != nil {
		t.Fatal(err)
	}
	sent := map[string]bool{}
	text := func(what string, i int) string {
		raw := fmt.Sprintf("Subject: %s %d\n\n%s", what, i, strings.Repeat("text ", 500))
		sent[raw] = true
		return raw
	}
	api := s.server()
	runner := s.runner()
	account := api.account()
	db := s.open()
	post := func(raw string) {
		t.Helper()
		if r := api.do("POST", "/v1/messages?account="+account, "message/rfc822", strings.NewReader(raw)); r.status != http.StatusAccepted {
			t.Fatalf("%d %s", r.status, r.body)
		}
	}
	for i := range 10 {
		post(text("before", i))
	}
	s.settled(db, 10)

	ballast := filepath.Join(s.maildir(), "ballast")
	if err := os.Mkdir(ballast, 0o700); err != nil {
		t.Fatal(err)
	}
	fill(t, filepath.Join(ballast, "bytes"))
	for i, err := 0, error(nil); !errors.Is(err, syscall.ENOSPC); i++ {
		if err = os.WriteFile(filepath.Join(ballast, fmt.Sprint(i)), nil, 0o600); err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		post(text("while it is full", i))
	}
	// An archive folder cannot be made; a flag needs no room.
	act := func(message, typ string) string {
		t.Helper()
		r := api.postJSON("/v1/messages/"+message+"/actions", fmt.Sprintf(`{"action_type":%q}`, typ))
		var a struct{ ID string }
		if r.into(t, &a); a.ID == "" {
			t.Fatalf("%d %s", r.status, r.body)
		}
		return a.ID
	}
	rows := s.rows(db, "SELECT CAST(id AS BLOB) FROM messages ORDER BY id")
	archived, starred := act(rows[0].Str(0), "archive"), act(rows[1].Str(0), "star")
	for i := range 3 {
		if err := os.WriteFile(filepath.Join(source, fmt.Sprintf("%d.eml", i)), []byte(text("imported", i)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if r := api.postJSON("/v1/accounts/"+account+"/import", fmt.Sprintf(`{"path":%q,"apply_rules":true}`, source)); r.status != http.StatusAccepted {
		t.Fatalf("%d %s", r.status, r.body)
	}
	s.until("everything has been tried", func() bool {
		return s.count(db, "SELECT count(*) FROM jobs WHERE type = 'message.ingest' AND finished_at IS NULL AND claims > 1") == 5 &&
			s.count(db, "SELECT count(*) FROM actions WHERE id = ? AND instr(error_message, 'no space left') > 0", archived) == 1 &&
			s.count(db, "SELECT count(*) FROM actions WHERE id = ? AND status = 'completed'", starred) == 1 &&
			s.count(db, "SELECT count(*) FROM mail_tasks WHERE instr(last_problem, 'no space left') > 0") == 1
	})
	if n := s.count(db, "SELECT count(*) FROM messages"); n != 10 {
		t.Errorf("%d messages are stored while nothing can be delivered", n)
	}
	for path, raw := range s.files() {
		if !sent[string(raw)] {
			t.Errorf("%s is no whole message", path)
		}
	}

	if err := os.RemoveAll(ballast); err != nil {
		t.Fatal(err)
	}
	s.settled(db, 18)
	if n := s.count(db, "SELECT count(*) FROM jobs WHERE type <> 'account.sync' AND (failures > 0 OR finished_at IS NULL)"); n != 0 {
		t.Errorf("%d jobs spent an attempt or did not end", n)
	}
	files := s.files()
	for path, raw := range files {
		if !sent[string(raw)] {
			t.Errorf("%s is no whole message", path)
		}
		delete(sent, string(raw))
	}
	if len(files) != 18 || len(sent) != 0 {
		t.Errorf("%d files, and %d messages have none", len(files), len(sent))
	}
	left, err := os.ReadDir(filepath.Join(s.maildir(), "tmp"))
	if err != nil || len(left) != 0 {
		t.Errorf("%d files are left in tmp/, %v", len(left), err)
	}
	s.verified()
	if out := runner.log.String(); !strings.Contains(out, "no space left") {
		t.Error("the log does not say why things waited")
	}
	if code := runner.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// What an import stores does not fit on the database's disk, where the queue's
// own writes do: it is tried again and again, spends no attempt, and goes on
// when there is room.
func TestAnImportThatDoesNotFitIsDoneLater(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.onSmallDisk("size=64m")
	s.lay(nil)
	old := filepath.Join(s.maildir(), ".Old", "cur")
	if err := os.MkdirAll(old, 0o700); err != nil {
		t.Fatal(err)
	}
	const n = 150 // together more than one commit of an import
	for i := range n {
		raw := fmt.Appendf(nil, "Subject: number %d\n\n%s", i, strings.Repeat(fmt.Sprintf("text %d\n", i), 8000))
		if err := os.WriteFile(filepath.Join(old, fmt.Sprintf("%d.host:2,S", i)), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	api := s.server()
	s.runner()
	account := api.account()
	db := s.open()
	ballast := filepath.Join(s.dir, "ballast")
	fill(t, ballast)
	info, err := os.Stat(ballast)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(ballast, info.Size()-6<<20); err != nil {
		t.Fatal(err)
	}
	if r := api.postJSON("/v1/accounts/"+account+"/import", fmt.Sprintf(`{"path":%q}`, s.maildir())); r.status != http.StatusAccepted {
		t.Fatalf("%d %s", r.status, r.body)
	}
	s.until("it was tried three times", func() bool {
		return s.count(db, `SELECT count(*) FROM jobs AS j JOIN job_runs AS r ON r.job_id = j.id WHERE j.type = 'mail.import' AND r.run >= 3 AND instr(r.error, 'full') > 0`) == 1
	})
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	s.until("it is done", func() bool {
		return s.count(db, "SELECT count(*) FROM jobs WHERE type = 'mail.import' AND state = 'completed'") == 1
	})
	if got := s.count(db, "SELECT count(*) FROM messages"); got != n {
		t.Errorf("%d messages are stored", got)
	}
	s.spentNothing(db)
	s.verified()
}

// The one disk under database and Maildir fills up again and again while both
// services are killed at random, mail is posted and rules of all kinds act on
// it: no message is lost, doubled or changed, and rows and files agree.
func TestADiskThatFillsWhileEverythingIsKilled(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	mails := s.numbered(200)
	laid, posted := mails[:len(mails)/2], mails[len(mails)/2:]
	s.onSmallDisk(fmt.Sprintf("size=%dm", 64+len(mails)/4))
	s.lay(laid)
	api := s.server()
	for _, rule := range rulesOfAllKinds {
		if r := api.postJSON("/v1/rules", rule); r.status != http.StatusCreated {
			t.Fatalf("rule: %d %s", r.status, r.body)
		}
	}
	account := api.account()
	runner := s.runner()
	db := s.open()

	quit := make(chan struct{})
	var working sync.WaitGroup
	fillings := 0
	working.Go(func() {
		random := rand.New(rand.NewPCG(9, 9)) //nolint:gosec // moments
		ballast := filepath.Join(s.dir, "ballast")
		for {
			fill(t, ballast)
			fillings++
			s.pause(quit, time.Duration(50+random.IntN(400))*time.Millisecond)
			if err := os.Remove(ballast); err != nil {
				t.Error(err)
			}
			if s.pause(quit, time.Duration(50+random.IntN(400))*time.Millisecond) {
				return
			}
		}
	})
	var swap sync.RWMutex
	refused := 0
	working.Go(func() {
		for _, raw := range posted {
			for taken := false; !taken; {
				swap.RLock()
				r, err := api.try("POST", "/v1/messages?account="+account, "message/rfc822", bytes.NewReader(raw))
				swap.RUnlock()
				switch {
				case err != nil || r.status == http.StatusServiceUnavailable: // killed, or full
					refused++
				case r.status != http.StatusAccepted && r.status != http.StatusOK: // OK: it was taken before
					t.Errorf("post: %d %s", r.status, r.body)
					return
				default:
					taken = true
				}
				if s.pause(quit, 10*time.Millisecond) {
					return
				}
			}
		}
	})
	s.killer(kills(t), &api, &runner, &swap)
	// Now it only fills up; what was posted has room in between.
	n := int64(len(mails))
	s.until("everything has come in", func() bool { return s.count(db, "SELECT count(*) FROM messages") == n })
	close(quit)
	working.Wait()
	t.Logf("the disk was filled %d times, a message was not taken %d times", fillings, refused)
	s.until("everything is done", func() bool {
		return s.count(db, "SELECT count(*) FROM decisions") == n && s.count(db, "SELECT count(*) FROM actions WHERE status IN ('queued', 'executing') AND not_before IS NULL") == 0
	})

	want := map[string]bool{}
	for _, raw := range mails {
		want[string(raw)] = true
	}
	files := s.files()
	for path, raw := range files {
		if !want[string(raw)] {
			t.Errorf("%s is no message that was there, or is one twice", path)
		}
		delete(want, string(raw))
	}
	if len(want) != 0 {
		t.Errorf("%d messages are lost", len(want))
	}
	if got := s.count(db, "SELECT count(*) FROM actions WHERE status NOT IN ('completed', 'queued')"); got != 0 {
		t.Errorf("%d actions are not completed", got)
	}
	if got := s.count(db, "SELECT count(*) FROM jobs WHERE state IN ('failed', 'canceled') AND type <> 'account.sync'"); got != 0 {
		t.Errorf("%d jobs were given up", got)
	}
	s.spentNothing(db)
	s.figures(db)
	s.verified()
}

// pause waits, and says whether to stop.
func (s *system) pause(quit <-chan struct{}, d time.Duration) (stop bool) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-quit:
		return true
	case <-timer.C:
		return false
	}
}
