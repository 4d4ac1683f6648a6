package libsql

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/golang-migrate/migrate/v4"
	"github.com/golang-migrate/migrate/v4/database"
	"github.com/golang-migrate/migrate/v4/source/iofs"

	"github.com/postroom/postroom/migrations"
)

// migrateLockTimeout is how long a process waits for another one that is
// migrating. It is generous: the other one is doing the work.
const migrateLockTimeout = time.Minute

// ErrIncompatible is returned for a schema that a later version changed in a
// way this one cannot work with.
var ErrIncompatible = errors.New("the database was migrated by a newer, incompatible version of Postroom: upgrade this program")

// SchemaStatus says where a database stands.
type SchemaStatus struct {
	Version       int64   `json:"version"`        // 0 for an empty or missing database
	Latest        int64   `json:"latest"`         // newest migration this program carries
	MinCompatible int64   `json:"min_compatible"` // oldest program schema that can use the database
	Pending       []int64 `json:"pending"`        // migrations that Migrate would apply

	carried int // migrations in this program
}

// Migrate brings the database at opt.Path to the newest schema, creating a
// file and its folder where needed. Any number of processes may call it at once: one
// migrates, the others wait and find nothing to do. A migration that fails
// leaves nothing behind.
func Migrate(ctx context.Context, opt Options) error {
	opt, err := opt.withDefaults()
	if err != nil {
		return err
	}
	return migrateUp(ctx, opt, migrations.FS)
}

func migrateUp(ctx context.Context, opt Options, source fs.FS) error {
	st, err := schema(ctx, opt, migrateLockTimeout, source)
	if err != nil {
		return err
	}
	if st.MinCompatible > st.Latest {
		return fmt.Errorf("migrate: schema %d: %w", st.Version, ErrIncompatible)
	}
	if st.Version >= st.Latest {
		return nil
	}
	if IsRemote(opt.Path) {
		// Busy: another process was faster.
		return waitBusy(ctx, opt, migrateLockTimeout, func() error { return migrateRemote(ctx, opt, source, (*migrate.Migrate).Up) })
	}
	if err := createFile(opt.Path); err != nil {
		return err
	}
	return withMigrator(ctx, opt, source, (*migrate.Migrate).Up)
}

// MigrateDown takes back the last steps migrations; steps ≤ 0 takes back all.
func MigrateDown(ctx context.Context, opt Options, steps int) error {
	opt, err := opt.withDefaults()
	if err != nil {
		return err
	}
	st, err := schema(ctx, opt, migrateLockTimeout, migrations.FS)
	if err != nil {
		return err
	}
	applied := st.applied()
	switch {
	case st.Version > st.Latest:
		return fmt.Errorf("migrate down: schema %d is newer than this program's %d: use the program that applied it", st.Version, st.Latest)
	case steps > applied:
		return fmt.Errorf("migrate down: %d steps were asked for, %d migrations are applied", steps, applied)
	case applied == 0:
		return nil // and a missing file is not created
	}
	down := func(m *migrate.Migrate) error {
		if steps <= 0 {
			return m.Down()
		}
		return m.Steps(-steps)
	}
	if IsRemote(opt.Path) {
		return migrateRemote(ctx, opt, migrations.FS, down)
	}
	return withMigrator(ctx, opt, migrations.FS, down)
}

// Schema reads the status of the database at opt.Path without writing. A
// missing file has version 0.
func Schema(ctx context.Context, opt Options) (SchemaStatus, error) {
	opt, err := opt.withDefaults()
	if err != nil {
		return SchemaStatus{}, err
	}
	return schema(ctx, opt, opt.BusyTimeout, migrations.FS)
}

func schema(ctx context.Context, opt Options, limit time.Duration, source fs.FS) (SchemaStatus, error) {
	st := SchemaStatus{Pending: []int64{}}
	all, err := versions(source)
	if err != nil {
		return st, err
	}
	st.carried = len(all)
	st.Latest = all[len(all)-1]
	if err := readSchema(ctx, opt, limit, &st); err != nil {
		return st, err
	}
	for _, v := range all {
		if v > st.Version {
			st.Pending = append(st.Pending, v)
		}
	}
	return st, nil
}

func (st SchemaStatus) applied() int { return st.carried - len(st.Pending) }

func readSchema(ctx context.Context, opt Options, limit time.Duration, st *SchemaStatus) error {
	if IsRemote(opt.Path) {
		client, err := dial(opt)
		if err != nil {
			return err
		}
		defer client.Close()
		return st.read(func(sql string) ([]Row, error) { return retryRemote(ctx, opt, client, sql) })
	}
	if info, err := os.Stat(opt.Path); errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode().IsRegular() && info.Size() == 0 {
		return nil
	}
	return waitBusy(ctx, opt, limit, func() error {
		c, err := connect(opt.Path, "rw", readerRole, opt.Synchronous)
		if err != nil {
			return err
		}
		defer c.park(opt.Synchronous)
		return st.read(func(sql string) ([]Row, error) { return c.query(sql) })
	})
}

func (st *SchemaStatus) read(query func(sql string) ([]Row, error)) error {
	st.Version, st.MinCompatible = 0, 0
	tables, err := query("SELECT CAST(name AS BLOB) FROM sqlite_master WHERE type='table' AND name IN ('schema_migrations','meta') ORDER BY name")
	if err != nil || len(tables) < 2 {
		return err
	}
	rows, err := query("SELECT max(version), (SELECT CAST(value AS INTEGER) FROM meta WHERE key='min_compatible') FROM schema_migrations")
	if err != nil {
		return err
	}
	st.Version, st.MinCompatible = rows[0].Int(0), rows[0].Int(1)
	return nil
}

