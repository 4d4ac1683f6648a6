package libsql

import (
	"path/filepath"
	"syscall"
)

// enoughRoom is how much must be free on the disk before a database that has
// found it full counts as well again: small commits succeed long before that,
// in what failed ones have left in the log.
const enoughRoom = 1 << 20

// hasRoom looks at the disk of the file at path. A disk that tells nothing is
// taken to have room.
func hasRoom(path string) bool {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(path), &fs); err != nil {
		return true
	}
	return fs.Bavail*uint64(fs.Bsize) >= enoughRoom // whose types are others on other systems
}
