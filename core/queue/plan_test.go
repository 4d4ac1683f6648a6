package queue

import (
	"cmp"
	"regexp"
	"slices"
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
	filters := []any{1, 0, `["failed"]`, "t", "q", "k", 1, 2, `$."a"`, "1", 1}
	list := []statement{
		{"promote", sqlPromote, nil, false},
		{"claim", sqlClaim, []any{"t", "r", 1, "[]", 1, nil}, true},
		{"pick", sqlPick, []any{"t", "r", 1, "[]", 1, nil}, true},
		{"take", sqlTake, []any{"t", "r", 1, "[]", 1, nil}, true},
		{"by token", sqlByToken, []any{"t"}, false},
		{"claim solo", sqlClaimSolo, []any{"t", "r", 1, "[]", nil}, true},
		{"solo begins", sqlSoloBegins, []any{"i"}, false},
		{"keys due", sqlKeysDue, nil, false},
		{"keys close", sqlKeysClose, nil, true},
		{"keys open", sqlKeysOpen, nil, true},
		{"keys settled", sqlKeysSettled, nil, false},
		{"keys forget", sqlKeysForget, nil, false},
		{"strays", sqlStrays, []any{"*", "", 0}, false},
		{"after", sqlAfter, []any{"[]"}, false},
		{"after cancel", sqlAfterCancel, nil, true},
		{"after keys", sqlAfterKeys, nil, false},
		{"after release", sqlAfterRelease, nil, false},
		{"after take", sqlAfterTake, nil, false},
		{"after done", sqlAfterDone, nil, false},
		{"prune", sqlPrune, []any{1, 1, 1, 1}, false},
		{"clear", sqlClear, []any{"i", "q", 1}, false},
		{"prune keys", sqlPruneKeys, []any{1}, false},
		{"unknown types", sqlUnknownTypes, nil, true},
		{"look", sqlLook, nil, false},
		{"guard", sqlGuard, []any{"i", "t"}, false},
		{"rescue runs", sqlRescueRuns, nil, false},
		{"take away", sqlTakeAway, []any{1}, true},
		{"rescue keys", sqlRescueKeys, nil, false},
		{"rescue", sqlRescue, nil, true},
		{"cancel key", sqlCancelKey, []any{"[]"}, false},
		{"cancel", sqlCancel, []any{"[]"}, false},
		{"cancel requested", sqlCancelRequested, []any{"r"}, false},
		{"retry key", sqlRetryKey, []any{"[]"}, true},
		{"retry", sqlRetry, []any{"[]"}, false},
		{"retry held", sqlRetryHeld, []any{"[]"}, false},
		{"delete", sqlDelete, []any{"[]"}, false},
		{"run now", sqlRunNow, []any{"[]"}, false},
		{"is due", sqlIsDue, []any{"i"}, false},
		{"pull forward", sqlPullForward, []any{"t", "k"}, false},
		{"get", sqlGet, []any{"i"}, false},
		{"count", sqlCount, nil, false},
		{"counted to", sqlCountedTo, nil, false},
		{"queues", sqlQueues, []any{"q"}, false},
		{"log ends", sqlLogEnds, nil, false},
		{"log page", sqlLogPage, []any{1, 1}, false},
		{"list", sqlList, filters, false},
		{"list given", sqlListGiven, filters, true},
		{"places", sqlPlaces, filters, false},
		{"places given", sqlPlacesGiven, filters, true},
		{"seen", sqlSeen, []any{1, 1}, false},
		{"seen inside", sqlSeenInside, []any{1, 1, 1}, true},
		{"history", sqlHistory, []any{"i"}, false},
		{"deps", sqlDeps, []any{"i"}, false},
		{"runs", sqlRuns, []any{"i"}, false},
		{"steps", sqlSteps, []any{"i"}, true},
		{"settle guard job", sqlSettleGuardJob, []any{"i"}, false},
		{"settle guard step", sqlSettleGuardStep, []any{"i", "s"}, false},
		{"settle", sqlSettle, []any{"i", "s", "done", "1"}, false},
		{"cron due", sqlCronDue, []any{1, "n"}, false},
		{"cron next", sqlCronNext, nil, false},
		{"cron get", sqlCronGet, []any{"n"}, false},
		{"cron list", sqlCronList, []any{"n", 1}, false},
		{"cron guard", sqlCronGuard, []any{"n", "r", 1}, false},
		{"cron tick", sqlCronTick, []any{1, 1, "k", "r", "n"}, false},
	}
	for _, op := range []*libsql.Op{opEnqueue, opEnqueueShown, opEnqueueNew, opEnqueueNewShown, opHeartbeat, opComplete, opHandOver, opFinish, opSnooze} {
		for i, sql := range op.Stmts {
			list = append(list, statement{op.Name + string(rune('1'+i)), sql, []any{"[]"}, op == opEnqueue || op == opEnqueueShown})
		}
	}
	for _, s := range slices.Clone(list) { // as the release before has them, which finds a view
		if sql := earlier(s.sql); sql != s.sql {
			list = append(list, statement{s.name + " of earlier programs", sql, s.args, s.sorts})
		}
	}
	for _, s := range list {
		res, err := db.Read(t.Context(), libsql.Query("EXPLAIN QUERY PLAN "+s.sql, s.args...))
		if err != nil {
			t.Errorf("%s: %v", s.name, err)
			continue
		}
		tables := aliases(s.sql)
		for _, row := range res[0].Rows {
			step := row.Str(3)
			// A scan of a partial index is a walk over the few rows it holds,
			// ended by a LIMIT or a condition.
			what, _, _ := strings.Cut(strings.TrimPrefix(step, "SCAN "), " ")
			scans := strings.HasPrefix(step, "SCAN ") && tables[what] && !partialIndex.MatchString(step)
			if strings.Contains(step, "(queue,type)>(") {
				t.Errorf("%s: it reads all jobs of a queue and type to find the next: %s", s.name, step)
			}
			if scans || strings.Contains(step, "TEMP B-TREE FOR ORDER BY") && !s.sorts {
				t.Errorf("%s: %s", s.name, step)
			}
		}
	}
}

var partialIndex = regexp.MustCompile(`INDEX (jobs|job_keys|job_deps|limit_keys)_`)

// aliases are the names under which a statement reads tables that grow.
func aliases(sql string) map[string]bool {
	names := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?:FROM|JOIN|UPDATE|INTO|,)\s+(jobs|job_keys|job_runs|job_run_rows|job_steps|job_deps|job_log|limit_keys)(?:\s+AS\s+(\w+))?`).FindAllStringSubmatch(sql, -1) {
		if m[1] == "job_runs" { // a view of two
			names["jobs"], names["job_run_rows"] = true, true
			continue
		}
		names[cmp.Or(m[2], m[1])] = true
	}
	return names
}
