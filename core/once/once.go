// Package once lets a request that is sent again have its effect once: it
// keeps what was answered, under a key that the caller chose. It may import
// core/libsql.
package once

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/postroom/postroom/core/libsql"
)

// Errors that callers act on.
var (
	ErrUnderWay = errors.New("the first request with this key is being carried out")
	ErrOther    = errors.New("the key came with another request before")
	ErrUnknown  = errors.New("whether the first request with this key had an effect is not known")
)

const (
	// Kept is how long an answer is kept.
	Kept = 24 * time.Hour
	// bound is after how long a request that has no answer was cut off: each
	// call of the database is bounded far below.
	bound = 2 * time.Minute
	// pruneBatch is how many answers one transaction deletes.
	pruneBatch = 500
)

const sqlForget = `DELETE FROM request_keys WHERE caller = ? AND key = ? AND created_at < (SELECT ms FROM db_clock) - ?`

const sqlBegin = `INSERT INTO request_keys(caller, key, request, owner, created_at, updated_at)
 SELECT ?, ?, ?, ?, ms, ms FROM db_clock WHERE true ON CONFLICT DO NOTHING`

const sqlHeld = `SELECT k.owner, k.request, k.status, k.answer, c.ms - k.created_at FROM request_keys k, db_clock c WHERE k.caller = ? AND k.key = ?`

const sqlEnd = `UPDATE request_keys SET status = ?, answer = ?, updated_at = (SELECT ms FROM db_clock) WHERE caller = ? AND key = ? AND owner = ?`

const sqlRelease = `DELETE FROM request_keys WHERE caller = ? AND key = ? AND owner = ?`

const sqlPrune = `DELETE FROM request_keys WHERE rowid IN (SELECT rowid FROM request_keys
 WHERE created_at < (SELECT ms FROM db_clock) - ? ORDER BY created_at LIMIT ?)`

// Request is what is asked for, under whose key.
type Request struct {
	Caller, Key string
	Sum         [sha256.Size]byte // of all that makes it another request
}

// Answer is what a request that succeeded was answered.
type Answer struct {
	Status int
	Body   []byte
}

// Store is the answers in a database.
type Store struct{ DB libsql.DB }

// Claim is the right to carry a request out.
type Claim struct {
	caller, key string
	owner       []byte
}

// Begin returns the claim on a request that is new, which must be ended by
// Finish, Lose or Release, or the answer to one that was carried out.
func (s Store) Begin(ctx context.Context, r Request) (Claim, *Answer, error) {
	c := Claim{r.Caller, r.Key, make([]byte, 16)}
	_, _ = rand.Read(c.owner) // never fails
	var b libsql.Batch
	b.Exec(sqlForget, r.Caller, r.Key, Kept.Milliseconds())
	b.Exec(sqlBegin, r.Caller, r.Key, r.Sum[:], c.owner)
	n := b.Query(sqlHeld, r.Caller, r.Key)
	res, err := s.DB.Write(ctx, &b)
	if err != nil {
		if libsql.ClassOf(err) == libsql.Unknown {
			_ = s.Release(context.WithoutCancel(ctx), c) // nothing was carried out; or else the key is spent
		}
		return c, nil, fmt.Errorf("claim an idempotency key: %w", err)
	}
	row := res[n].Rows[0]
	switch {
	case bytes.Equal(row.Bytes(0), c.owner):
		return c, nil, nil
	case !bytes.Equal(row.Bytes(1), r.Sum[:]):
		return c, nil, ErrOther
	case row.Null(2) && row.Int(4) < bound.Milliseconds():
		return c, nil, ErrUnderWay
	case row.Int(2) == 0:
		return c, nil, ErrUnknown
	}
	return c, &Answer{int(row.Int(2)), row.Bytes(3)}, nil
}

// Finish keeps the answer.
func (s Store) Finish(ctx context.Context, c Claim, a Answer) error {
	return s.end(ctx, "keep an answer", sqlEnd, a.Status, a.Body, c.caller, c.key, c.owner)
}

// Lose notes that the request may have had an effect and has no answer.
func (s Store) Lose(ctx context.Context, c Claim) error {
	return s.end(ctx, "note a lost answer", sqlEnd, 0, nil, c.caller, c.key, c.owner)
}

// Release gives the key back: the request had no effect.
func (s Store) Release(ctx context.Context, c Claim) error {
	return s.end(ctx, "release an idempotency key", sqlRelease, c.caller, c.key, c.owner)
}

func (s Store) end(ctx context.Context, what, sql string, args ...any) error {
	var b libsql.Batch
	b.Exec(sql, args...)
	if _, err := s.DB.Write(ctx, &b); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Prune deletes answers that were kept long enough.
func (s Store) Prune(ctx context.Context) error {
	for {
		var b libsql.Batch
		n := b.Exec(sqlPrune, Kept.Milliseconds(), pruneBatch)
		res, err := s.DB.Write(ctx, &b)
		if err != nil {
			return fmt.Errorf("prune answers: %w", err)
		}
		if res[n].Changes < pruneBatch {
			return nil
		}
	}
}
