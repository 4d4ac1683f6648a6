package libsql

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"github.com/postroom/postroom/core/libsql/internal/hrana"
	"github.com/postroom/postroom/migrations"
)

// What a copy of a database is read with. A read transaction holds up no
// writer; only the write-ahead log cannot be folded back while it lasts.
const (
	sqlSnapshot  = "SELECT count(*) FROM sqlite_master" // what is read next is of this moment
	sqlPageCount = "SELECT page_count FROM pragma_page_count"
	sqlPages     = "SELECT pgno, data FROM sqlite_dbpage ORDER BY pgno"
)

// inBackup is what meta.file says of a backup: wherever it is put, by whatever
// means, it is another file then, and gets a new epoch.
const inBackup = "backup"

// Backup writes the database as it is at one moment to a new file at to,
// syncs it and has SQLite check it. Others go on reading and writing
// meanwhile. An empty log stays beside the file until [Publish]. A copy that
// failed is removed. progress is told how many bytes are done, of how many.
func Backup(ctx context.Context, opt Options, to string, progress func(done, total int64)) error {
	opt, err := opt.withDefaults()
	if err != nil {
		return err
	}
	return makeFile(to, func(w io.Writer) error {
		p := &pages{ctx: ctx, w: w, progress: progress}
		if IsRemote(opt.Path) {
			return p.ofServer(opt)
		}
		return p.ofFile(opt)
	}, func() error {
		if err := mark(to); err != nil {
			return err
		}
		_, err := checkCopy(ctx, opt, to)
		return err
	})
}

// mark tells a copy that it is a backup.
func mark(path string) error {
	c, err := connect(path, "rw", writerRole, "FULL")
	if err != nil {
		return err
	}
	defer c.park("FULL")
	if _, _, err := readIdentity(c); err != nil {
		return err
	}
	if _, err := c.exec(sqlNoteFile, inBackup); err != nil {
		return err
	}
	rows, err := c.query("PRAGMA wal_checkpoint(TRUNCATE)") // the copy is the file alone
	if err == nil && rows[0].Int(0) != 0 {
		err = &Error{Class: Busy, Op: "backup", Detail: "another process has opened the copy"}
	}
	return err
}

// makeFile makes a new file, syncs it, and removes it again unless all goes well.
func makeFile(path string, fill func(io.Writer) error, check func() error) (err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create the copy: %w", err)
	}
	defer func() {
		if err != nil {
			Discard(path)
		}
	}()
	buf := bufio.NewWriterSize(file, 1<<20)
	err = fill(buf)
	if err == nil {
		err = buf.Flush()
	}
	if err == nil {
		err = file.Sync()
	}
	if closed := file.Close(); err == nil {
		err = closed // before SQLite opens it: this would drop its locks
	}
	if err != nil {
		return err
	}
	return check()
}

// pages receives a database page by page.
type pages struct {
	ctx      context.Context //nolint:containedctx // of one call
	w        io.Writer
	progress func(done, total int64)
	count    int64
	got      atomic.Int64
}

// take writes the next page.
func (p *pages) take(number, data any) error {
	if err := p.ctx.Err(); err != nil {
		return &Error{Class: Canceled, Op: "backup", cause: err}
	}
	text, ok := data.([]byte)
	if n, isInt := number.(int64); !ok || !isInt || n != p.got.Load()+1 || n > p.count || len(text) < 512 {
		return &Error{Class: Corrupt, Op: "backup", Detail: "the pages of the database do not come one after the other"}
	}
	if _, err := p.w.Write(text); err != nil {
		return fmt.Errorf("write the copy: %w", err)
	}
	if got := p.got.Add(1); got%256 == 0 || got == p.count {
		p.progress(got*int64(len(text)), p.count*int64(len(text)))
	}
	return nil
}

// all is nil when every page has come.
func (p *pages) all() error {
	if got := p.got.Load(); p.count == 0 || got != p.count {
		return &Error{Class: Corrupt, Op: "backup", Detail: fmt.Sprintf("%d of %d pages could be read", got, p.count)}
	}
	return nil
}

func (p *pages) ofFile(opt Options) error {
	var c *conn
	err := waitBusy(p.ctx, opt, opt.BusyTimeout, func() (err error) {
		c, err = connect(opt.Path, "rw", readerRole, opt.Synchronous)
		return err
	})
	if err != nil {
		return err
	}
	defer c.park(opt.Synchronous) // which ends the transaction
	if _, err := c.exec("BEGIN"); err != nil {
		return err
	}
	if _, err := c.query(sqlSnapshot); err != nil {
		return err
	}
	rows, err := c.query(sqlPageCount)
	if err != nil {
		return err
	}
	p.count = rows[0].Int(0)
	if err := c.each(sqlPages, nil, func(_ []string, vals []any) error { return p.take(vals[0], vals[1]) }); err != nil {
		return err
	}
	return p.all()
}

