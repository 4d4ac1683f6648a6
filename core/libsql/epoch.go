package libsql

import (
	"encoding/hex"
	"fmt"
)

// The epoch of a database, in meta, changes when a backup is restored: numbers
// that were given out since the backup was made (job_log.seq) are then given
// again, for something else. What tells a restore is that the database knows
// in which file it lies: meta has the file's identity under the key 'file'. A
// copy of the file, wherever it is put, is another file.
//
// The new epoch is written in the transaction of the first write to the file,
// before everything else in it. So no number is ever given under the old one,
// and whoever only reads does not have to write.

// home is the identity of a database file that outlives its processes. Inode
// numbers are given again once a file is deleted, so it also has the time at
// which the file was made, where the system tells that; a copy does not
// inherit it.
func home(path string, file fileID) string {
	return fmt.Sprintf("%d:%d:%d", file.dev, file.ino, birth(path))
}

// sqlNewEpoch changes the epoch of a database that lies in another file than
// the last time. One whose file was never noted is a new one.
const sqlNewEpoch = `UPDATE meta SET value = ?, updated_at = (SELECT ms FROM db_clock)
 WHERE key = 'epoch' AND EXISTS (SELECT 1 FROM meta WHERE key = 'file' AND value <> ?)`

const sqlNoteFile = `INSERT INTO meta(key, value, created_at, updated_at) SELECT 'file', ?, ms, ms FROM db_clock WHERE true
 ON CONFLICT DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at WHERE value <> excluded.value`

const sqlNoteFirst = `INSERT INTO meta(key, value, created_at, updated_at) SELECT 'file', ?, ms, ms FROM db_clock WHERE true ON CONFLICT DO NOTHING`

// noteHome remembers that the accepted file has yet to be told where it lies,
// unless it knows. The caller holds f.mu.
func (f *File) noteHome(c *conn, stored string) {
	f.homeless = ""
	if now := home(f.opt.Path, c.file); now != stored {
		f.homeless = now
	}
}

// settleSoon has a write that nobody waits for give the file its new epoch.
// Where that fails, the next one does it.
func (f *File) settleSoon() {
	f.mu.Lock()
	needed := f.opt.Settle && f.homeless != ""
	f.mu.Unlock()
	if needed {
		f.opt.System.Go("settle", func() { _, _ = f.Write(f.life, &Batch{}) })
	}
}

// settle records in the open transaction where the file lies, if it does not
// know yet, and gives it a new epoch if it was put there. It returns what it
// recorded.
func (f *File) settle(c *conn) (string, error) {
	f.mu.Lock()
	now := f.homeless
	if c.file != f.id {
		now = ""
	}
	f.mu.Unlock()
	if now == "" {
		return "", nil
	}
	var epoch [8]byte
	f.opt.System.Read(epoch[:])
	// Another process may have been first: then neither changes anything.
	_, err := c.exec(sqlNewEpoch, hex.EncodeToString(epoch[:]), now)
	if err == nil {
		_, err = c.exec(sqlNoteFile, now)
	}
	return now, err
}

// settled takes note that what settle recorded was committed.
func (f *File) settled(recorded string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.homeless == recorded {
		f.homeless = ""
	}
}
