package maildir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// attempts bounds how often an operation looks a message up again because
// another client renamed it in between.
const attempts = 5

// usualInfos are the endings most files have; looking for them costs a few
// lstats where a listing of a large folder costs seconds.
var usualInfos = [...]string{"", ":2,", ":2,S", ":2,RS", ":2,FS", ":2,FRS", ":2,F", ":2,ST", ":2,T"}

// Read returns the bytes of e's file and where it was found. A file that is
// no longer at e.Path is looked up by its unique name; ErrGone says that there
// is none. Only regular files are opened, and never in a way that can hang.
func (d *Dir) Read(e Entry, max int64) ([]byte, Entry, error) {
	for n := range attempts {
		found, ok := d.listed(e)
		if !ok || n > 0 { // usually it is where it was listed, and opening it tells
			var err error
			if found, err = d.Resolve(e); err != nil {
				return nil, Entry{}, err
			}
		}
		raw, changed, err := readFile(found.Path, max)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESTALE) {
			continue
		}
		if err != nil {
			return nil, Entry{}, fmt.Errorf("maildir: read: %w", &PathError{Path: found.Path, Err: err})
		}
		found.Size, found.Time = int64(len(raw)), changed
		return raw, found, nil
	}
	return nil, Entry{}, fmt.Errorf("maildir: read %q: %w", e.Unique, ErrGone)
}

// readFile returns what a file holds, and when it was last changed.
func readFile(path string, max int64) ([]byte, time.Time, error) {
	// O_NONBLOCK: opening a FIFO without a writer would wait for ever.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		if errors.Is(err, syscall.ELOOP) {
			return nil, time.Time{}, ErrNotRegular
		}
		return nil, time.Time{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, time.Time{}, err
	}
	if !info.Mode().IsRegular() {
		return nil, time.Time{}, ErrNotRegular
	}
	if info.Size() > max {
		return nil, time.Time{}, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, info.Size(), max)
	}
	raw := make([]byte, info.Size())
	n, err := io.ReadFull(f, raw)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, time.Time{}, err
	}
	// A message file never grows once it is in new/ or cur/; one that does
	// is not a message yet.
	if after, err := f.Stat(); err != nil {
		return nil, time.Time{}, err
	} else if after.Size() != int64(n) {
		return nil, time.Time{}, errors.New("the file changed while it was read")
	}
	return raw[:n], info.ModTime(), nil
}

// Find looks a unique name up in all folders. Usual names are tried first,
// then every folder is listed, the INBOX first. When several files have the
// name (a copy made by a client, or a move that was cut off), any one of them
// comes back; Resolve prefers a given folder.
//
// A message that another client moves from a folder still to be listed into
// one that was listed is met in neither. So ErrGone takes a look during which
// nothing changed, or many.
func (d *Dir) Find(unique string) (Entry, error) {
	if unique == "" || strings.ContainsAny(unique, ":/\x00") || unique[0] == '.' {
		return Entry{}, fmt.Errorf("maildir: find: %w", ErrInvalidName)
	}
	var before []change
	for range 4 * attempts {
		folders, _, err := d.Folders()
		if err != nil {
			return Entry{}, err
		}
		for _, folder := range folders {
			if e, ok := d.probe(folder, unique); ok {
				return e, nil
			}
		}
		now := d.changes(folders)
		e, err := d.search(folders, unique)
		if !errors.Is(err, ErrGone) {
			return e, err
		}
		if slices.Equal(before, now) && slices.Equal(now, d.changes(folders)) {
			break
		}
		before = now
	}
	return Entry{}, fmt.Errorf("maildir: find %q: %w", unique, ErrGone)
}

// change is when a directory last changed.
type change struct {
	sub Sub
	ns  int64
}

func (d *Dir) changes(folders []string) []change {
	var out []change
	for _, folder := range folders {
		for _, isNew := range []bool{true, false} {
			sub := Sub{Folder: folder, New: isNew}
			ns, _ := d.Changed(sub) // what cannot be looked at is no news
			out = append(out, change{sub, ns})
		}
	}
	return out
}

