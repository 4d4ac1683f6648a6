// Package maildir reads and changes a Maildir++ on disk: it lists messages,
// reads them, delivers new ones, moves them between folders and sets their
// flags. Nothing is ever overwritten, and no name is taken away from a message
// that does not have another: a change is a rename that refuses an existing
// target, or, where there is none, a hard link and an unlink; folders are
// synced before it counts as done.
//
// A message's identity is its unique name, the part of the file name before
// the first ":". Folders are named as they are on disk ("A.B" for the folder
// ".A.B"; no translation from modified UTF-7), and "" is the INBOX.
//
// It may import the standard library, fsnotify and golang.org/x/sys.
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
	"sync/atomic"
	"syscall"
	"time"
)

var (
	// ErrNotMaildir: the path has no new/ and cur/.
	ErrNotMaildir = errors.New("not a Maildir")
	// ErrGone: no file of the Maildir has the message's unique name.
	ErrGone = errors.New("message is gone from the Maildir")
	// ErrTooLarge: the file is larger than the caller allows.
	ErrTooLarge = errors.New("message is too large")
	// ErrNotRegular: a FIFO, a directory, a symbolic link or a device lies
	// where a message should be.
	ErrNotRegular = errors.New("not a regular file")
	// ErrConflict: another file already has the name a message would get.
	ErrConflict = errors.New("another file has the target name")
	// ErrInvalidName: a file name whose unique part is empty or not UTF-8, or
	// a unique name that cannot be a file name.
	ErrInvalidName = errors.New("invalid message file name")
	// ErrInvalidFolder: a folder name that Maildir++ cannot express.
	ErrInvalidFolder = errors.New("invalid folder name")
	// ErrInvalidFlags: a flag that is not an ASCII letter.
	ErrInvalidFlags = errors.New("invalid flag")
)

const (
	dirMode  = 0o700
	fileMode = 0o600

	maxFolderBytes = 200
	// maxUniqueBytes leaves room for ":2," and flags below the 255 bytes a
	// file name may have.
	maxUniqueBytes = 200
	// readBatch is how many names one readdir call returns; it bounds the
	// memory of a listing whatever the folder's size.
	readBatch = 512
)

// subs are the two folders that hold messages. new/ comes first so that a
// message that moves to cur/ during a listing is met twice, not missed.
var subs = [...]string{"new", "cur"}

// Dir is an open Maildir. It keeps no descriptor and no cache and may be used
// by several goroutines and processes at once.
type Dir struct {
	path   string
	rename renamer
	seq    atomic.Uint64
}

// Entry is one message file.
type Entry struct {
	// Unique is the file name up to its first ":".
	Unique string
	// Folder is "" for the INBOX, otherwise the on-disk name without its
	// leading dot.
	Folder string
	// New says that the file is in new/: no client has looked at it.
	New bool
	// Flags are the letters after ":2,", sorted when this package wrote them.
	Flags string
	// Path is the file. It is a hint: another client may rename the file at
	// any time, and every method looks the message up again when it has gone.
	Path string
	// Size is the file's size in bytes, or -1 from Scan, which does not stat;
	// Time is when it was last changed, or zero.
	Size int64
	Time time.Time
}

// Open checks that path is a Maildir. A missing tmp/ is no error: only
// delivery needs it and makes it.
func Open(path string) (*Dir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("maildir: open %q: %w", path, err)
	}
	for _, sub := range subs {
		// Not through a link: what it points to is not part of this Maildir.
		info, err := os.Lstat(filepath.Join(abs, sub))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("maildir: open %q: no %s/: %w", path, sub, errors.Join(ErrNotMaildir, err))
		case err != nil:
			return nil, fmt.Errorf("maildir: open %q: %w", path, err)
		case !info.IsDir():
			return nil, fmt.Errorf("maildir: open %q: %s is not a directory: %w", path, sub, ErrNotMaildir)
		}
	}
	return &Dir{path: abs, rename: renameNoReplace}, nil
}

// Create makes what is missing of the Maildir at path, parents included, and
// opens it. On an existing Maildir it changes nothing. A folder that holds other
// things, and nothing of a Maildir, is refused: somebody meant another one.
func Create(path string) (*Dir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("maildir: create %q: %w", path, err)
	}
	other := false
	err = readNames(abs, func(name string) error {
		switch {
		case name == "tmp" || name == "new" || name == "cur":
			return errFound
		case name[0] != '.' && name != "lost+found":
			other = true
		}
		return nil
	})
	if err == nil && other {
		return nil, fmt.Errorf("maildir: create %q: it has neither new/ nor cur/ and is not empty: %w", path, ErrNotMaildir)
	}
	for _, sub := range []string{"tmp", "new", "cur"} {
		if err := makeDirs(filepath.Join(abs, sub)); err != nil {
			return nil, fmt.Errorf("maildir: create %q: %w", path, err)
		}
	}
	return Open(abs)
}

// Path returns the Maildir's absolute path.
func (d *Dir) Path() string { return d.path }

