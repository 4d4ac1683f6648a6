package maildir

import (
	"os"

	"golang.org/x/sys/unix"
)

func renameNoReplace(source, target string) error {
	err := unix.Renameat2(unix.AT_FDCWD, source, unix.AT_FDCWD, target, unix.RENAME_NOREPLACE)
	if err != nil {
		return &os.LinkError{Op: "renameat2", Old: source, New: target, Err: err}
	}
	return nil
}
