package mail

import (
	"strings"
	"testing"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/libsql"
)

// What is looked up for each row goes by an index that finds few: by all rows of
// an account, a verification of a large mailbox would never end.
func TestVerifyLooksNothingUpByTheAccountAlone(t *testing.T) {
	t.Parallel()
	db := dbtest.Open(t)
	for _, rule := range verifyRules {
		res, err := db.Read(t.Context(), libsql.Query("EXPLAIN QUERY PLAN "+rule.SQL))
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range res[0].Rows {
			if step := row.Str(3); strings.HasPrefix(step, "SEARCH ") && strings.HasSuffix(step, "(account_id=?)") {
				t.Errorf("%s: %s", rule.Name, step)
			}
		}
	}
}
