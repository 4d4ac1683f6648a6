// Command river drives River on PostgreSQL or on SQLite, with the settings of
// River's own benchmark.
package main

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/mattn/go-sqlite3" // registers "sqlite3"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
	_ "modernc.org/sqlite" // registers "sqlite", which River's documentation uses

	"github.com/postroom/postroom/bench/driver"
)

var on = flag.String("on", "postgres", "postgres, modernc or mattn")

type peer[TTx any] struct {
	driver  riverdriver.Driver[TTx]
	inserts *river.Client[TTx]
	left    func(ctx context.Context) (int, error)
}

func main() { driver.Main(open) }

const unfinished = "SELECT count(*) FROM river_job WHERE state IN ('available', 'running', 'retryable', 'scheduled')"

func open(ctx context.Context, at string) (driver.Peer, error) {
	switch *on {
	case "postgres":
		pool, err := pgxpool.New(ctx, at)
		if err != nil {
			return nil, err
		}
		return migrated(ctx, riverpgxv5.New(pool), func(ctx context.Context) (n int, err error) {
			err = pool.QueryRow(ctx, unfinished).Scan(&n)
			return n, err
		})
	case "modernc", "mattn":
		dsn := "file:" + filepath.Join(at, "river.db")
		name := "sqlite"
		if *on == "modernc" {
			dsn += "?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(5000)"
		} else {
			name, dsn = "sqlite3", dsn+"?_journal=WAL&_sync=FULL&_timeout=5000"
		}
		db, err := sql.Open(name, dsn)
		if err != nil {
			return nil, err
		}
		db.SetMaxOpenConns(1) // as package riversqlite advises
		return migrated(ctx, riversqlite.New(db), func(ctx context.Context) (n int, err error) {
			err = db.QueryRowContext(ctx, unfinished).Scan(&n)
			return n, err
		})
	}
	return nil, fmt.Errorf("-on is %q, want postgres, modernc or mattn", *on)
}

func migrated[TTx any](ctx context.Context, d riverdriver.Driver[TTx], left func(context.Context) (int, error)) (driver.Peer, error) {
	quiet := slog.New(slog.DiscardHandler)
	m, err := rivermigrate.New(d, &rivermigrate.Config{Logger: quiet})
	if err != nil {
		return nil, err
	}
	if _, err := m.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, err
	}
	inserts, err := river.NewClient(d, &river.Config{Logger: quiet})
	return &peer[TTx]{d, inserts, left}, err
}

func (p *peer[TTx]) Enqueue(ctx context.Context, args []driver.Args) error {
	if len(args) == 1 {
		_, err := p.inserts.Insert(ctx, args[0], nil)
		return err
	}
	params := make([]river.InsertManyParams, len(args))
	for i, a := range args {
		params[i].Args = a
	}
	_, err := p.inserts.InsertManyFast(ctx, params)
	return err
}

func (p *peer[TTx]) Work(ctx context.Context, handle func(driver.Args)) error {
	workers := river.NewWorkers()
	river.AddWorker(workers, river.WorkFunc(func(ctx context.Context, j *river.Job[driver.Args]) error {
		handle(j.Args)
		return river.RecordOutput(ctx, driver.Result{OK: true})
	}))
	c, err := river.NewClient(p.driver, &river.Config{
		Logger: slog.New(slog.DiscardHandler), Workers: workers,
		Queues:        map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 2000}},
		FetchCooldown: 2 * time.Millisecond, FetchPollInterval: 20 * time.Millisecond,
	})
	if err != nil {
		return err
	}
	if err := c.Start(ctx); err != nil {
		return err
	}
	<-c.Stopped()
	return nil
}

func (p *peer[TTx]) Unfinished(ctx context.Context) (int, error) { return p.left(ctx) }
