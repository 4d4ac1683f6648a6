package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func newMailbox(t *testing.T) (*fakeAPI, mailbox) {
	t.Helper()
	fake := newFakeAPI(t)
	data := t.TempDir()
	return fake, mailbox{api: fake.client, root: filepath.Join(data, "Maildir"), marker: filepath.Join(data, markerName)}
}

func mustPrepare(t *testing.T, b mailbox) prepared {
	t.Helper()
	done, err := b.prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func mustLay(t *testing.T, b mailbox) int {
	t.Helper()
	laid, err := b.layMail()
	if err != nil {
		t.Fatal(err)
	}
	return laid
}

func TestPrepare(t *testing.T) {
	t.Parallel()

	t.Run("makes the account and the rules once", func(t *testing.T) {
		t.Parallel()
		fake, b := newMailbox(t)
		if got := mustPrepare(t, b); got != (prepared{account: true, rules: 9}) {
			t.Errorf("made %+v", got)
		}
		if got := mustPrepare(t, b); got != (prepared{}) {
			t.Errorf("made %+v a second time", got)
		}
		config, _ := fake.accounts[0]["config"].(map[string]any)
		if len(fake.accounts) != 1 || fake.accounts[0]["email"] != email || config["path"] != b.root {
			t.Errorf("accounts: %v", fake.accounts)
		}
		if len(fake.rules) != 9 || fake.rules[0]["name"] != "Trash spam" {
			t.Errorf("rules: %v", fake.rules)
		}
	})

	t.Run("completes what a broken start left", func(t *testing.T) {
		t.Parallel()
		fake, b := newMailbox(t)
		mustPrepare(t, b)
		fake.set(func() { fake.rules = fake.rules[:4] })
		if got := mustPrepare(t, b); got != (prepared{rules: 5}) {
			t.Errorf("made %+v", got)
		}
		fake.set(func() { fake.accounts = nil })
		if got := mustPrepare(t, b); got != (prepared{account: true}) {
			t.Errorf("made %+v", got)
		}
	})

	t.Run("a rule deleted after the layout stays deleted", func(t *testing.T) {
		t.Parallel()
		fake, b := newMailbox(t)
		mustPrepare(t, b)
		mustLay(t, b)
		fake.set(func() { fake.rules = fake.rules[1:] })
		if got := mustPrepare(t, b); got != (prepared{}) {
			t.Errorf("made %+v", got)
		}
	})

	t.Run("a folder of data that was moved is refused", func(t *testing.T) {
		t.Parallel()
		_, b := newMailbox(t)
		mustPrepare(t, b)
		b.root = filepath.Join(t.TempDir(), "Maildir")
		if _, err := b.prepare(t.Context()); err == nil || !strings.Contains(err.Error(), "moved or copied") {
			t.Errorf("the error is %v", err)
		}
	})

	t.Run("a refusal says what was being done", func(t *testing.T) {
		t.Parallel()
		fake, b := newMailbox(t)
		fake.set(func() { fake.refuse = "POST /v1/rules" })
		_, err := b.prepare(t.Context())
		want := `create the rule "Trash spam": POST /v1/rules: 503 the database does not answer`
		if err == nil || err.Error() != want {
			t.Errorf("the error is %v, want %s", err, want)
		}
	})

	t.Run("a missing token is named", func(t *testing.T) {
		t.Parallel()
		_, b := newMailbox(t)
		b.api.token = ""
		if _, err := b.prepare(t.Context()); err == nil || !strings.Contains(err.Error(), "API_TOKEN") {
			t.Errorf("the error is %v", err)
		}
	})
}

func TestLayMail(t *testing.T) {
	t.Parallel()

	names := func(t *testing.T, dir string) []string {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		for _, e := range entries {
			list = append(list, e.Name())
		}
		return list
	}

	t.Run("delivers every message as it is, once", func(t *testing.T) {
		t.Parallel()
		_, b := newMailbox(t)
		if n := mustLay(t, b); n != 38 {
			t.Fatalf("delivered %d", n)
		}
		inbox := filepath.Join(b.root, "new")
		for _, file := range names(t, "mail") {
			want, err := os.ReadFile(filepath.Join("mail", file))
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(filepath.Join(inbox, uniqueName(file)))
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%s was not delivered as it is (%v)", file, err)
			}
		}
		if left := names(t, filepath.Join(b.root, "tmp")); left != nil {
			t.Errorf("left in tmp: %v", left)
		}
		if info, err := os.Stat(inbox); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("new/ is %v, %v", info.Mode(), err)
		}
		if n := mustLay(t, b); n != 0 {
			t.Errorf("delivered %d a second time", n)
		}
	})

	t.Run("after a crash only what is missing is delivered", func(t *testing.T) {
		t.Parallel()
		_, b := newMailbox(t)
		mustLay(t, b)
		move := func(from, to string) {
			t.Helper()
			to = filepath.Join(b.root, to)
			if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(b.root, from), to); err != nil {
				t.Fatal(err)
			}
		}
		move("new/06-newsletter-garden.demo", ".Newsletters/new/06-newsletter-garden.demo")
		move("new/16-bank-alert.demo", "cur/16-bank-alert.demo:2,F")
		for _, lost := range []string{b.marker, filepath.Join(b.root, "new", "01-date-subject.demo")} {
			if err := os.Remove(lost); err != nil {
				t.Fatal(err)
			}
		}
		if n := mustLay(t, b); n != 1 {
			t.Errorf("delivered %d", n)
		}
	})

	t.Run("nothing is delivered again after the mail was thrown away", func(t *testing.T) {
		t.Parallel()
		_, b := newMailbox(t)
		mustLay(t, b)
		if err := os.RemoveAll(b.root); err != nil {
			t.Fatal(err)
		}
		if n := mustLay(t, b); n != 0 {
			t.Errorf("delivered %d", n)
		}
	})
}

func TestWatchMaildir(t *testing.T) {
	t.Parallel()
	_, b := newMailbox(t)
	changed := watchMaildir(b.root)
	if changed() {
		t.Error("a missing Maildir changes")
	}
	mustLay(t, b)
	if !changed() {
		t.Error("a delivery went unseen")
	}
	if changed() {
		t.Error("nothing happened, and a change was seen")
	}
}
