package maildir

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

func TestMove(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, file, folder, want string }{
		{"from new to new", "new/m", "Archive", ".Archive/new/m"},
		{"from cur to cur with its flags", "cur/m:2,FSa", "Archive", ".Archive/cur/m:2,FSa"},
		{"a hierarchy given with slashes", "cur/m:2,S", "Lists/Go", ".Lists.Go/cur/m:2,S"},
		{"back to the INBOX in any case", ".Archive/cur/m:2,S", "inbox", "cur/m:2,S"},
		{"to where it is", "cur/m:2,S", "INBOX", "cur/m:2,S"},
		{"a name without info", "cur/m", "Archive", ".Archive/cur/m"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			d := setup(t)
			e, err := d.Move(Entry{Unique: "m", Path: d.put(t, tc.file, "x")}, tc.folder)
			if err != nil || d.rel(e.Path) != tc.want {
				t.Fatalf("%+v %v", e, err)
			}
			d.want(t, tc.want)
		})
	}
	t.Run("a folder made on demand is a Maildir++ folder", func(t *testing.T) {
		t.Parallel()
		d := setup(t)
		if _, err := d.Move(Entry{Path: d.put(t, "new/m", "x")}, "Archive"); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{"tmp", "new", "cur", "maildirfolder"} {
			if _, err := os.Stat(filepath.Join(d.path, ".Archive", f)); err != nil {
				t.Error(err)
			}
		}
		folders, problems, err := d.Folders()
		if err != nil || len(problems) != 0 || !slices.Equal(folders, []string{"", "Archive"}) {
			t.Errorf("%q %v %v", folders, problems, err)
		}
	})
	t.Run("a stale path is looked up", func(t *testing.T) {
		t.Parallel()
		d := setup(t)
		d.put(t, "cur/m:2,FXZ", "x")
		if _, err := d.Move(Entry{Unique: "m", Path: filepath.Join(d.path, "new/m")}, "Archive"); err != nil {
			t.Fatal(err)
		}
		d.want(t, ".Archive/cur/m:2,FXZ")
	})
	t.Run("a different file at the target stops it and nothing is touched", func(t *testing.T) {
		t.Parallel()
		d := setup(t)
		path := d.put(t, "cur/m:2,S", "mine")
		other := d.put(t, ".Archive/cur/m:2,S", "other")
		if _, err := d.Move(Entry{Unique: "m", Path: path}, "Archive"); !errors.Is(err, ErrConflict) {
			t.Errorf("got %v", err)
		}
		if got, _ := os.ReadFile(other); string(got) != "other" {
			t.Errorf("the other file is now %q", got)
		}
		d.want(t, ".Archive/cur/m:2,S cur/m:2,S")
	})
	t.Run("a move that was cut off is completed", func(t *testing.T) {
		t.Parallel()
		for _, folders := range [][2]string{{"", "Archive"}, {"Zoo", "Archive"}, {"Archive", ""}} {
			d := setup(t)
			from := d.folderPath(folders[0])
			to := d.folderPath(folders[1])
			path := d.put(t, d.rel(filepath.Join(from, "cur/m:2,abc")), "x")
			d.put(t, d.rel(filepath.Join(to, "cur/other")), "x")
			if err := os.Link(path, filepath.Join(to, "cur/m:2,abc")); err != nil {
				t.Fatal(err)
			}
			e, err := d.Move(Entry{Unique: "m", Folder: folders[0]}, folders[1])
			if err != nil || e.Folder != folders[1] {
				t.Errorf("%v: %+v %v", folders, e, err)
			}
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%v: the source is still there: %v", folders, err)
			}
		}
	})
	t.Run("a message that is nowhere", func(t *testing.T) {
		t.Parallel()
		d := setup(t)
		if _, err := d.Move(Entry{Unique: "m"}, "Archive"); !errors.Is(err, ErrGone) {
			t.Errorf("got %v", err)
		}
		if _, err := d.Move(Entry{Unique: "m"}, "../x"); !errors.Is(err, ErrInvalidFolder) {
			t.Errorf("got %v", err)
		}
	})
	for name, rename := range map[string]renamer{"with rename": renameNoReplace, "with link and unlink": noRename} {
		t.Run("movers and flag setters at once lose nothing "+name, func(t *testing.T) {
			t.Parallel()
			d := setup(t)
			d.rename = rename
			d.put(t, "new/m", "x")
			var wg sync.WaitGroup
			for _, folder := range []string{"A", "B", "A", ""} {
				wg.Go(func() {
					for range 25 {
						// Losing a race is fine; losing the message is not.
						_, _ = d.Move(Entry{Unique: "m"}, folder)
						_, _ = d.SetFlags(Entry{Unique: "m"}, "S", "F")
						_, _ = d.SetFlags(Entry{Unique: "m"}, "F", "S")
					}
				})
			}
			wg.Wait()
			raw, e, err := d.Read(Entry{Unique: "m"}, 10)
			if err != nil || string(raw) != "x" {
				t.Fatalf("%q %v (files %s)", raw, err, d.files(t))
			}
			d.want(t, d.rel(e.Path))
		})
	}
	t.Run("without a rename that keeps files it links and unlinks", func(t *testing.T) {
		t.Parallel()
		d := setup(t)
		d.rename = noRename
		path := d.put(t, "new/m", "x")
		if _, err := d.Move(Entry{Path: path}, "Archive"); err != nil {
			t.Fatal(err)
		}
		if _, err := d.SetFlags(Entry{Unique: "m"}, "S", ""); err != nil {
			t.Fatal(err)
		}
		d.want(t, ".Archive/cur/m:2,S")
		d.put(t, "cur/m:2,S", "other")
		if _, err := d.Move(Entry{Unique: "m", Folder: "Archive"}, "INBOX"); !errors.Is(err, ErrConflict) {
			t.Errorf("got %v", err)
		}
		d.want(t, ".Archive/cur/m:2,S cur/m:2,S")
	})
}