// Folders lists the Maildir++ folders, "" (the INBOX) first, the others in
// byte order. A directory counts when its name is a dot and a valid folder
// name and it holds cur/ or new/. Folders whose name cannot be expressed, or
// that are symbolic links, come back as problems.
func (d *Dir) Folders() (folders []string, problems []error, err error) {
	err = readNames(d.path, func(name string) error {
		if len(name) < 2 || name[0] != '.' || name == ".." {
			return nil
		}
		path := filepath.Join(d.path, name)
		info, err := os.Lstat(path)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				problems = append(problems, &PathError{Path: path, Err: err})
			}
			return nil
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			// A link back into the Maildir would show every message twice.
			if target, err := os.Stat(path); err == nil && target.IsDir() {
				problems = append(problems, &PathError{Path: path, Err: errors.New("a symbolic link is not followed")})
			}
			return nil
		}
		if !info.IsDir() {
			return nil
		}
		isFolder, err := holdsMail(path)
		if err != nil {
			problems = append(problems, &PathError{Path: path, Err: err})
			return nil
		}
		if !isFolder {
			return nil
		}
		folder, err := CleanFolder(name[1:])
		if err != nil || folder != name[1:] {
			problems = append(problems, &PathError{Path: path, Err: ErrInvalidFolder})
			return nil
		}
		folders = append(folders, folder)
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("maildir: list folders: %w", err)
	}
	slices.Sort(folders)
	return append([]string{""}, folders...), problems, nil
}

func holdsMail(path string) (bool, error) {
	for _, sub := range subs {
		info, err := os.Lstat(filepath.Join(path, sub))
		if err == nil && info.IsDir() {
			return true, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return false, nil
}

// PathError is a file or folder that could not be used, and why.
type PathError struct {
	Path string
	Err  error
}

func (e *PathError) Error() string {
	reason := e.Err
	// The system's own error repeats the operation and the path.
	var pe *fs.PathError
	if errors.As(reason, &pe) {
		reason = pe.Err
	}
	return fmt.Sprintf("%q: %v", e.Path, reason)
}

func (e *PathError) Unwrap() error { return e.Err }

func (d *Dir) folderPath(folder string) string {
	if folder == "" {
		return d.path
	}
	return filepath.Join(d.path, "."+folder)
}

// ensureFolder makes what is missing of a folder, with the marker that
// Maildir++ asks for in everything but the root.
func (d *Dir) ensureFolder(folder string) error {
	path := d.folderPath(folder)
	if info, err := os.Lstat(path); err == nil && !info.IsDir() {
		return &PathError{Path: path, Err: errors.New("is there and is not a directory")}
	}
	for _, sub := range []string{"tmp", "new", "cur"} {
		if err := makeSub(filepath.Join(path, sub)); err != nil {
			return err
		}
	}
	if folder == "" {
		return nil
	}
	marker, err := os.OpenFile(filepath.Join(path, "maildirfolder"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, fileMode)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := marker.Close(); err != nil {
		return err
	}
	return syncDir(path)
}

// makeSub makes one of a folder's three folders and refuses a link in its place.
func makeSub(path string) error {
	if err := makeDirs(path); err != nil {
		return err
	}
	if !isDir(path) {
		return &PathError{Path: path, Err: errors.New("a symbolic link is not followed")}
	}
	return nil
}

// isDir says whether there is a directory at path, not a link to one.
func isDir(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.IsDir()
}

// within says whether a folder's new/ or cur/ lies in this Maildir: neither the
// folder nor it is a link to elsewhere.
func (d *Dir) within(folder, sub string) bool {
	path := d.folderPath(folder)
	return (folder == "" || isDir(path)) && isDir(filepath.Join(path, sub))
}

// makeDirs is MkdirAll that also syncs the parent of each directory it makes,
// so that a delivered message is not lost with its folder's name.
func makeDirs(path string) error {
	err := os.Mkdir(path, dirMode)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeDirs(filepath.Dir(path)); err != nil {
			return err
		}
		err = os.Mkdir(path, dirMode)
	}
	if errors.Is(err, fs.ErrExist) {
		info, statErr := os.Stat(path)
		if statErr != nil {
			return statErr
		}
		if !info.IsDir() {
			return &PathError{Path: path, Err: errors.New("is there and is not a directory")}
		}
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = f.Sync()
	// Some network file systems have no sync for directories and say so.
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil
	}
	return errors.Join(err, f.Close())
}

// readNames calls fn for each name in a directory, in batches.
func readNames(path string, fn func(name string) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		names, err := f.Readdirnames(readBatch)
		for _, name := range names {
			if err := fn(name); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// CleanFolder turns a folder name given by a user into the one this package
// uses: "/" becomes ".", and INBOX in any case becomes "". A name has parts of
// at least one byte, no control character, valid UTF-8, and at most 200 bytes.
func CleanFolder(name string) (string, error) {
	if name == "" || strings.EqualFold(name, "INBOX") {
		return "", nil
	}
	folder := strings.ReplaceAll(name, "/", ".")
	if len(folder) > maxFolderBytes {
		return "", fmt.Errorf("maildir: %w: %d bytes, at most %d", ErrInvalidFolder, len(folder), maxFolderBytes)
	}
	if reason := badText(folder); reason != "" {
		return "", fmt.Errorf("maildir: %w: %s", ErrInvalidFolder, reason)
	}
	for part := range strings.SplitSeq(folder, ".") {
		if part == "" {
			return "", fmt.Errorf("maildir: %w %q: a part is empty (a leading, trailing or doubled dot or slash)", ErrInvalidFolder, name)
		}
		if strings.TrimSpace(part) != part {
			return "", fmt.Errorf("maildir: %w %q: a part begins or ends with a space", ErrInvalidFolder, name)
		}
	}
	return folder, nil
}
