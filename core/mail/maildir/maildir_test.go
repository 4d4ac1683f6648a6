package maildir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func setup(t *testing.T) *Dir {
	t.Helper()
	d, err := Create(filepath.Join(t.TempDir(), "a", "Mail"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *Dir) put(t *testing.T, rel, content string) string {
	t.Helper()
	path := filepath.Join(d.path, rel)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (d *Dir) rel(path string) string { return strings.TrimPrefix(path, d.path+"/") }

// files lists every regular file but the markers, so that a test sees what
// was left behind as well.
func (d *Dir) files(t *testing.T) string {
	t.Helper()
	var out []string
	err := filepath.Walk(d.path, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() && info.Name() != "maildirfolder" {
			out = append(out, d.rel(path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (d *Dir) want(t *testing.T, files string) {
	t.Helper()
	if got := d.files(t); got != files {
		t.Errorf("files are %q, want %q", got, files)
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	t.Run("a folder without new and cur is not a Maildir", func(t *testing.T) {
		t.Parallel()
		if _, err := Open(t.TempDir()); !errors.Is(err, ErrNotMaildir) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("create makes private folders and can be repeated", func(t *testing.T) {
		t.Parallel()
		d := setup(t)
		if _, err := Create(d.path); err != nil {
			t.Fatal(err)
		}
		for _, sub := range []string{"", "tmp", "new", "cur"} {
			info, err := os.Stat(filepath.Join(d.path, sub))
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode().Perm() != 0o700 {
				t.Errorf("%q has mode %v", sub, info.Mode().Perm())
			}
		}
	})
	t.Run("create refuses a folder of other things", func(t *testing.T) {
		t.Parallel()
		for name, refused := range map[string]bool{"Inbox": true, "notes.txt": true, "lost+found": false, ".Sent": false, "cur": false, "tmp": false} {
			path := t.TempDir()
			if err := os.Mkdir(filepath.Join(path, name), 0o700); err != nil {
				t.Fatal(err)
			}
			_, err := Create(path)
			if refused != errors.Is(err, ErrNotMaildir) || !refused && err != nil {
				t.Errorf("beside %s: %v", name, err)
			}
			if _, err := os.Stat(filepath.Join(path, "new")); refused != errors.Is(err, fs.ErrNotExist) {
				t.Errorf("new/ beside %s: %v", name, err)
			}
		}
	})
	t.Run("create refuses a file in the way", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "Mail")
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Create(path); err == nil {
			t.Error("no error")
		}
	})
}

func TestCleanFolder(t *testing.T) {
	t.Parallel()
	good := map[string]string{
		"": "", "INBOX": "", "inbox": "", "Archive": "Archive", "A/B": "A.B", "A.B": "A.B",
		"Sent Items": "Sent Items", "Entwürfe": "Entwürfe", "INBOX.Sub": "INBOX.Sub",
		strings.Repeat("x", 200): strings.Repeat("x", 200),
	}
	for in, want := range good {
		if got, err := CleanFolder(in); err != nil || got != want {
			t.Errorf("CleanFolder(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{".", "..", "../x", "a/../b", "/a", "a/", ".a", "a..b", "a\x00b", "a\nb", "a\xff", " a", "a ", "a/ b", strings.Repeat("x", 201)} {
		if got, err := CleanFolder(in); !errors.Is(err, ErrInvalidFolder) {
			t.Errorf("CleanFolder(%q) = %q, %v, want ErrInvalidFolder", in, got, err)
		}
	}
}

func TestScan(t *testing.T) {
	t.Parallel()
	t.Run("lists new and cur of all folders and leaves out the rest", func(t *testing.T) {
		t.Parallel()
		d := setup(t)
		for _, f := range []string{"new/1", "cur/2:2,", "cur/3:2,FSa", "cur/4", "cur/5:1,exp", "cur/6:2,S,extra",
			".Archive/cur/7:2,S", ".A.B/new/8", "new/.hidden", "tmp/9", ".git/config", "plain/new/10", "cur/11,S=5:2,ZS"} {
			d.put(t, f, "x")
		}
		var got []string
		err := d.Scan(t.Context(), func(e Entry) error {
			got = append(got, fmt.Sprintf("%s|%s|%v|%s", e.Unique, e.Folder, e.New, e.Flags))
			if _, err := os.Stat(e.Path); err != nil {
				t.Error(err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(got)
		want := []string{"11,S=5||false|ZS", "1||true|", "2||false|", "3||false|FSa", "4||false|", "5||false|", "6||false|S", "7|Archive|false|S", "8|A.B|true|"}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("counts what it cannot use and goes on", func(t *testing.T) {
		t.Parallel()
		d := setup(t)
		d.put(t, "new/good", "x")
		d.put(t, "new/bad\xff", "x")
		d.put(t, "cur/:2,S", "x")
		if err := syscall.Mkfifo(filepath.Join(d.path, "new/fifo"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("loop", filepath.Join(d.path, "new/loop")); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(".", filepath.Join(d.path, ".Loop")); err != nil {
			t.Fatal(err)
		}
		d.put(t, "..bad/new/m", "x")
		seen := 0
		err := d.Scan(t.Context(), func(Entry) error { seen++; return nil })
		var left *ScanError
		if !errors.As(err, &left) {
			t.Fatalf("got %v, want a ScanError", err)
		}
		if seen != 1 || left.Count != 6 || len(left.Problems) != 6 {
			t.Errorf("saw %d, left out %d: %v", seen, left.Count, left.Problems)
		}
		var pe *PathError
		if !errors.As(err, &pe) || !errors.Is(err, ErrInvalidName) || !errors.Is(err, ErrNotRegular) || !errors.Is(err, ErrInvalidFolder) {
			t.Errorf("kinds are missing in %v", left.Problems)
		}
	})
	t.Run("a missing folder of the INBOX is counted", func(t *testing.T) {
		t.Parallel()
		d := setup(t)
		if err := os.Remove(filepath.Join(d.path, "new")); err != nil {
			t.Fatal(err)
		}
		var left *ScanError
		if err := d.Scan(t.Context(), func(Entry) error { return nil }); !errors.As(err, &left) || left.Count != 1 {
			t.Errorf("got %v", err)
		}
	})
	t.Run("more than one batch, and a stop by the caller or the context", func(t *testing.T) {
		t.Parallel()
		d := setup(t)
		for i := range 2*readBatch + 7 {
			d.put(t, fmt.Sprintf("new/%d", i), "x")
		}
		seen := 0
		if err := d.ScanFolder(t.Context(), "INBOX", func(Entry) error { seen++; return nil }); err != nil || seen != 2*readBatch+7 {
			t.Errorf("saw %d, %v", seen, err)
		}
		stop := errors.New("stop")
		if err := d.Scan(t.Context(), func(Entry) error { return stop }); !errors.Is(err, stop) {
			t.Errorf("got %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		seen = 0
		err := d.Scan(ctx, func(Entry) error { seen++; cancel(); return nil })
		if !errors.Is(err, context.Canceled) || seen > readBatch {
			t.Errorf("got %v after %d", err, seen)
		}
	})
}

func TestRead(t *testing.T) {
	t.Parallel()
	t.Run("finds a message that moved, changed flags or changed folder", func(t *testing.T) {
		t.Parallel()
		for _, now := range []string{"new/m", "cur/m:2,FS", "cur/m:2,abcXYZ", ".Archive/cur/m:2,DQ", ".A.B/new/m"} {
			d := setup(t)
			d.put(t, now, "From x\nbody")
			d.put(t, "cur/m2:2,S", "another")
			raw, e, err := d.Read(Entry{Unique: "m", New: true, Path: filepath.Join(d.path, "new", "m")}, 100)
			if err != nil || string(raw) != "From x\nbody" || d.rel(e.Path) != now || e.Size != 11 {
				t.Errorf("%s: %q %+v %v", now, raw, e, err)
			}
		}
	})
	t.Run("says when it is gone or too large", func(t *testing.T) {
		t.Parallel()
		d := setup(t)
		if _, _, err := d.Read(Entry{Unique: "m", Path: filepath.Join(d.path, "new", "m")}, 10); !errors.Is(err, ErrGone) {
			t.Errorf("got %v", err)
		}
		path := d.put(t, "new/m", "0123456789")
		if _, _, err := d.Read(Entry{Unique: "m", Path: path}, 9); !errors.Is(err, ErrTooLarge) {
			t.Errorf("got %v", err)
		}
		if raw, _, err := d.Read(Entry{Unique: "m", Path: path}, 10); err != nil || len(raw) != 10 {
			t.Errorf("got %q, %v", raw, err)
		}
	})
	t.Run("does not hang on what is not a regular file", func(t *testing.T) {
		t.Parallel()
		d := setup(t)
		if err := syscall.Mkfifo(filepath.Join(d.path, "new/fifo"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("loop", filepath.Join(d.path, "new/loop")); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(d.path, "new/dir"), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"fifo", "loop", "dir"} {
			if _, _, err := d.Read(Entry{Unique: name, Path: filepath.Join(d.path, "new", name)}, 10); !errors.Is(err, ErrNotRegular) {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := d.Move(Entry{Unique: name}, "Archive"); !errors.Is(err, ErrNotRegular) {
				t.Errorf("move %s: %v", name, err)
			}
		}
	})
	t.Run("a unique name cannot leave the Maildir", func(t *testing.T) {
		t.Parallel()
		d := setup(t)
		d.put(t, "secret", "x")
		for _, unique := range []string{"../secret", "../../etc/passwd", "", ".x", "a:b"} {
			if _, err := d.Find(unique); !errors.Is(err, ErrInvalidName) {
				t.Errorf("%q: %v", unique, err)
			}
		}
		if _, _, err := d.Read(Entry{Unique: "m", Path: filepath.Join(d.path, "secret")}, 10); !errors.Is(err, ErrGone) {
			t.Errorf("got %v", err)
		}
	})
}

// A message that another client moves about without a pause is found all the
// same: it is never taken for gone.
func TestAMessageThatMovesIsFound(t *testing.T) {
	t.Parallel()
	d := setup(t)
	at := d.put(t, ".A/cur/m:2,odd", "x")
	for i := range 20 { // folders between the two, so that a look takes a while
		d.put(t, fmt.Sprintf(".F%02d/cur/other", i), "x")
	}
	other := d.put(t, ".Z/cur/other", "x")
	to := filepath.Join(filepath.Dir(other), "m:2,odd")
	stop := make(chan struct{})
	var moving sync.WaitGroup
	moving.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := os.Rename(at, to); err != nil {
				t.Error(err)
				return
			}
			at, to = to, at
		}
	})
	for range 100 {
		if _, err := d.Find("m"); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	moving.Wait()
	if _, err := d.Find("n"); !errors.Is(err, ErrGone) {
		t.Errorf("a message that is not there: %v", err)
	}
}

func TestDeliver(t *testing.T) {
	t.Parallel()
	t.Run("is complete in new and leaves nothing in tmp", func(t *testing.T) {
		t.Parallel()
		d := setup(t)
		e, existed, err := d.Deliver("abc", []byte("hello"))
		if err != nil || existed || !e.New || e.Folder != "" || e.Size != 5 {
			t.Fatalf("%+v %v %v", e, existed, err)
		}
		d.want(t, "new/abc")
	})
	t.Run("the same name again changes nothing, wherever it is now", func(t *testing.T) {
		t.Parallel()
		for _, there := range []string{"new/abc", "cur/abc:2,", "cur/abc:2,xyz", ".Archive/cur/abc:2,S"} {
			d := setup(t)
			path := d.put(t, there, "first")
			e, existed, err := d.Deliver("abc", []byte("second"))
			if err != nil || !existed || e.Path != path {
				t.Errorf("%s: %+v %v %v", there, e, existed, err)
			}
			if got, _ := os.ReadFile(path); string(got) != "first" {
				t.Errorf("%s was overwritten with %q", there, got)
			}
			d.want(t, there)
		}
	})
	t.Run("a race leaves one file with one writer's bytes", func(t *testing.T) {
		t.Parallel()
		d := setup(t)
		var wg sync.WaitGroup
		var mu sync.Mutex
		fresh := 0
		for i := range 8 {
			wg.Go(func() {
				_, existed, err := d.Deliver("abc", bytes.Repeat([]byte{byte('a' + i)}, 1000))
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Error(err)
				}
				if !existed {
					fresh++
				}
			})
		}
		wg.Wait()
		d.want(t, "new/abc")
		got, _ := os.ReadFile(filepath.Join(d.path, "new/abc"))
		if fresh != 1 || len(got) != 1000 || bytes.Count(got, got[:1]) != 1000 {
			t.Errorf("%d fresh, %d bytes", fresh, len(got))
		}
	})
	t.Run("refuses names that are not file names of a message", func(t *testing.T) {
		t.Parallel()
		d := setup(t)
		for _, unique := range []string{"", ".x", "a/b", "a:2,S", "a\x00", "a\xff", "a\n", strings.Repeat("x", 201)} {
			if _, _, err := d.Deliver(unique, nil); !errors.Is(err, ErrInvalidName) {
				t.Errorf("%q: %v", unique, err)
			}
		}
		d.want(t, "")
	})
	t.Run("does not make a Maildir that went away", func(t *testing.T) {
		t.Parallel()
		d := setup(t)
		if err := os.RemoveAll(d.path); err != nil {
			t.Fatal(err)
		}
		if _, _, err := d.Deliver("abc", nil); err == nil {
			t.Error("no error")
		}
		if _, err := os.Stat(d.path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it is back: %v", err)
		}
	})
}

func TestSweepTmp(t *testing.T) {
	t.Parallel()
	d := setup(t)
	d.put(t, "tmp/postroom.old", "x")
	d.put(t, "tmp/other.old", "x")
	fresh := d.put(t, "tmp/postroom.fresh", "x")
	now := time.Now()
	for _, f := range []string{"postroom.old", "other.old"} {
		old := now.Add(-37 * time.Hour)
		if err := os.Chtimes(filepath.Join(d.path, "tmp", f), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := d.SweepTmp(now); n != 1 || err != nil {
		t.Errorf("removed %d, %v", n, err)
	}
	d.want(t, "tmp/other.old "+d.rel(fresh))
}