// Resolve returns where a message is now: at e.Path when that is set and still
// there, else anywhere in e.Folder, else anywhere in the Maildir. An Entry with
// nothing but Unique and Folder is enough.
func (d *Dir) Resolve(e Entry) (Entry, error) {
	if found, ok := d.at(e); ok {
		return found, nil
	}
	if e.Unique == "" || strings.ContainsAny(e.Unique, ":/\x00") || e.Unique[0] == '.' {
		return Entry{}, fmt.Errorf("maildir: find: %w", ErrInvalidName)
	}
	folder, err := CleanFolder(e.Folder)
	if err != nil {
		return Entry{}, err
	}
	if found, ok := d.probe(folder, e.Unique); ok {
		return found, nil
	}
	found, err := d.search([]string{folder}, e.Unique)
	if !errors.Is(err, ErrGone) {
		return found, err
	}
	return d.Find(e.Unique)
}

// at describes the file at e.Path, if that path is one of this Maildir's
// messages with e's unique name.
func (d *Dir) at(e Entry) (Entry, bool) {
	found, ok := d.listed(e)
	return found, ok && stat(&found)
}

// listed is at without a look whether the file is there.
func (d *Dir) listed(e Entry) (Entry, bool) {
	if e.Path == "" {
		return Entry{}, false
	}
	dir, name := filepath.Split(filepath.Clean(e.Path))
	subPath := filepath.Clean(dir)
	sub := filepath.Base(subPath)
	root := filepath.Dir(subPath)
	if sub != "new" && sub != "cur" {
		return Entry{}, false
	}
	folder := ""
	if root != d.path {
		if filepath.Dir(root) != d.path || !strings.HasPrefix(filepath.Base(root), ".") {
			return Entry{}, false
		}
		folder = filepath.Base(root)[1:]
	}
	found := d.entry(folder, sub, name)
	if e.Unique != "" && found.Unique != e.Unique || !d.within(folder, sub) {
		return Entry{}, false
	}
	return found, true
}

func (d *Dir) probe(folder, unique string) (Entry, bool) {
	for _, sub := range subs {
		if !d.within(folder, sub) {
			continue
		}
		for _, inf := range usualInfos {
			e := d.entry(folder, sub, unique+inf)
			if stat(&e) {
				return e, true
			}
			if sub == "new" {
				break
			}
		}
	}
	return Entry{}, false
}

var errFound = errors.New("found")

func (d *Dir) search(folders []string, unique string) (Entry, error) {
	var found Entry
	var failed error
	for _, folder := range folders {
		for _, sub := range subs {
			if !d.within(folder, sub) {
				if path := filepath.Join(d.folderPath(folder), sub); failed == nil {
					_, failed = os.Lstat(path)
					if errors.Is(failed, fs.ErrNotExist) {
						failed = nil
					}
				}
				continue
			}
			err := readNames(filepath.Join(d.folderPath(folder), sub), func(name string) error {
				if !strings.HasPrefix(name, unique) {
					return nil
				}
				if e := d.entry(folder, sub, name); e.Unique == unique && stat(&e) {
					found = e
					return errFound
				}
				return nil
			})
			switch {
			case errors.Is(err, errFound):
				return found, nil
			case err != nil && !errors.Is(err, fs.ErrNotExist) && failed == nil:
				failed = err
			}
		}
	}
	// A folder that cannot be read may hold the message: that is not "gone".
	if failed != nil {
		return Entry{}, fmt.Errorf("maildir: find %q: %w", unique, failed)
	}
	return Entry{}, fmt.Errorf("maildir: find %q: %w", unique, ErrGone)
}

// stat fills e.Size and says whether something is at e.Path. Something that
// is not a regular file counts: whoever opens it says what is wrong with it.
func stat(e *Entry) bool {
	info, err := os.Lstat(e.Path)
	if err != nil {
		return false
	}
	e.Size, e.Time = info.Size(), info.ModTime()
	return true
}
