package libsql

import (
	"context"
	"slices"
	"testing"
)

// opRousing stores values as opPut does, and its commits are joined.
var opRousing = &Op{Name: "rousing", Rouses: true, Stmts: []string{
	`INSERT INTO t(k, v) SELECT e.value->>'k', e.value->>'v' FROM json_each(?) AS e`,
}}

// joined is what a call of Join gave.
type joined struct {
	res []Result
	err error
}

// inboxOf is where the callers of a database leave their work.
func inboxOf(db DB) *inbox {
	if f, ok := db.(*File); ok {
		return &f.writer.inbox
	}
	return &db.(*Remote).inbox
}

// stand has a call of Join under way when it returns.
func stand(t *testing.T, ctx context.Context, db DB, fill func(*Batch)) <-chan joined { //nolint:revive // the test comes first
	t.Helper()
	out := make(chan joined, 1)
	in := inboxOf(db)
	before := standing(in)
	go func() {
		res, err := db.Join(ctx, fill)
		out <- joined{res, err}
	}()
	waitFor(t, func() bool { return standing(in) == before+1 })
	return out
}

func standing(in *inbox) int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.standing)
}

func countT(b *Batch) { b.Query("SELECT count(*) FROM t") }

func mustRouse(t *testing.T, db DB, item string) {
	t.Helper()
	if _, err := db.Merge(t.Context(), opRousing, []byte(item)); err != nil {
		t.Fatal(err)
	}
}

func TestJoinSharesTheCommitThatRousesIt(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db DB) {
		one := stand(t, t.Context(), db, countT)
		two := stand(t, t.Context(), db, func(b *Batch) {
			b.Guard("SELECT 1")
			b.Exec("INSERT INTO t(k) VALUES (2)")
		})
		mustWrite(t, db, Exec("INSERT INTO t(k) VALUES (9)")) // rouses nobody
		if n := standing(inboxOf(db)); n != 2 {
			t.Fatalf("%d stand after a commit that does not rouse, want 2", n)
		}
		mustRouse(t, db, `{"k":1}`)
		// Both were in the commit that has been answered.
		for _, c := range []struct {
			what string
			got  <-chan joined
		}{{"one", one}, {"two", two}} {
			got := <-c.got
			if got.err != nil {
				t.Fatalf("%s: %v", c.what, got.err)
			}
			if c.what == "one" && got.res[0].Rows[0].Int(0) != 2 {
				t.Errorf("it counted %d rows, want the one before it and the one that roused it", got.res[0].Rows[0].Int(0))
			}
		}
		if n := readInt(t, db, "SELECT sum(k) FROM t"); n != 12 {
			t.Errorf("the keys sum to %d, want 12", n)
		}
	})
}

func TestABatchThatSaysSoRouses(t *testing.T) {
	t.Parallel()
	f := setup(t)
	var commits []int
	f.opt.OnCommit = func(requests, _ int) { commits = append(commits, requests) }
	got := stand(t, t.Context(), f, countT)
	b := batch(Exec("INSERT INTO t(k) VALUES (1)"))
	b.Rouses = true
	if _, err := f.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if g := <-got; g.err != nil || g.res[0].Rows[0].Int(0) != 1 {
		t.Errorf("%+v, want one row counted", g)
	}
	if !slices.Equal(commits, []int{2}) {
		t.Errorf("commits of %v requests, want one of both", commits)
	}
}

// What was stored while nobody stood there is not missed, and not met twice.
func TestJoinDoesNotWaitForWhatItHasMissed(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db DB) {
		mustRouse(t, db, `{"k":1}`)
		mustRouse(t, db, `{"k":2}`)
		res, err := db.Join(t.Context(), countT)
		if err != nil || res[0].Rows[0].Int(0) != 2 {
			t.Fatalf("%v, %v, want two rows counted", res, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		again := stand(t, ctx, db, countT)
		cancel()
		wantClass(t, (<-again).err, Canceled)
	})
}

// A call that is withdrawn before it began leaves what it had missed to the next.
func TestJoinThatIsWithdrawnMissesNothing(t *testing.T) {
	t.Parallel()
	f := setup(t)
	mustRouse(t, f, `{"k":1}`)
	release := pin(t, f.opt.Path)
	ctx, cancel := context.WithCancel(t.Context())
	withdrawn := make(chan error, 1)
	go func() {
		_, err := f.Join(ctx, countT)
		withdrawn <- err
	}()
	waitPending(t, f, 1)
	cancel()
	wantClass(t, <-withdrawn, Canceled)
	release()
	if res, err := f.Join(t.Context(), countT); err != nil || res[0].Rows[0].Int(0) != 1 {
		t.Errorf("%v, %v, want one row counted", res, err)
	}
}

func TestJoinThatIsWithdrawnRecordsNothing(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db DB) {
		ctx, cancel := context.WithCancel(t.Context())
		fill := func(*Batch) { t.Error("a batch was recorded for a call that was withdrawn") }
		got := stand(t, ctx, db, fill)
		cancel()
		wantClass(t, (<-got).err, Canceled)
		_, err := db.Join(ctx, fill)
		wantClass(t, err, Canceled)
		if n := standing(inboxOf(db)); n != 0 {
			t.Errorf("%d still stand", n)
		}
		mustRouse(t, db, `{"k":1}`)
	})
}

// Whoever withdraws while the commit is under way learns what became of it.
func TestJoinThatIsWithdrawnTooLateIsAnswered(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx, cancel := context.WithCancel(t.Context())
	got := stand(t, ctx, f, func(b *Batch) {
		cancel()
		b.Exec("INSERT INTO t(k) VALUES (2)")
	})
	mustRouse(t, f, `{"k":1}`)
	if g := <-got; g.err != nil || len(g.res) != 1 {
		t.Errorf("%+v, want the result of its statement", g)
	}
}

func TestJoinAndWhatRousesItFailAlone(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db DB) {
		bad := stand(t, t.Context(), db, func(b *Batch) { b.Exec("INSERT INTO t(v) VALUES ('bad')") })
		wrong := stand(t, t.Context(), db, func(b *Batch) { b.Exec("INSERT INTO t(v) VALUES (?)") })
		mustRouse(t, db, `{"k":1}`)
		wantClass(t, (<-bad).err, Constraint)
		wantClass(t, (<-wrong).err, Invalid)

		good := stand(t, t.Context(), db, countT)
		_, err := db.Merge(t.Context(), opRousing, []byte(`{"v":"bad"}`))
		wantClass(t, err, Constraint)
		if g := <-good; g.err != nil || g.res[0].Rows[0].Int(0) != 1 {
			t.Errorf("%+v, want one row counted", g)
		}
	})
}

func TestNothingStandsWhenTheDatabaseIsClosed(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db DB) {
		got := stand(t, t.Context(), db, countT)
		if err := db.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantClass(t, (<-got).err, Closed)
		_, err := db.Join(t.Context(), countT)
		wantClass(t, err, Closed)
	})
}