func noRename(_, _ string) error { return &os.LinkError{Op: "renameat2", Err: syscall.EINVAL} }

func TestSetFlags(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, file, add, remove, want string }{
		{"out of new", "new/m", "S", "", "cur/m:2,S"},
		{"removing in new changes nothing", "new/m", "", "S", "new/m"},
		{"sorted, keywords and unknown ones kept", "cur/m:2,baTZ", "FS", "", "cur/m:2,FSTZab"},
		{"there already", "cur/m:2,S", "S", "", "cur/m:2,S"},
		{"there already in another order", "cur/m:2,SF", "S", "", "cur/m:2,SF"},
		{"remove one", "cur/m:2,FS", "", "F", "cur/m:2,S"},
		{"remove the last", "cur/m:2,S", "", "S", "cur/m:2,"},
		{"no info yet", "cur/m", "F", "", "cur/m:2,F"},
		{"in a folder", ".A.B/new/m", "S", "", ".A.B/cur/m:2,S"},
		{"what follows a comma is carried along", "cur/m:2,S,x=1", "F", "", "cur/m:2,FS,x=1"},
		{"what is no flag stays whole", "cur/m:2,Fé", "S", "", "cur/m:2,FSé"},
		{"add and remove", "cur/m:2,F", "S", "F", "cur/m:2,S"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			d := setup(t)
			e, err := d.SetFlags(Entry{Unique: "m", Path: d.put(t, tc.file, "x")}, tc.add, tc.remove)
			if err != nil || d.rel(e.Path) != tc.want {
				t.Fatalf("%+v %v", e, err)
			}
			d.want(t, tc.want)
		})
	}
	t.Run("only letters are flags", func(t *testing.T) {
		t.Parallel()
		d := setup(t)
		path := d.put(t, "cur/m:2,", "x")
		for _, add := range []string{",", "/", "1", "ü", ":", "S F"} {
			if _, err := d.SetFlags(Entry{Unique: "m", Path: path}, add, ""); !errors.Is(err, ErrInvalidFlags) {
				t.Errorf("%q: %v", add, err)
			}
		}
		if _, err := d.SetFlags(Entry{Unique: "m", Path: path}, "S", "S"); !errors.Is(err, ErrInvalidFlags) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a change that was cut off is completed from either name", func(t *testing.T) {
		t.Parallel()
		for _, at := range []string{"cur/m:2,", "cur/m:2,S"} {
			d := setup(t)
			path := d.put(t, "cur/m:2,", "x")
			if err := os.Link(path, filepath.Join(d.path, "cur/m:2,S")); err != nil {
				t.Fatal(err)
			}
			if _, err := d.SetFlags(Entry{Unique: "m", Path: filepath.Join(d.path, at)}, "S", ""); err != nil {
				t.Fatal(err)
			}
			d.want(t, "cur/m:2,S")
		}
	})
	t.Run("any sequence keeps flags sorted and one file", func(t *testing.T) {
		t.Parallel()
		d := setup(t)
		path := d.put(t, "new/m", "x")
		rapid.Check(t, func(rt *rapid.T) {
			add := rapid.StringMatching(`[DFPRSTa-z]{0,4}`).Draw(rt, "add")
			remove := rapid.StringMatching(`[A-Za-z]{0,4}`).Draw(rt, "remove")
			e, err := d.SetFlags(Entry{Unique: "m", Path: path}, add, remove)
			if errors.Is(err, ErrInvalidFlags) {
				return
			}
			if err != nil {
				rt.Fatal(err)
			}
			path = e.Path
			if !slices.IsSorted([]byte(e.Flags)) || d.files(t) != d.rel(e.Path) {
				rt.Fatalf("%q, files %q", e.Flags, d.files(t))
			}
		})
	})
}

