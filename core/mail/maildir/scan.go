package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// maxProblems bounds what a ScanError keeps; it counts them all.
const maxProblems = 100

// ScanError says that a listing reached its end but left out files or folders
// it could not use. Everything else was listed.
type ScanError struct {
	// Count is how many files and folders were left out.
	Count int
	// Incomplete: a directory could not be read to its end, so that messages
	// in it may not have been listed.
	Incomplete bool
	// Problems are the first 100 of them, each a *PathError.
	Problems []error
}

func (e *ScanError) Error() string {
	return fmt.Sprintf("maildir: scan left out %d of what it found, first %v", e.Count, e.Problems[0])
}

// Unwrap gives errors.Is and errors.As the problems that were kept.
func (e *ScanError) Unwrap() []error { return e.Problems }

func (e *ScanError) add(err error) {
	e.Count++
	if len(e.Problems) < maxProblems {
		e.Problems = append(e.Problems, err)
	}
}

func (e *ScanError) orNil() error {
	if e.Count == 0 {
		return nil
	}
	return e
}

// Scan calls fn for each message of the INBOX and of all folders. It holds one
// batch of names at a time. An error of fn, and the end of ctx, stop it and
// are returned as they are; files and folders it cannot use do not stop it and
// come back at the end as one *ScanError. A message that moves while Scan runs
// may be seen twice, or, if it moves to a folder already passed, not until the
// next Scan.
func (d *Dir) Scan(ctx context.Context, fn func(Entry) error) error {
	folders, problems, err := d.Folders()
	if err != nil {
		return err
	}
	var left ScanError
	for _, p := range problems {
		left.add(p)
	}
	for _, folder := range folders {
		if err := d.scanFolder(ctx, folder, &left, fn); err != nil {
			return err
		}
	}
	return left.orNil()
}

// ScanFolder is Scan for one folder, "" for the INBOX.
func (d *Dir) ScanFolder(ctx context.Context, folder string, fn func(Entry) error) error {
	folder, err := CleanFolder(folder)
	if err != nil {
		return err
	}
	var left ScanError
	if err := d.scanFolder(ctx, folder, &left, fn); err != nil {
		return err
	}
	return left.orNil()
}

// Sub is one directory that holds messages.
type Sub struct {
	Folder string
	New    bool // new/, otherwise cur/
}

func (s Sub) name() string {
	if s.New {
		return "new"
	}
	return "cur"
}

// Changed is when the directory last changed: when a name in it was added,
// removed or changed. A directory that is not there has changed at 0.
func (d *Dir) Changed(s Sub) (ns int64, err error) {
	info, err := os.Lstat(filepath.Join(d.folderPath(s.Folder), s.name()))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("maildir: %w", err)
	}
	return info.ModTime().UnixNano(), nil
}

// ScanSub is Scan for one directory.
func (d *Dir) ScanSub(ctx context.Context, s Sub, fn func(Entry) error) error {
	var left ScanError
	if err := d.scanSub(ctx, s.Folder, s.name(), &left, fn); err != nil {
		return err
	}
	return left.orNil()
}

func (d *Dir) scanFolder(ctx context.Context, folder string, left *ScanError, fn func(Entry) error) error {
	for _, sub := range subs {
		if err := d.scanSub(ctx, folder, sub, left, fn); err != nil {
			return err
		}
	}
	return nil
}

func (d *Dir) scanSub(ctx context.Context, folder, sub string, left *ScanError, fn func(Entry) error) error {
	path := filepath.Join(d.folderPath(folder), sub)
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		left.add(&PathError{Path: path, Err: errors.New("a symbolic link is not followed")})
		left.Incomplete = true
		return ctx.Err()
	}
	f, err := os.Open(path)
	if err != nil {
		// A folder of another client may lack one of the two, or have been
		// deleted since it was listed; the INBOX may not.
		if folder == "" || !errors.Is(err, fs.ErrNotExist) {
			left.add(&PathError{Path: path, Err: err})
			left.Incomplete = true
		}
		return ctx.Err()
	}
	defer f.Close()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		batch, err := f.ReadDir(readBatch)
		for _, de := range batch {
			name := de.Name()
			if name[0] == '.' {
				continue
			}
			// Only a file system that keeps no types in its directories
			// makes Type need a stat, and ReadDir has done it by then.
			if !de.Type().IsRegular() {
				left.add(&PathError{Path: filepath.Join(path, name), Err: ErrNotRegular})
				continue
			}
			if err := ValidName(name); err != nil {
				left.add(&PathError{Path: filepath.Join(path, name), Err: err})
				continue
			}
			if err := fn(d.entry(folder, sub, name)); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			left.add(&PathError{Path: path, Err: err})
			left.Incomplete = true
			return nil
		}
	}
}
