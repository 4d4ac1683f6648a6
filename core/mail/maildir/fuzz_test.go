package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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
		d, err := Create(filepath.Join(quickDir(t), "Mail"))
		if err != nil {
			t.Fatal(err)
		}
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
		err = d.Scan(t.Context(), func(e Entry) error { found = append(found, e); return nil })
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

// Whatever names files and folders have, whatever names are asked for, and
// whatever lies in a Maildir as a link to elsewhere: nothing outside is read,
// written, made, moved or removed.
func FuzzNothingOutsideIsTouched(f *testing.F) {
	long := strings.Repeat("x", 255)
	for i, name := range []string{"1.a.host:2,S", "..", "a\nb", "a:2,S:2,", long, ".", "-rf", "../x", "/etc/passwd", "%2e%2e"} {
		folder := []string{"..", "../outside", "/", "a/../../outside", long, "A\nB", ".", "x/..", "Archive/..", "~"}[i]
		f.Add(name, folder, name+"/../../../outside/cur/secret", uint8(0))
		f.Add(name, "Archive", "", uint8(1)<<(i%7)) //nolint:gosec // small
	}
	f.Add("1.a.host:2,S", "Archive", "", uint8(63))
	f.Fuzz(func(t *testing.T, name, folder, was string, links uint8) {
		base := quickDir(t)
		outside := filepath.Join(base, "outside")
		for _, rel := range []string{"new/1.a.host", "cur/secret", "cur/1.a.host:2,S", "tmp/x"} {
			lay(t, filepath.Join(outside, rel), "secret")
		}
		d, err := Create(filepath.Join(base, "Mail"))
		if err != nil {
			t.Fatal(err)
		}
		lay(t, filepath.Join(d.path, "cur", "1.b.host:2,S"), "mine")
		if err := os.WriteFile(filepath.Join(d.path, "new", filepath.Base(name)), []byte("mine"), 0o600); err != nil {
			name = "1.b.host:2,S" // no name that this file system takes
		}
		target, err := CleanFolder(folder)
		if err != nil || target == "" {
			target = "Archive"
		}
		for i, link := range []struct{ at, to string }{
			{"." + target, outside}, {"." + target + "/cur", filepath.Join(outside, "cur")}, {"." + target + "/new", filepath.Join(outside, "new")},
			{"." + target + "/tmp", filepath.Join(outside, "tmp")}, {"cur/linked:2,", filepath.Join(outside, "cur", "secret")}, {"tmp", filepath.Join(outside, "tmp")},
		} {
			if links>>i&1 == 0 {
				continue
			}
			at := filepath.Join(d.path, link.at)
			_ = os.MkdirAll(filepath.Dir(at), 0o700) // a link may be in the way
			_ = os.Remove(at)                        // it is empty, or not there
			_ = os.Symlink(link.to, at)              // or there already
		}
		before := tree(t, base, d.path)

		var all []Entry
		_ = d.Scan(t.Context(), func(e Entry) error { all = append(all, e); return nil })
		unique, _, _ := strings.Cut(name, ":")
		all = append(all, Entry{Unique: unique}, Entry{Unique: unique, Folder: folder}, Entry{Unique: "secret", Folder: target}, Entry{Unique: "linked"},
			Entry{Unique: "secret", Path: filepath.Join(outside, "cur", "secret")}, Entry{Unique: unique, Path: filepath.Join(d.path, name)},
			Entry{Unique: "secret", Path: filepath.Join(d.path, was)})
		for _, e := range all {
			if raw, _, err := d.Read(e, 1<<20); err == nil && string(raw) == "secret" {
				t.Errorf("%+v read what lies outside", e)
			}
			_, _ = d.Move(e, folder)
			_, _ = d.Move(e, "Archive")
			_, _ = d.SetFlags(e, "F", "S")
			_, _ = d.RevertFlags(e, "S", "F", was, true)
			_, _ = d.RevertFlags(e, "", "F", name, false)
			_, _, _ = d.DeliverTo(Entry{Unique: e.Unique, Folder: folder, Flags: e.Flags}, []byte("new"))
			_, _, _ = d.Deliver(e.Unique, []byte("new"))
		}
		_, _ = d.SweepTmp(time.Now().Add(1000 * time.Hour))
		for _, e := range all {
			_ = d.Remove(e)
		}
		if after := tree(t, base, d.path); after != before {
			t.Errorf("outside there was\n%s\nnow\n%s", before, after)
		}
	})
}

// quickDir is a folder in memory, where there is such a thing: the syncs of a
// hundred changes would leave a disk no time for fuzzing.
func quickDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "postroom-fuzz-") //nolint:usetesting // its folder is on a disk
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func lay(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// tree is all that lies under a folder, but for one: names, times, contents.
func tree(t *testing.T, root, but string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(root, func(path string, de fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path == but:
			return fs.SkipDir
		}
		info, err := de.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "%s %v %d %v", path, info.Mode(), info.Size(), info.ModTime().UnixNano())
		if de.Type().IsRegular() {
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, " %q", raw)
		}
		out.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}
