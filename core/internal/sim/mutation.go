package sim

import (
	"context"
	"sync/atomic"

	"github.com/postroom/postroom/core/libsql"
)

// Mutation is a mistake made on purpose between the real code and the real
// database, to see that the checker notices.
type Mutation struct {
	// SQL rewrites the statement that is the ith of a call; most it returns
	// as they are.
	SQL func(p *proc, c *call, i int, sql string) string
	// Write makes a whole call differently; mine says that it did.
	Write func(ctx context.Context, d *database, c *call) (res []libsql.Result, mine bool, err error)

	hits atomic.Int64 // how often it changed something
}
