// Command reference drives a lean schema with plain SQL through the driver
// that this queue uses: no retries, no history, no limits, one process. What
// it does is the ceiling for a queue on this storage. It is frozen: schema and
// statements are never changed together with the product.
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"flag"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	_ "github.com/tursodatabase/go-libsql" // registers "libsql"

	"github.com/postroom/postroom/bench/driver"
)

var batch = flag.Int("batch", 1000, "jobs per claim and per completion")

const schema = `CREATE TABLE jobs (
  id          INTEGER PRIMARY KEY,
  state       TEXT NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'completed')),
  priority    INTEGER NOT NULL DEFAULT 0,
  attempts    INTEGER NOT NULL DEFAULT 0,
  payload     TEXT NOT NULL,
  result      TEXT,
  token       TEXT,
  lease_until INTEGER,
  created_at  INTEGER NOT NULL,
  finished_at INTEGER
)`

// The claim's index matches its ORDER BY.
const index = `CREATE INDEX jobs_queued ON jobs(priority, id) WHERE state = 'queued'`

const insert = `INSERT INTO jobs(payload, created_at) SELECT json(e.value), ?2 FROM json_each(?1) AS e`

const claim = `UPDATE jobs SET state = 'running', attempts = attempts + 1, token = ?1, lease_until = ?2
 WHERE id IN (SELECT id FROM jobs WHERE state = 'queued' ORDER BY priority, id LIMIT ?3)
 RETURNING id, CAST(payload AS BLOB)`

// No index holds running jobs; the plus keeps the planner from looking.
const complete = `UPDATE jobs SET state = 'completed', result = e.value->>1, token = NULL, lease_until = NULL, finished_at = ?3
 FROM json_each(?1) AS e WHERE jobs.id = e.value->>0 AND token = ?2 AND +state = 'running'`

type peer struct {
	mu     sync.Mutex // one connection, as SQLite has one writer
	conn   *sql.Conn
	queued int // that Work has not completed
	stored chan struct{}
}

func main() { driver.Main(open) }

func open(ctx context.Context, at string) (driver.Peer, error) {
	db, err := sql.Open("libsql", "file:"+filepath.Join(at, "reference.db"))
	if err != nil {
		return nil, err
	}
	conn, err := db.Conn(ctx) // for good: the driver cannot close one
	if err != nil {
		return nil, err
	}
	for _, pragma := range []string{"PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"} {
		rows, err := conn.QueryContext(ctx, pragma)
		if err != nil {
			return nil, err
		}
		if err := rows.Close(); err != nil {
			return nil, err
		}
	}
	for _, ddl := range []string{schema, index} {
		if _, err := conn.ExecContext(ctx, ddl); err != nil {
			return nil, err
		}
	}
	return &peer{conn: conn, stored: make(chan struct{}, 1)}, nil
}

func (p *peer) Enqueue(ctx context.Context, jobs []driver.Args) error {
	array, err := json.Marshal(jobs)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := p.conn.ExecContext(ctx, insert, string(array), time.Now().UnixMilli()); err != nil {
		return err
	}
	p.queued += len(jobs)
	select {
	case p.stored <- struct{}{}:
	default:
	}
	return nil
}

type claimed struct {
	id   int64
	args driver.Args
}

func (p *peer) Work(ctx context.Context, handle func(driver.Args)) error {
	for token := 0; ctx.Err() == nil; token++ {
		jobs, err := p.claim(ctx, strconv.Itoa(token))
		if err != nil {
			return err
		}
		if len(jobs) == 0 {
			select {
			case <-p.stored:
			case <-ctx.Done():
			}
			continue
		}
		done := make([][2]any, len(jobs))
		for i, j := range jobs {
			handle(j.args)
			done[i] = [2]any{j.id, `{"ok":true}`}
		}
		if err := p.complete(ctx, strconv.Itoa(token), done); err != nil {
			return err
		}
	}
	return nil
}

func (p *peer) claim(ctx context.Context, token string) ([]claimed, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	rows, err := p.conn.QueryContext(ctx, claim, token, time.Now().Add(30*time.Second).UnixMilli(), *batch)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var jobs []claimed
	for rows.Next() {
		var c claimed
		var payload []byte
		if err := rows.Scan(&c.id, &payload); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(payload, &c.args); err != nil {
			return nil, err
		}
		jobs = append(jobs, c)
	}
	return jobs, rows.Err()
}

func (p *peer) complete(ctx context.Context, token string, done [][2]any) error {
	array, err := json.Marshal(done)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := p.conn.ExecContext(ctx, complete, string(array), token, time.Now().UnixMilli()); err != nil {
		return err
	}
	p.queued -= len(done)
	return nil
}

func (p *peer) Unfinished(context.Context) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queued, nil
}
