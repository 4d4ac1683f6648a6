package queue

import (
	"strings"
	"testing"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/libsql"
)

// No statement of the hot path may read more of a table than what it is about:
// no scan of jobs, no sort but that of the rows a claim takes.
func TestQueryPlans(t *testing.T) {
	t.Parallel()
	db := dbtest.Open(t)
	type statement struct {
		name, sql string
		args      []any
		sorts     bool // of the few rows in hand
	}
	list := []statement{
		{"promote", sqlPromote, nil, false},
		{"claim", sqlClaim, []any{"t", "r", 1, "[]", 1, nil}, true},
		{"by token", sqlByToken, []any{"t"}, false},
		{"next due", sqlNextDue, nil, false},
		{"look", sqlLook, nil, false},
		{"guard", sqlGuard, []any{"i", "t"}, false},
		{"rescue runs", sqlRescueRuns, nil, false},
		{"rescue keys", sqlRescueKeys, nil, false},
		{"rescue", sqlRescue, nil, false},
		{"cancel key", sqlCancelKey, []any{"i"}, false},
		{"cancel", sqlCancel, []any{"i"}, false},
		{"cancel requested", sqlCancelRequested, []any{"r"}, false},
		{"retry key", sqlRetryKey, []any{"i"}, false},
		{"retry", sqlRetry, []any{"i"}, false},
		{"pull forward", sqlPullForward, []any{"t", "k"}, false},
		{"get", sqlGet, []any{"i"}, false},
		{"runs", sqlRuns, []any{"i"}, false},
		{"steps", sqlSteps, []any{"i"}, true},
	}
	for _, op := range []*libsql.Op{opEnqueue, opHeartbeat, opFinish, opSnooze} {
		for i, sql := range op.Stmts {
			list = append(list, statement{op.Name + string(rune('1'+i)), sql, []any{"[]"}, op == opEnqueue})
		}
	}
	for _, s := range list {
		res, err := db.Read(t.Context(), libsql.Query("EXPLAIN QUERY PLAN "+s.sql, s.args...))
		if err != nil {
			t.Errorf("%s: %v", s.name, err)
			continue
		}
		for _, row := range res[0].Rows {
			step := row.Str(3)
			// A scan of an index that the statement names is a walk over the
			// few rows that index holds, ended by a LIMIT or a condition.
			scansTable := strings.HasPrefix(step, "SCAN ") && !strings.Contains(step, "VIRTUAL TABLE") &&
				!strings.Contains(step, "USING INDEX jobs_") && !strings.Contains(step, "USING COVERING INDEX jobs_") &&
				!strings.HasPrefix(step, "SCAN q") && !strings.Contains(step, "CONSTANT ROW") &&
				!strings.HasPrefix(step, "SCAN n") && !strings.HasPrefix(step, "SCAN c") && !strings.HasPrefix(step, "SCAN db_clock")
			if scansTable || strings.Contains(step, "TEMP B-TREE FOR ORDER BY") && !s.sorts {
				t.Errorf("%s: %s", s.name, step)
			}
		}
	}
}
