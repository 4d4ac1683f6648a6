// Command goqite drives goqite with its job runner on SQLite. It deletes a
// message that was handled: no result is stored.
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"path/filepath"
	"time"

	_ "github.com/mattn/go-sqlite3" // registers "sqlite3"
	"maragu.dev/goqite"
	"maragu.dev/goqite/jobs"

	"github.com/postroom/postroom/bench/driver"
)

// schema is schema_sqlite.sql of the version in go.mod, which does not export it,
// made once by whoever comes first.
const schema = `create table if not exists goqite (
  id text primary key default ('m_' || lower(hex(randomblob(16)))),
  created text not null default (strftime('%Y-%m-%dT%H:%M:%fZ')),
  updated text not null default (strftime('%Y-%m-%dT%H:%M:%fZ')),
  queue text not null,
  body blob not null,
  timeout text not null default (strftime('%Y-%m-%dT%H:%M:%fZ')),
  received integer not null default 0,
  priority integer not null default 0
) strict;
create trigger if not exists goqite_updated_timestamp after update on goqite begin
  update goqite set updated = strftime('%Y-%m-%dT%H:%M:%fZ') where id = old.id;
end;
create index if not exists goqite_queue_priority_created_idx on goqite (queue, priority desc, created);`

type peer struct {
	db *sql.DB
	q  *goqite.Queue
}

func main() { driver.Main(open) }

// open uses the DSN and the one connection of goqite's readme, and asks for full
// durability: go-sqlite3 is built to sync less when there is a write-ahead log.
func open(ctx context.Context, at string) (driver.Peer, error) {
	db, err := sql.Open("sqlite3", filepath.Join(at, "goqite.db")+"?_journal=WAL&_timeout=5000&_fk=true&_sync=FULL")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	db.SetMaxIdleConns(1)
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, err
	}
	return &peer{db, goqite.New(goqite.NewOpts{DB: db, Name: "bench", Timeout: 30 * time.Second})}, nil
}

func (p *peer) Enqueue(ctx context.Context, args []driver.Args) error {
	tx, err := p.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after the commit
	for _, a := range args {
		body, err := json.Marshal(a)
		if err != nil {
			return err
		}
		if _, err := jobs.CreateTx(ctx, tx, p.q, a.Kind(), goqite.Message{Body: body}); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func (p *peer) Work(ctx context.Context, handle func(driver.Args)) error {
	r := jobs.NewRunner(jobs.NewRunnerOpts{Queue: p.q, Limit: 100, PollInterval: 10 * time.Millisecond, Extend: 30 * time.Second})
	r.Register(driver.Args{}.Kind(), func(_ context.Context, body []byte) error {
		var a driver.Args
		if err := json.Unmarshal(body, &a); err != nil {
			return err
		}
		handle(a)
		return nil
	})
	r.Start(ctx)
	return nil
}

func (p *peer) Unfinished(ctx context.Context) (n int, err error) {
	err = p.db.QueryRowContext(ctx, "SELECT count(*) FROM goqite").Scan(&n)
	return n, err
}
