package maildir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Why not only link and unlink: between the two the message has two names, and
// two movers that each meet the other's new name and finish the other's work
// would unlink both. A rename that refuses an existing target has no such
// moment. Where the file system lacks it, link and unlink run under a lock that
// all users of this package share, and so does every unlink of a second name.

// renamer is renameNoReplace; tests put a file system without it in its place.
type renamer func(source, target string) error

// relocate gives from's file the name target and takes the old name away. The
// new name is durable before anything relies on it.
func (d *Dir) relocate(rename renamer, from Entry, target string) error {
	source := from.Path
	err := rename(source, target)
	if unsupported(err) {
		err = d.locked(func() error { return d.linkUnlink(from, target) })
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		err = d.locked(func() error { return completeMove(source, target) })
	case errors.Is(err, fs.ErrNotExist):
		if _, statErr := os.Lstat(source); errors.Is(statErr, fs.ErrNotExist) {
			return errMoved
		}
	case errors.Is(err, syscall.EXDEV):
		return fmt.Errorf("%w: the folders of one Maildir must be on one file system", err)
	}
	if err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(target)); err != nil {
		return err
	}
	if filepath.Dir(source) == filepath.Dir(target) {
		return nil
	}
	return syncDir(filepath.Dir(source))
}

// linkUnlink is relocate's way on a file system that cannot rename without
// replacing. The caller holds the lock.
func (d *Dir) linkUnlink(from Entry, target string) error {
	if err := os.Link(from.Path, target); err != nil {
		if unsupported(err) || errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EMLINK) {
			return fmt.Errorf("neither a rename that keeps an existing file nor a hard link is possible here: %w", err)
		}
		return err
	}
	if err := syncDir(filepath.Dir(target)); err != nil {
		return err
	}
	err := os.Remove(from.Path)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Another client renamed the source in between. Give way to its name, if
	// it can be found, and start again from there.
	if _, ok := d.twin(from, target); !ok {
		return nil
	}
	if err := os.Remove(target); err != nil {
		return err
	}
	return errMoved
}

// completeMove is for a target that exists: if it is the source's own file, an
// earlier move was cut off between link and unlink, and the unlink is done.
// The caller holds the lock.
func completeMove(source, target string) error {
	same, err := sameFile(source, target)
	if err != nil {
		return err
	}
	if !same {
		return &PathError{Path: target, Err: ErrConflict}
	}
	return removeOld(source)
}

// dropTwin completes a change of flags that was cut off between its link and
// its unlink, when the message was found under its new name.
func (d *Dir) dropTwin(e Entry) error {
	return d.locked(func() error {
		twin, ok := d.twin(e, e.Path)
		if !ok {
			return nil
		}
		if err := removeOld(twin); err != nil {
			return err
		}
		return syncDir(filepath.Dir(twin))
	})
}

func removeOld(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// twin looks in e's folder for a second name of the file at path.
func (d *Dir) twin(e Entry, path string) (string, bool) {
	twin := ""
	for _, sub := range subs {
		dir := filepath.Join(d.folderPath(e.Folder), sub)
		err := readNames(dir, func(name string) error {
			other := filepath.Join(dir, name)
			if unique, _ := splitName(name); unique != e.Unique || other == path {
				return nil
			}
			if same, err := sameFile(other, path); err == nil && same {
				twin = other
				return errFound
			}
			return nil
		})
		if errors.Is(err, errFound) {
			return twin, true
		}
	}
	return "", false
}

// sameFile says errMoved when one of the two is no longer there.
func sameFile(a, b string) (bool, error) {
	var infos [2]fs.FileInfo
	for i, path := range [...]string{a, b} {
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return false, errMoved
		}
		if err != nil {
			return false, err
		}
		infos[i] = info
	}
	return os.SameFile(infos[0], infos[1]), nil
}

func links(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Nlink) //nolint:unconvert // narrower on darwin and arm64
	}
	return 1
}

// unsupported says that the file system or the kernel lacks the operation.
// EINVAL is what file systems without flags for rename answer.
func unsupported(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL)
}

const (
	lockWait  = 10 * time.Second
	lockRetry = 5 * time.Millisecond
)

// locked runs fn while no other user of this package, in any process, runs
// one on this Maildir. The lock lies on the root folder itself, so it leaves
// no file behind and ends with its process.
func (d *Dir) locked(fn func() error) error {
	f, err := os.Open(d.path)
	if err != nil {
		return err
	}
	defer f.Close()
	deadline := time.Now().Add(lockWait)
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return fn()
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("lock the Maildir: %w", err)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("lock the Maildir: another process has held it for %v", lockWait)
		}
		time.Sleep(lockRetry) //nolint:forbidigo // a file lock has no signal, and the wait is bounded
	}
}

// linkOrRename gives a file that only we know its first public name.
func linkOrRename(hard func(source, target string) error, source, target string) error {
	err := hard(source, target)
	if !unsupported(err) && !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.EMLINK) {
		return err
	}
	renameErr := renameNoReplace(source, target)
	if renameErr == nil || errors.Is(renameErr, fs.ErrExist) || errors.Is(renameErr, fs.ErrNotExist) {
		return renameErr
	}
	return fmt.Errorf("neither a hard link (%w) nor a rename that keeps an existing file (%w) is possible here", err, renameErr)
}
