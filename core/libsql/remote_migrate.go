package libsql

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/golang-migrate/migrate/v4"
	"github.com/golang-migrate/migrate/v4/database"
	"github.com/golang-migrate/migrate/v4/source/iofs"

	"github.com/postroom/postroom/core/libsql/internal/hrana"
)

// remoteMigrateTimeout is how long a server may take for the migrations. One
// that takes longer than 5 s keeps its transaction only while nobody else
// wants to write (docs/remote.md).
const remoteMigrateTimeout = 10 * time.Minute

// migrateRemote runs migrations on a server. A Busy error says that another
// process changed the schema meanwhile, and that nothing was done.
func migrateRemote(ctx context.Context, opt Options, source fs.FS, run func(*migrate.Migrate) error) error {
	client, err := dial(opt)
	if err != nil {
		return err
	}
	defer client.Close()
	src, err := iofs.New(source, ".")
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	d := &remoteDriver{ctx: ctx, opt: opt, client: client}
	m, err := migrate.NewWithInstance("iofs", src, "libsql", d)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	m.LockTimeout = 2 * remoteMigrateTimeout // longer than the driver's own bounds
	err = run(m)
	if d.failed != nil {
		err = d.failed // in its own words, which have a class
	}
	if err != nil && !errors.Is(err, migrate.ErrNoChange) {
		return fmt.Errorf("migrate: %w", err)
	}
	// A new database notes where it lies; a failure leaves that to the first
	// write.
	_, _ = client.Run(ctx, []hrana.Step{{SQL: sqlNoteFirst, Args: []any{atServer}}})
	return nil
}

// remoteDriver is golang-migrate's view of a server. What it asks for between
// Lock and Unlock is recorded, and sent as one atomic batch by Unlock: there
// is never a half applied schema, and nobody waits inside a transaction.
type remoteDriver struct {
	ctx     context.Context //nolint:containedctx // golang-migrate hands none through
	opt     Options
	client  *hrana.Client
	version int64 // when it was locked; -1 for none
	now     int   // that of the migration being recorded
	stmts   []Stmt
	names   []string // of the statements
	failed  error
}

var _ database.Driver = (*remoteDriver)(nil)

// sqlStill raises an error unless the schema has this version.
const sqlStill = `SELECT json(iif(coalesce((SELECT max(version) FROM schema_migrations), -1) = ?, '{}', 'another version'))`

func (d *remoteDriver) Open(string) (database.Driver, error) { return d, nil }
func (d *remoteDriver) Close() error                         { return nil }

func (d *remoteDriver) Lock() error {
	d.stmts, d.names, d.version, d.failed = nil, nil, -1, nil
	tables, err := retryRemote(d.ctx, d.opt, d.client, "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'schema_migrations'")
	if err == nil && len(tables) > 0 {
		var rows []Row
		if rows, err = retryRemote(d.ctx, d.opt, d.client, sqlVersion); err == nil && !rows[0].Null(0) {
			d.version = rows[0].Int(0)
		}
	}
	d.failed = err
	return err
}

func (d *remoteDriver) Version() (int, bool, error) {
	if d.version < 0 {
		return database.NilVersion, false, nil
	}
	return int(d.version), false, nil
}

func (d *remoteDriver) Run(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		d.failed = err
		return err
	}
	for i, sql := range splitStatements(string(text)) {
		d.record(fmt.Sprintf("to version %d, statement %d", d.now, i+1), Exec(sql))
	}
	return nil
}

// SetVersion records the version. golang-migrate calls it before and after
// each migration; dirty is its mark for work that may be left half done.
func (d *remoteDriver) SetVersion(version int, dirty bool) error {
	d.now = version
	if dirty {
		return nil
	}
	d.record("version", Exec(sqlNoVersion))
	if version >= 0 {
		d.record("version", Exec(sqlSetVersion, int64(version)))
	}
	return nil
}

func (d *remoteDriver) record(name string, s Stmt) {
	d.stmts, d.names = append(d.stmts, s), append(d.names, name)
}

func (d *remoteDriver) Unlock() error {
	if d.failed == nil && len(d.stmts) > 0 {
		d.failed = d.send()
	}
	return d.failed
}

func (d *remoteDriver) send() error {
	ctx, cancel := context.WithTimeout(d.ctx, remoteMigrateTimeout)
	defer cancel()
	p := &program{}
	p.begin = p.add(nil, Exec("BEGIN IMMEDIATE"))
	table := p.add(following(p.begin), Exec(sqlVersionTable))
	still := p.add(following(table), Query(sqlStill, d.version))
	last := still
	for _, s := range d.stmts {
		last = p.add(following(last), s)
	}
	p.end(last)
	res, err := d.client.Run(ctx, p.steps)
	if err != nil {
		return ofRequest("migrate", err, true)
	}
	if res[p.commit].Done {
		return nil
	}
	if e := res[still].Err; e != nil {
		return &Error{Class: Busy, Op: "migrate", Detail: "another process changed the schema meanwhile"}
	}
	for i, r := range res {
		if r.Err == nil {
			continue
		}
		err := error(ofStep(r.Err))
		if n := i - still - 1; n >= 0 && n < len(d.names) {
			err = fmt.Errorf("%s: %w", d.names[n], err)
		}
		return err
	}
	return errSkipped
}

// Drop is part of golang-migrate's interface; Postroom never drops a database.
func (d *remoteDriver) Drop() error { return errors.New("dropping a database is not supported") }