// versions lists the embedded migrations in order.
func versions(source fs.FS) ([]int64, error) {
	names, err := fs.Glob(source, "*.up.sql")
	if err != nil {
		return nil, err
	}
	var out []int64
	for _, n := range names {
		v, err := strconv.ParseInt(n[:strings.IndexByte(n, '_')], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("migrations: the name %s has no number: %w", n, err)
		}
		out = append(out, v)
	}
	if len(out) == 0 {
		return nil, errors.New("migrations: there are none")
	}
	slices.Sort(out)
	return out, nil
}

// createFile makes an empty file that only its owner can read (the log and
// the shared memory inherit its mode) and the folder it lies in. Only a file
// that this call created is closed again: nobody can hold a lock on it yet.
func createFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return &Error{Class: Unavailable, Op: "create", Detail: "the database folder cannot be created", cause: err}
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return &Error{Class: Unavailable, Op: "create", Detail: "the database file cannot be created", cause: err}
	}
	return file.Close()
}

func withMigrator(ctx context.Context, opt Options, source fs.FS, run func(*migrate.Migrate) error) error {
	var c *conn
	err := waitBusy(ctx, opt, migrateLockTimeout, func() (err error) {
		c, err = connect(opt.Path, "rwc", migrateRole, opt.Synchronous)
		return err
	})
	if err != nil {
		return err
	}
	defer c.park(opt.Synchronous)
	src, err := iofs.New(source, ".")
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	m, err := migrate.NewWithInstance("iofs", src, "libsql", &migrateDriver{ctx: ctx, opt: opt, conn: c})
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	// Longer than the driver's own wait: golang-migrate gives up on a Lock that
	// goes on, and the connection must not be parked under it.
	m.LockTimeout = 2 * migrateLockTimeout
	if err := run(m); err != nil && !errors.Is(err, migrate.ErrNoChange) {
		return fmt.Errorf("migrate: %w", err)
	}
	// A new database notes where it lies, so that its first user need not. A
	// failure, or a schema that has no place for it, leaves that to the first
	// write; a restored one has noted another place, which stays.
	if id, err := statFile(opt.Path); err == nil && id.sameFile(c.file) {
		_, _ = c.exec(sqlNoteFirst, home(opt.Path, id))
	}
	// The schema goes into the file itself, so that a copy of the file alone
	// is a database; another process at work may prevent it, and needs it not.
	_, _ = c.query("PRAGMA wal_checkpoint(TRUNCATE)")
	return nil
}

// waitBusy repeats what another process's lock refused, until the limit is
// reached or the context ends.
func waitBusy(ctx context.Context, opt Options, limit time.Duration, call func() error) error {
	deadline := opt.System.Now().Add(limit)
	for {
		err := call()
		if ClassOf(err) != Busy || opt.System.Now().After(deadline) {
			return err
		}
		t := opt.System.NewTimer(jitter(opt, 20*time.Millisecond))
		select {
		case <-t.C():
		case <-ctx.Done():
			t.Stop()
			return err
		}
	}
}

// migrateDriver is golang-migrate's view of a pinned connection. Everything
// between Lock and Unlock is one transaction, so there is never a half
// applied schema and no dirty flag to clear.
type migrateDriver struct {
	ctx    context.Context //nolint:containedctx // golang-migrate hands none through
	opt    Options
	conn   *conn
	failed bool
}

var _ database.Driver = (*migrateDriver)(nil)

const (
	sqlVersionTable = "CREATE TABLE IF NOT EXISTS schema_migrations (version INTEGER PRIMARY KEY) STRICT"
	sqlVersion      = "SELECT max(version) FROM schema_migrations"
	sqlNoVersion    = "DELETE FROM schema_migrations"
	sqlSetVersion   = "INSERT INTO schema_migrations(version) VALUES (?)"
)

func (d *migrateDriver) Open(string) (database.Driver, error) { return d, nil }
func (d *migrateDriver) Close() error                         { return nil }

func (d *migrateDriver) Lock() error {
	d.failed = false
	err := waitBusy(d.ctx, d.opt, migrateLockTimeout, func() error {
		if err := d.ctx.Err(); err != nil {
			return &Error{Class: Canceled, Op: "migrate", cause: err}
		}
		_, err := d.conn.exec("BEGIN IMMEDIATE")
		return err
	})
	if err != nil {
		return err
	}
	_, err = d.conn.exec(sqlVersionTable)
	d.failed = err != nil
	return err
}

func (d *migrateDriver) Unlock() error {
	end := "COMMIT"
	if d.failed {
		end = "ROLLBACK"
	}
	_, err := d.conn.exec(end)
	return err
}

func (d *migrateDriver) Run(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		d.failed = true
		return err
	}
	for i, stmt := range splitStatements(string(text)) {
		if _, err := d.conn.exec(stmt); err != nil {
			d.failed = true
			return fmt.Errorf("statement %d: %w", i+1, err)
		}
	}
	return nil
}

// SetVersion records the version; dirty is golang-migrate's mark for work
// that may be left half done, which cannot happen inside one transaction.
func (d *migrateDriver) SetVersion(version int, _ bool) error {
	_, err := d.conn.exec(sqlNoVersion)
	if err == nil && version >= 0 {
		_, err = d.conn.exec(sqlSetVersion, int64(version))
	}
	d.failed = d.failed || err != nil
	return err
}

func (d *migrateDriver) Version() (int, bool, error) {
	rows, err := d.conn.query(sqlVersion)
	if err != nil {
		return 0, false, err
	}
	if rows[0].Null(0) {
		return database.NilVersion, false, nil
	}
	return int(rows[0].Int(0)), false, nil
}

// Drop is part of golang-migrate's interface; Postroom never drops a database.
func (d *migrateDriver) Drop() error { return errors.New("dropping a database is not supported") }
