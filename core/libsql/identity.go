package libsql

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// fileID is what a path means at one moment. An open descriptor keeps the
// inode from being reused, so equal ids are the same file.
type fileID struct {
	dev, ino uint64
	wal      uint64 // inode of the write-ahead log, 0 while there is none
}

// sameFile compares the database files alone, not their logs.
func (f fileID) sameFile(g fileID) bool { return f.dev == g.dev && f.ino == g.ino }

// statFile looks at the path without opening it: opening and closing the
// database file by other means than SQLite would drop its POSIX locks.
func statFile(path string) (fileID, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fileID{}, &Error{Class: Unavailable, Op: "open", Detail: "the database file is missing"}
	case err != nil:
		return fileID{}, &Error{Class: Unavailable, Op: "open", Detail: "the database file cannot be looked at"}
	case !info.Mode().IsRegular():
		return fileID{}, &Error{Class: Unavailable, Op: "open", Detail: "the database path is not a regular file"}
	case info.Size() == 0:
		return fileID{}, &Error{Class: Unavailable, Op: "open", Detail: "the database file is empty"}
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}, &Error{Class: Unavailable, Op: "open", Detail: "this system does not identify files"}
	}
	id := fileID{dev: uint64(st.Dev), ino: st.Ino} //nolint:unconvert // Dev is int32 on darwin
	if wal, err := os.Stat(path + "-wal"); err == nil {
		if st, ok := wal.Sys().(*syscall.Stat_t); ok {
			id.wal = st.Ino
		}
	}
	return id, nil
}
