package sim

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/libsql"
)

// Each of these mistakes was made by a queue that people use, and each breaks
// a promise within a hundred seeds. A rewriting that finds nothing to rewrite
// fails as well: the simulator would only seem to have that tooth.
const enough = 100

var mutations = map[string]struct {
	mutation func() *Mutation
	rules    []string // of which one must be broken
}{
	"the fence is removed": {func() *Mutation {
		return &Mutation{SQL: replace("j.lease_token = e.value->>'t' AND j.state = 'running'", "true")}
	}, []string{"no write under an old token"}},

	"the fence of steps, hand-overs and completions is removed": {func() *Mutation {
		return &Mutation{SQL: func(_ *proc, c *call, i int, sql string) string {
			switch {
			case strings.HasPrefix(c.op, "step."), c.op == "Complete" && i == 0:
				return strings.ReplaceAll(sql, "j.lease_token = rtrim(CAST(substr(?1, e.value + 19, 32) AS TEXT)) AND j.state = 'running'", "true")
			case c.op == "Commit" && i == 0:
				return strings.ReplaceAll(sql, "j.lease_token = rtrim(CAST(substr(?1, e.value + 1 + 19, 32) AS TEXT)) AND j.state = 'running'", "true")
			}
			return sql
		}}
	}, []string{"a lost lease lets nothing through", "no write under an old token"}},

	"the rescuer reads first and writes later": {func() *Mutation {
		return &Mutation{Write: rescueBySnapshot}
	}, []string{"a rescue waits for the lease"}},

	"each runner goes by its own clock": {func() *Mutation {
		return &Mutation{SQL: func(p *proc, _ *call, _ int, sql string) string {
			return strings.ReplaceAll(sql, "db_clock", fmt.Sprintf("(SELECT %d AS ms)", p.Now().UnixMilli()))
		}}
	}, []string{"one clock", "a rescue waits for the lease", "nothing starts before its time"}},

	"a failed attempt frees its key": {func() *Mutation {
		return &Mutation{SQL: replace("j.finished_at IS NOT NULL AND j.lease_token", "j.lease_token")}
	}, []string{"a key stands for one job"}},

	"an outage is a failed attempt": {func() *Mutation {
		return &Mutation{SQL: replace("ELSE e.value->>'o' END", "WHEN e.value->>'o' = 'snoozed' AND e.value->>'err' IS NOT NULL THEN 'retried' ELSE e.value->>'o' END")}
	}, []string{"an outage spends no attempt"}},

	"a claim frees its key": {func() *Mutation {
		return &Mutation{Write: func(ctx context.Context, d *database, c *call) ([]libsql.Result, bool, error) {
			if c.op != "Claim" {
				return nil, false, nil
			}
			d.p.w.opt.Mutation.hits.Add(1)
			n := len(c.stmts)
			c.stmts = append(c.stmts[:n:n], libsql.Exec("DELETE FROM job_keys WHERE scope = 'active' AND job_id IN (SELECT id FROM jobs WHERE state = 'running')"))
			err := d.do(ctx, c, func(c *call) error { return d.write(ctx, c, 0) })
			if err != nil {
				return nil, true, err
			}
			return c.results[:n], true, nil
		}}
	}, []string{"a key stands for one job"}},

	"a claim does not count what it takes itself": {func() *Mutation {
		return &Mutation{SQL: replace("of_queue <= coalesce(in_queue, of_queue) AND of_type <= coalesce(in_type, of_type) AND of_key <= coalesce(in_key, of_key)", "true")}
	}, []string{"limits are never exceeded"}},

	"a chain goes on whatever happened": {func() *Mutation {
		return &Mutation{SQL: replace("EXISTS (SELECT 1 FROM job_deps AS d INDEXED BY job_deps_bad WHERE d.job_id = j.id AND d.outcome <> 'completed')", "false")}
	}, []string{"a chain keeps its order"}},

	"a tick is not conditional": {func() *Mutation {
		return &Mutation{SQL: func(_ *proc, c *call, i int, sql string) string {
			if c.op == "Tick" && c.kind == "write" && i == 0 {
				return "SELECT ? IS ? IS ?"
			}
			return sql
		}}
	}, []string{"an instant is dealt with once"}},

	"an intent is not stored": {func() *Mutation {
		return &Mutation{SQL: func(_ *proc, c *call, i int, sql string) string {
			if c.op == "step.Once" && c.kind == "merge" && i == 0 && strings.Contains(c.stmts[i].Args[0].(string), "running  ") {
				return "DELETE FROM job_steps WHERE false AND ? IS NULL"
			}
			return sql
		}}
	}, []string{"an effect is not repeated"}},

	"a rescue comes late": {func() *Mutation {
		return &Mutation{SQL: replace("lease_expires_at < (SELECT ms FROM db_clock) ORDER BY", "lease_expires_at < (SELECT ms FROM db_clock) - 30000 ORDER BY")}
	}, []string{"rescue comes in time"}},

	"a wish to cancel is not passed on": {func() *Mutation {
		return &Mutation{SQL: func(_ *proc, c *call, _ int, sql string) string {
			switch c.op {
			case "Heartbeat":
				return strings.ReplaceAll(sql, "j.cancel_requested_at IS NOT NULL", "false")
			case "CancelRequested":
				return strings.ReplaceAll(sql, "claimed_by = ?", "claimed_by = ? AND false")
			}
			return sql
		}}
	}, []string{"a cancel is heeded", "everything ends"}},
}