func TestDeliveryWithoutHardLinks(t *testing.T) {
	t.Parallel()
	noLinks := func(_, _ string) error { return &os.LinkError{Op: "link", Err: syscall.EPERM} }
	d := setup(t)
	a := d.put(t, "tmp/a", "a")
	b := d.put(t, "new/b", "b")
	if err := linkOrRename(noLinks, a, b); !errors.Is(err, os.ErrExist) {
		t.Errorf("got %v", err)
	}
	d.want(t, "new/b tmp/a")
	if err := linkOrRename(noLinks, a, filepath.Join(d.path, "new/a")); err != nil {
		t.Errorf("got %v", err)
	}
	d.want(t, "new/a new/b")
}

func TestWatch(t *testing.T) {
	t.Parallel()
	t.Run("tells of new files and ends with its context", func(t *testing.T) {
		t.Parallel()
		d := setup(t)
		ctx, cancel := context.WithCancel(t.Context())
		calls := make(chan struct{}, 1000)
		done := make(chan error, 1)
		go func() { done <- Watch(ctx, d.path, func() { calls <- struct{}{} }) }()
		<-calls // it watches
		for _, name := range []string{"a", "b", "c"} {
			if _, _, err := d.Deliver(name, nil); err != nil {
				t.Fatal(err)
			}
		}
		<-calls
		if _, err := d.SetFlags(Entry{Unique: "a"}, "S", ""); err != nil {
			t.Fatal(err)
		}
		<-calls
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a folder that is missing or goes away is an error", func(t *testing.T) {
		t.Parallel()
		if err := Watch(t.Context(), t.TempDir(), func() {}); err == nil {
			t.Error("no error")
		}
		d := setup(t)
		done := make(chan error, 1)
		ready := make(chan struct{}, 10)
		go func() { done <- Watch(t.Context(), d.path, func() { ready <- struct{}{} }) }()
		<-ready
		if err := os.RemoveAll(d.path); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, ErrWatchLost) {
			t.Errorf("got %v", err)
		}
	})
}
