// Package token is who may call the API: names with roles, each known by the
// hash of a secret. It may import core/job and core/libsql.
package token

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"sync/atomic"

	"github.com/postroom/postroom/core/job"
)

// Role is what a caller may do. Each role includes the ones before it.
type Role string

// The roles.
const (
	Read    Role = "read"    // look at everything
	Operate Role = "operate" // change jobs, queues, messages and actions
	Admin   Role = "admin"   // change accounts, rules, limits and schedules
)

// Roles in the order in which they include each other.
var Roles = []Role{Read, Operate, Admin}

// Includes says whether who has the role r may do what needs the other one.
func (r Role) Includes(needed Role) bool { return r.rank() >= needed.rank() }

// rank is 0 for what is no role: it includes nothing.
func (r Role) rank() int {
	for i, known := range Roles {
		if r == known {
			return i + 1
		}
	}
	return 0
}

// Configured is the name of the tokens from the configuration.
const Configured = "config"

// Loopback is the name of callers on this machine who need no token.
const Loopback = "loopback"

// Caller is who makes a request.
type Caller struct {
	Name string `json:"name"`
	Role Role   `json:"role" enum:"read,operate,admin"`
}

// Token is a token as it is stored: its secret is not known any more.
type Token struct {
	Caller
	CreatedAt job.Time `json:"created_at"`
	hash      [sha256.Size]byte
}

// Keyring is the tokens that open a service now: those of its configuration
// and those that were last read from the database. It is safe for concurrent
// use.
type Keyring struct {
	configured []Token
	stored     atomic.Pointer[[]Token]
}

// NewKeyring returns a keyring with configured secrets, which are admins.
// Empty ones do not count.
func NewKeyring(configured ...string) *Keyring {
	k := &Keyring{}
	for _, secret := range configured {
		if secret != "" {
			k.configured = append(k.configured, Token{Caller: Caller{Configured, Admin}, hash: sha256.Sum256([]byte(secret))})
		}
	}
	k.stored.Store(&[]Token{})
	return k
}

// IsEmpty says whether there is no token at all.
func (k *Keyring) IsEmpty() bool {
	return k == nil || len(k.configured) == 0 && len(*k.stored.Load()) == 0
}

// Find returns whose secret it is. It compares hashes, all of them and each to
// its end, so that the time does not tell how much of a secret was right, or
// whose.
func (k *Keyring) Find(secret string) (Caller, bool) {
	sum := sha256.Sum256([]byte(secret))
	var found Caller
	for _, list := range [][]Token{k.configured, *k.stored.Load()} {
		for _, t := range list {
			if subtle.ConstantTimeCompare(sum[:], t.hash[:]) == 1 {
				found = t.Caller
			}
		}
	}
	return found, found.Role != ""
}

// Refresh reads the stored tokens anew. When that fails the last known ones
// stay.
func (k *Keyring) Refresh(ctx context.Context, s Store) error {
	list, err := s.List(ctx)
	if err == nil {
		k.stored.Store(&list)
	}
	return err
}