// replace rewrites a fragment wherever it stands.
func replace(old, now string) func(*proc, *call, int, string) string {
	return func(_ *proc, _ *call, _ int, sql string) string { return strings.ReplaceAll(sql, old, now) }
}

// rescueBySnapshot is how others rescue: it reads whose lease has run out, and
// takes back those that run still when it comes to it, whatever has happened to
// their leases since (river#1302).
func rescueBySnapshot(ctx context.Context, d *database, c *call) ([]libsql.Result, bool, error) {
	const expired = "lease_expires_at < (SELECT ms FROM db_clock)"
	if c.op != "Rescue" || !strings.Contains(c.stmts[0].SQL, expired) {
		return nil, false, nil
	}
	d.p.w.opt.Mutation.hits.Add(1)
	ids := "''"
	look := &call{op: "Rescue", kind: "read"}
	err := d.do(ctx, look, func(*call) error {
		res, err := d.p.w.file.Read(context.WithoutCancel(ctx), libsql.Query(
			"SELECT CAST(id AS BLOB) FROM jobs WHERE state = 'running' AND lease_expires_at < ?", look.ms))
		if err == nil {
			for _, r := range res[0].Rows {
				ids += ", '" + r.Str(0) + "'"
			}
		}
		return err
	})
	if err != nil {
		return nil, true, err
	}
	d.p.sleep(ctx.Done(), d.p.w.plan.lease/2) // it is busy, or slow, or there are many
	d.p.handOver("rescues")
	c.stmts = slices.Clone(c.stmts)
	c.stmts[0].SQL = strings.Replace(c.stmts[0].SQL, expired, "lease_expires_at IS NOT NULL AND id IN ("+ids+")", 1)
	if err := d.do(ctx, c, func(c *call) error { return d.write(ctx, c, 0) }); err != nil {
		return nil, true, err
	}
	return c.results, true, nil
}

func TestEveryMistakeIsFound(t *testing.T) {
	t.Parallel()
	if raceDetector {
		t.Skip("a mistake made on purpose has nothing to show to the race detector")
	}
	for name, m := range mutations {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := NewStore(t)
			mutation := m.mutation()
			for seed := uint64(1); seed <= enough; seed++ {
				res := Run(t, store, seed, Options{Mutation: mutation})
				for _, v := range res.Violations {
					for _, rule := range m.rules {
						if v.Rule == rule {
							t.Logf("seed %d: %s", seed, v)
							return
						}
					}
				}
				if len(res.Violations) > 0 {
					t.Logf("seed %d found something else: %s", seed, res.Violations[0])
				}
			}
			if mutation.hits.Load() == 0 {
				t.Fatal("there was nothing to change: the simulator does not know the code any more")
			}
			t.Errorf("%d seeds did not notice", enough)
		})
	}
}