// ofServer reads the pages as one answer, as it comes.
func (p *pages) ofServer(opt Options) error {
	client, err := dial(opt)
	if err != nil {
		return err
	}
	defer client.Close()
	prog := &program{}
	prog.begin = prog.add(nil, Exec("BEGIN"))
	snapshot := prog.add(following(prog.begin), Query(sqlSnapshot))
	count := prog.add(following(snapshot), Query(sqlPageCount))
	data := prog.add(following(count), Query(sqlPages))
	prog.add(hrana.InTransaction(), Exec("ROLLBACK"))
	ctx, cancel := context.WithCancelCause(p.ctx)
	defer cancel(nil)
	opt.System.Go("stall", func() { p.endIfStalled(ctx, opt, cancel) })
	var mine error
	res, err := client.Stream(ctx, prog.steps, func(step int, row []any) error {
		switch {
		case step == count && len(row) == 1:
			p.count, _ = row[0].(int64)
		case step == data && len(row) == 2:
			mine = p.take(row[0], row[1])
		}
		return mine
	})
	switch {
	case mine != nil:
		return mine
	case context.Cause(ctx) != nil && p.ctx.Err() == nil:
		return context.Cause(ctx)
	case err != nil:
		return ofRequest("backup", err, false)
	}
	for _, step := range []int{prog.begin, snapshot, count, data} {
		if err := stepError(res[step]); err != nil {
			return inOp(err, "backup")
		}
	}
	return p.all()
}

// endIfStalled gives a server up that has sent no page for as long as a call
// may take.
func (p *pages) endIfStalled(ctx context.Context, opt Options, end context.CancelCauseFunc) {
	for before := int64(-1); ; {
		t := opt.System.NewTimer(opt.CallTimeout)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C():
		}
		now := p.got.Load()
		if now == before {
			end(&Error{Class: Unavailable, Op: "backup", Detail: "the server stopped sending"})
			return
		}
		before = now
	}
}

// checkCopy has SQLite check a file that nobody writes to, and refuses one
// that is no Postroom database, or one of a later version that this program
// cannot use.
func checkCopy(ctx context.Context, opt Options, path string) (SchemaStatus, error) {
	type answer struct {
		st  SchemaStatus
		err error
	}
	done := make(chan answer, 1)
	opt.System.Go("check", func() { // the driver is deaf to contexts
		st, err := check(path)
		done <- answer{st, err}
	})
	select {
	case a := <-done:
		return a.st, a.err
	case <-ctx.Done():
		return SchemaStatus{}, &Error{Class: Canceled, Op: "check", cause: ctx.Err()}
	}
}

func check(path string) (st SchemaStatus, err error) {
	all, err := versions(migrations.FS)
	if err != nil {
		return st, err
	}
	st.Latest = all[len(all)-1]
	c, err := openImmutable(path)
	if err != nil {
		return st, err
	}
	if _, _, err := readIdentity(c); err != nil {
		return st, err
	}
	rows, err := c.query("PRAGMA quick_check(1)")
	if err == nil && (len(rows) != 1 || rows[0].Str(0) != "ok") {
		err = &Error{Class: Corrupt, Op: "check", Detail: "SQLite's quick_check finds damage"}
	}
	if err != nil {
		return st, err
	}
	return st, st.read(func(sql string) ([]Row, error) { return c.query(sql) })
}

// Discard removes a copy and what lies beside it.
func Discard(path string) {
	for _, suffix := range []string{"", "-wal", "-shm"} {
		_ = os.Remove(path + suffix) // why it goes matters more
	}
}

