package maildir

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// Another program may give a message any name the file system takes. Whatever
// it is, the message is listed or reported, and what is done to it keeps its
// unique name, its bytes and its place in this Maildir.
func FuzzNames(f *testing.F) {
	for _, name := range []string{
		"1.a.host", "1.a.host:2,", "1.a.host:2,RS", "a:2,S,x", "a:1,x:2,F", "a:2,:2,S", ":2,S", ".hidden", "..", "a:", "caf\xe9:2,S", "a\nb:2,", " ", "-rf",
		strings.Repeat("x", 255), strings.Repeat("é", 100) + ":2,ab", "a:2,SSRR", "a:2,é", "a,S=3,W=4:2,", "a:3,S", "\xff", "a\x7f",
	} {
		f.Add(name, "Archive/2024", "S", "F", true)
	}
	for _, folder := range []string{"", "inbox", "INBOX", "..", "a..b", "/etc", "../../x", ".", "a/../b", "\x00", "a\nb", "é", " a", strings.Repeat("x", 201), ".Trash", "new", "cur/tmp", "~", "&-"} {
		f.Add("1.a.host:2,RS", folder, "", "", false)
	}
	f.Add("1.a.host", "Archive", "SF", "F", false)
	f.Add(strings.Repeat("x", 250)+"\x04", "Archive", "S", "", false)
	for _, flags := range []string{"é", "SS", "1", ",", "/", ":2,S", "\x00", "a"} {
		f.Add("1.a.host:2,RS", "Archive", flags, "R", false)
		f.Add("1.a.host", "Archive", "R", flags, true)
	}
	f.Fuzz(func(t *testing.T, name, folder, add, remove string, isNew bool) {
		d := setup(t)
		sub := "cur"
		if isNew {
			sub = "new"
		}
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
			return // no name of a file
		}
		path := filepath.Join(d.path, sub, name)
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			return // none that this file system takes
		}
		var found []Entry
		err := d.Scan(t.Context(), func(e Entry) error { found = append(found, e); return nil })
		var left *ScanError
		switch {
		case name[0] == '.':
			if len(found) != 0 || err != nil {
				t.Errorf("a hidden file: %+v, %v", found, err)
			}
			return
		case ValidName(name) != nil:
			if len(found) != 0 || !errors.As(err, &left) || left.Count != 1 {
				t.Errorf("%+v, %v; want a report", found, err)
			}
			return
		case err != nil || len(found) != 1:
			t.Fatalf("%+v, %v; want the message", found, err)
		}
		e := found[0]
		if unique, _, _ := strings.Cut(name, ":"); e.Unique != unique || e.New != isNew || e.Path != path || e.Folder != "" {
			t.Fatalf("entry %+v", e)
		}

		flagged, err := d.SetFlags(e, add, remove)
		switch {
		case err != nil:
			refused(t, err)
			flagged = e
		case !flagged.New && add != "":
			for _, flag := range add {
				if !strings.ContainsRune(flagged.Flags, flag) {
					t.Errorf("flags %q have no %q", flagged.Flags, flag)
				}
			}
			for _, flag := range remove {
				if strings.ContainsRune(flagged.Flags, flag) {
					t.Errorf("flags %q still have %q", flagged.Flags, flag)
				}
			}
		}
		same(t, d, flagged, e.Unique, name)

		moved, err := d.Move(flagged, folder)
		switch {
		case err != nil:
			refused(t, err)
			moved = flagged
		case moved.New != flagged.New || moved.Flags != flagged.Flags:
			t.Errorf("moving %+v gave %+v", flagged, moved)
		}
		same(t, d, moved, e.Unique, name)

		// Delivered again, it is found where it is.
		again, existed, err := d.Deliver(e.Unique, []byte("x"))
		switch {
		case err != nil:
			refused(t, err)
		case !existed || again.Path != moved.Path:
			t.Errorf("delivered again: %+v, %v, want %+v", again, existed, moved)
		}
		same(t, d, moved, e.Unique, name)
	})
}

// refused checks an error that is about what was asked for.
func refused(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, ErrInvalidName) && !errors.Is(err, ErrInvalidFlags) && !errors.Is(err, ErrInvalidFolder) && !strings.Contains(err.Error(), "file name too long") {
		t.Errorf("unexpected: %v", err)
	}
	if text := err.Error(); !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		t.Errorf("no clean line: %q", text)
	}
}

// same checks that the Maildir holds the message once, where e says, as it was.
func same(t *testing.T, d *Dir, e Entry, unique, content string) {
	t.Helper()
	if rel, err := filepath.Rel(d.path, e.Path); err != nil || !filepath.IsLocal(rel) {
		t.Fatalf("%q lies outside of the Maildir", e.Path)
	}
	n := 0
	if err := d.Scan(context.Background(), func(seen Entry) error {
		n++
		if seen.Path != e.Path || seen.Unique != unique || seen.Folder != e.Folder || seen.Flags != e.Flags || seen.New != e.New {
			t.Errorf("listed as %+v, want %+v", seen, e)
		}
		return nil
	}); err != nil || n != 1 {
		t.Fatalf("%d messages, %v", n, err)
	}
	raw, _, err := d.Read(Entry{Unique: unique}, 1<<20)
	if err != nil || string(raw) != content {
		t.Fatalf("read %q, %v", raw, err)
	}
}
