package libsql

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/postroom/postroom/core/libsql/internal/native"
)

// fileID is what a path means at one moment. An open descriptor keeps the
// inode from being reused, so equal ids are the same file.
type fileID struct {
	dev, ino uint64
	wal, shm uint64 // inodes of the write-ahead log and its index, 0 while there are none
}

// sameFile compares the database files alone, not their logs.
func (f fileID) sameFile(g fileID) bool { return f.dev == g.dev && f.ino == g.ino }

// bare is the identity of the database file without its log.
func (f fileID) bare() fileID { return fileID{dev: f.dev, ino: f.ino} }

// sharesLog says whether two database files have the same log or index beside
// them: SQLite would read the pages of one through the log of the other.
func (f fileID) sharesLog(g fileID) bool {
	return f.dev == g.dev && (f.wal != 0 && f.wal == g.wal || f.shm != 0 && f.shm == g.shm)
}

// statFile looks at the path without opening it: opening and closing the
// database file by other means than SQLite would drop its POSIX locks. Of an
// empty file it returns the identity beside the error.
func statFile(path string) (fileID, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fileID{}, &Error{Class: Unavailable, Op: "open", Detail: "the database file is missing"}
	case err != nil:
		return fileID{}, &Error{Class: Unavailable, Op: "open", Detail: "the database file cannot be looked at"}
	case !info.Mode().IsRegular():
		return fileID{}, &Error{Class: Unavailable, Op: "open", Detail: "the database path is not a regular file"}
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}, &Error{Class: Unavailable, Op: "open", Detail: "this system does not identify files"}
	}
	id := fileID{dev: uint64(st.Dev), ino: st.Ino} //nolint:unconvert // Dev is int32 on darwin
	if info.Size() == 0 {
		return id, &Error{Class: Unavailable, Op: "open", Detail: "the database file is empty"}
	}
	id.wal, id.shm = inode(path+"-wal"), inode(path+"-shm")
	return id, nil
}

// inode is 0 for a file that cannot be looked at.
func inode(path string) uint64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return st.Ino
}

// settled is how long a file must have stayed the same before it is opened
// to see what it is: one that is still being copied is left alone.
const settled = 100 * time.Millisecond

// verdict is what was found out about a file that took the place of the known
// one, so that each such file is opened once and not at every look.
type verdict struct {
	file    fileID // without its log
	size    int64
	changed time.Time
	since   time.Time // when it was first seen like this
	opened  bool
	err     error
}

// recognise looks into a file that took the place of the known one while the
// known one's log still lies beside it, and returns nil if it is the same
// database, a restored backup. It reads the file as if nothing lay beside it:
// SQLite would read the new pages through the old log. That log, whose data
// went with the old file, is then set aside.
func (f *File) recognise(known fileID) error {
	now, err := statFile(f.opt.Path)
	if err != nil {
		return err
	}
	info, err := os.Stat(f.opt.Path)
	if err != nil {
		return &Error{Class: Unavailable, Op: "open", Detail: "the database file is missing"}
	}
	f.judging.Lock()
	defer f.judging.Unlock()
	v := &f.judged
	if v.file != now.bare() || v.size != info.Size() || !v.changed.Equal(info.ModTime()) {
		*v = verdict{file: now.bare(), size: info.Size(), changed: info.ModTime(), since: f.opt.System.Now()}
	}
	switch {
	case v.opened:
	case f.opt.System.Now().Sub(v.since) < settled:
		return &Error{Class: Unavailable, Op: "open", Detail: "the database file was replaced just now"}
	default:
		v.opened, v.err = true, f.compare()
	}
	if v.err == nil && now.sharesLog(known) {
		return setLogAside(f.opt.Path, known)
	}
	return v.err
}

// openImmutable opens a file without its log and without locks. The connection
// is to be left behind: it must not be used again later, nor closed.
func openImmutable(path string) (*conn, error) {
	opened, err := native.Open("file:" + escapePath(path) + "?mode=ro&immutable=1")
	if err != nil {
		return nil, classify("open", err)
	}
	return &conn{native: opened}, nil
}

// compare looks into the file at the path by itself.
func (f *File) compare() error {
	c, err := openImmutable(f.opt.Path)
	if err != nil {
		return err
	}
	id, _, err := readIdentity(c)
	switch {
	case err == nil && id != f.databaseID, errors.Is(err, errNotPostroom):
		return &Error{Class: Unavailable, Op: "open", Detail: "the database file was replaced by another database"}
	case ClassOf(err) == Corrupt: // a header that promises more pages than there are is corrupt, too
		return &Error{Class: Unavailable, Op: "open", Detail: "the database file was replaced by another database or one that is still being copied"}
	}
	return err
}

// setLogAside renames the log and index of a file that is gone, if they still
// lie at the path. Processes take turns, so that none takes the new file's
// log for the old one's.
func setLogAside(path string, known fileID) error {
	failed := func(err error) error {
		return &Error{Class: Unavailable, Op: "open", Detail: "the replaced file's write-ahead log cannot be set aside", cause: err}
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return failed(err)
	}
	defer dir.Close()
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		return failed(err)
	}
	// The log first: its index without it is an error to SQLite, but it
	// without its index would be read.
	for _, part := range []struct {
		path string
		ino  uint64
	}{{path + "-wal", known.wal}, {path + "-shm", known.shm}} {
		if part.ino != 0 && inode(part.path) == part.ino {
			if err := os.Rename(part.path, part.path+".replaced"); err != nil {
				return failed(err)
			}
		}
	}
	return nil
}