// Publish ends the work on a copy that was opened and not written to: it
// removes the empty log that lies beside it then, and moves it to its name,
// where nothing may be yet.
func Publish(copied, to string) error {
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Remove(copied + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	err := os.Link(copied, to)
	switch {
	case err == nil:
		err = os.Remove(copied)
	case errors.Is(err, fs.ErrExist):
	default: // a file system without hard links: the name is taken first
		var file *os.File
		if file, err = os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err == nil {
			err = errors.Join(file.Close(), os.Rename(copied, to))
		}
	}
	if err != nil {
		return err
	}
	return syncFolder(to)
}

// syncFolder makes the names in the folder of path outlast a power failure.
func syncFolder(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Restored is what became of a restore.
type Restored struct {
	Schema int64  // of the database that is there now
	Bytes  int64  // its size
	Aside  string // where the database lies that was there before, "" for none
}

// Restore puts a copy of the backup at from in the place of the database at
// opt.Path. A database that is there is set aside, if replace says so. No
// process may have it open, this one included, nor may this one open it
// afterwards without need.
func Restore(ctx context.Context, opt Options, from string, replace bool, progress func(done, total int64)) (out Restored, err error) {
	opt, err = opt.withDefaults()
	if err != nil {
		return out, err
	}
	if IsRemote(opt.Path) {
		return out, errors.New("a server's database is restored on the server's machine, to its file")
	}
	if err := restorable(opt.Path, from, replace); err != nil {
		return out, err
	}
	fresh := opt.Path + ".restore"
	err = makeFile(fresh, func(w io.Writer) (err error) {
		out.Bytes, err = copyTo(ctx, w, from, progress)
		return err
	}, func() error {
		st, err := checkCopy(ctx, opt, fresh)
		switch {
		case err != nil:
			return fmt.Errorf("%q is no sound backup of a Postroom database: %w", from, err)
		case st.MinCompatible > st.Latest:
			return fmt.Errorf("%q has schema %d: %w", from, st.Version, ErrIncompatible)
		}
		out.Schema = st.Version
		return unheld(opt.Path) // a service may have started meanwhile
	})
	if errors.Is(err, fs.ErrExist) {
		return out, fmt.Errorf("%w: another restore is under way, or one was cut off: then remove that file", err)
	}
	if err != nil {
		return out, err
	}
	aside := opt.Path + ".replaced-" + opt.System.Now().UTC().Format("20060102T150405.000Z")
	out.Aside, err = setAside(opt.Path, aside)
	if err == nil {
		err = Publish(fresh, opt.Path)
	}
	if err != nil {
		Discard(fresh)
		return out, fmt.Errorf("put the backup in its place: %w", err)
	}
	return out, nil
}

// restorable refuses what must not be restored, or not there.
func restorable(path, from string, replace bool) error {
	backup, err := os.Stat(from)
	switch {
	case err != nil:
		return err
	case !backup.Mode().IsRegular() || backup.Size() == 0:
		return fmt.Errorf("%q is no sound backup of a Postroom database: it is no file, or empty", from)
	}
	if log, err := os.Stat(from + "-wal"); err == nil && log.Size() > 0 {
		return fmt.Errorf("%q is a database that is in use, or was copied by hand: a part of it lies in %q", from, from+"-wal")
	}
	there, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			return &Error{Class: Unavailable, Op: "create", Detail: "the database folder cannot be created", cause: err}
		}
		return nil
	case err != nil:
		return err
	case os.SameFile(there, backup):
		return fmt.Errorf("%q is the database itself", from)
	case !replace:
		return fmt.Errorf("there is a database at %q already: with -replace it is set aside", path)
	}
	return unheld(path)
}

// The header of a database file: what it begins with, and two bytes that say
// whether it has a write-ahead log.
const (
	magic      = "SQLite format 3\x00"
	logAt      = 18
	hasLog     = "\x02\x02"
	headerSize = 100
)

// copyTo copies a database file. What VACUUM INTO made has no write-ahead log;
// the copy has one, for everything here relies on it.
func copyTo(ctx context.Context, w io.Writer, from string, progress func(done, total int64)) (done int64, err error) {
	in, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return 0, err
	}
	head := make([]byte, headerSize)
	if _, err := io.ReadFull(in, head); err != nil || string(head[:len(magic)]) != magic {
		return 0, fmt.Errorf("%q is no sound backup of a Postroom database: it is no file of SQLite's", from)
	}
	copy(head[logAt:], hasLog)
	if _, err := w.Write(head); err != nil {
		return 0, fmt.Errorf("write the copy: %w", err)
	}
	for done = headerSize; ; {
		n, err := io.CopyN(w, in, 1<<20)
		done += n
		progress(done, info.Size())
		switch {
		case errors.Is(err, io.EOF):
			return done, nil
		case err != nil:
			return done, fmt.Errorf("copy the backup: %w", err)
		case ctx.Err() != nil:
			return done, &Error{Class: Canceled, Op: "restore", cause: ctx.Err()}
		}
	}
}

// setAside renames the database at path, and its log, so that together they
// are one under the other name. It returns "" when there is none.
func setAside(path, aside string) (string, error) {
	moved := ""
	for _, suffix := range []string{"", "-wal", "-shm"} {
		err := os.Rename(path+suffix, aside+suffix)
		switch {
		case err == nil && suffix == "":
			moved = aside
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return moved, fmt.Errorf("set the present database aside: %w", err)
		}
	}
	return moved, nil
}

// The bytes of a database file that SQLite's connections lock.
const lockStart, lockLength = 0x40000000, 512

// unheld refuses a database that another process has open: each connection
// keeps a lock on it. It opens and closes the file, which would drop the locks
// of this process.
func unheld(path string) error {
	file, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	defer file.Close()
	l := syscall.Flock_t{Type: syscall.F_WRLCK, Start: lockStart, Len: lockLength}
	if err := syscall.FcntlFlock(file.Fd(), syscall.F_GETLK, &l); err != nil {
		return fmt.Errorf("ask who has the database open: %w", err)
	}
	if l.Type == syscall.F_UNLCK {
		return nil
	}
	who := "another process"
	if l.Pid > 0 {
		who = fmt.Sprintf("process %d", l.Pid)
	}
	return &Error{Class: Busy, Op: "restore", Detail: who + " has the database open: stop the services first"}
}
