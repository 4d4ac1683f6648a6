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
