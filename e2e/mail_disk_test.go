package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
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
