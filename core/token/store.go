package token

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
)

// Errors that callers act on.
var (
	ErrNotFound  = errors.New("no such token")
	ErrNameInUse = errors.New("there is a token with this name: remove it first, or choose another name")
)

const sqlAdd = `INSERT INTO api_tokens(name, role, hash, created_at)
 SELECT ?, ?, ?, ms FROM db_clock WHERE true ON CONFLICT DO NOTHING`

const sqlList = `SELECT CAST(name AS BLOB), CAST(role AS BLOB), hash, created_at FROM api_tokens ORDER BY name`

const sqlRemove = `DELETE FROM api_tokens WHERE name = ?`

// prefix makes a secret that lies about somewhere known for what it is.
const prefix = "postroom_"

// secretBytes is how much chance is in a secret.
const secretBytes = 32

// Store is the tokens in a database.
type Store struct{ DB libsql.DB }

// Add stores a new token and returns its secret, which is kept nowhere.
func (s Store) Add(ctx context.Context, name string, role Role) (secret string, err error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	if !slices.Contains(Roles, role) {
		return "", &job.Invalid{Field: "role", Code: "invalid", Reason: "must be read, operate or admin"}
	}
	var chance [secretBytes]byte
	_, _ = rand.Read(chance[:]) // never fails
	secret = prefix + base64.RawURLEncoding.EncodeToString(chance[:])
	hash := sha256.Sum256([]byte(secret))
	var b libsql.Batch
	n := b.Exec(sqlAdd, name, string(role), hash[:])
	res, err := s.DB.Write(ctx, &b)
	if err == nil && res[n].Changes == 0 {
		err = ErrNameInUse
	}
	if err != nil {
		return "", fmt.Errorf("add token %s: %w", name, err)
	}
	return secret, nil
}

// checkName refuses names that say nothing, or something wrong, about who made
// a change.
func checkName(name string) error {
	switch name {
	case "":
		return &job.Invalid{Field: "name", Code: "invalid", Reason: "is required"}
	case Configured, Loopback:
		return &job.Invalid{Field: "name", Code: "invalid", Reason: "stands for something else"}
	}
	return job.CheckText("name", name, job.MaxName)
}

// List returns all tokens, by name.
func (s Store) List(ctx context.Context) ([]Token, error) {
	res, err := s.DB.Read(ctx, libsql.Query(sqlList))
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	list := make([]Token, len(res[0].Rows))
	for i, r := range res[0].Rows {
		list[i] = Token{Caller: Caller{r.Str(0), Role(r.Str(1))}, CreatedAt: job.Time(r.Int(3))}
		copy(list[i].hash[:], r.Bytes(2))
	}
	return list, nil
}

// Remove deletes a token.
func (s Store) Remove(ctx context.Context, name string) error {
	var b libsql.Batch
	n := b.Exec(sqlRemove, name)
	res, err := s.DB.Write(ctx, &b)
	if err == nil && res[n].Changes == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("remove token %s: %w", name, err)
	}
	return nil
}
