// Command backlite drives backlite with a thousand workers on SQLite. It keeps
// a task that was handled, but knows no results.
package main

import (
	"context"
	"database/sql"
	"path/filepath"
	"time"

	_ "github.com/mattn/go-sqlite3" // registers "sqlite3"
	"github.com/mikestefanello/backlite"

	"github.com/postroom/postroom/bench/driver"
)

type task struct{ driver.Args }

// Config keeps what is done, as every queue here that can.
func (task) Config() backlite.QueueConfig {
	return backlite.QueueConfig{
		Name: driver.Args{}.Kind(), MaxAttempts: 5, Timeout: time.Minute,
		Retention: &backlite.Retention{Duration: 24 * time.Hour, Data: &backlite.RetainData{}},
	}
}

type peer struct {
	db *sql.DB
	c  *backlite.Client
}

func main() { driver.Main(open) }

// open uses the DSN of backlite's readme, with full durability. Its pool of
// connections is kept to one, as SQLite has one writer: more of them end in
// errors of a locked database.
func open(_ context.Context, at string) (driver.Peer, error) {
	db, err := sql.Open("sqlite3", filepath.Join(at, "backlite.db")+"?_journal=WAL&_timeout=5000&_sync=FULL")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	c, err := backlite.NewClient(backlite.ClientConfig{DB: db, NumWorkers: 1000, ReleaseAfter: 10 * time.Minute, CleanupInterval: time.Hour})
	if err != nil {
		return nil, err
	}
	return &peer{db, c}, c.Install()
}

func (p *peer) Enqueue(ctx context.Context, args []driver.Args) error {
	tasks := make([]backlite.Task, len(args))
	for i, a := range args {
		tasks[i] = task{a}
	}
	_, err := p.c.Add(tasks...).Ctx(ctx).Save()
	return err
}

func (p *peer) Work(ctx context.Context, handle func(driver.Args)) error {
	p.c.Register(backlite.NewQueue(func(_ context.Context, t task) error {
		handle(t.Args)
		return nil
	}))
	p.c.Start(ctx)
	<-ctx.Done()
	return nil
}

func (p *peer) Unfinished(ctx context.Context) (n int, err error) {
	err = p.db.QueryRowContext(ctx, "SELECT count(*) FROM backlite_tasks").Scan(&n)
	return n, err
}
