package step

import (
	"slices"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/libsql"
)

// No statement reads more of a table than the rows that it is about.
func TestQueryPlans(t *testing.T) {
	t.Parallel()
	db := dbtest.Open(t)
	for _, op := range []*libsql.Op{opRecord, opResolve} {
		for _, sql := range op.Stmts {
			res, err := db.Read(t.Context(), libsql.Query("EXPLAIN QUERY PLAN "+sql, "[]"))
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range res[0].Rows {
				what, found := strings.CutPrefix(row.Str(3), "SCAN ")
				if name, _, _ := strings.Cut(what, " "); found && slices.Contains([]string{"job_steps", "s", "jobs", "j"}, name) {
					t.Errorf("%s: %s", op.Name, row.Str(3))
				}
			}
		}
	}
}
