package fault

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
)

func open(t *testing.T, seed int64) *DB {
	t.Helper()
	return New(dbtest.Open(t), seed, system.Real{}, zerolog.New(zerolog.NewTestWriter(t)))
}

// write makes one write with the fault and says whether it was applied.
func write(ctx context.Context, t *testing.T, d *DB, kind Kind) (applied bool, err error) {
	t.Helper()
	var b libsql.Batch
	b.Exec("INSERT INTO meta(key, value, created_at, updated_at) VALUES ('written', '1', 0, 0)")
	_, err = meet(ctx, d, kind, func() ([]libsql.Result, error) { return d.DB.Write(ctx, &b) })
	res, readErr := d.DB.Read(t.Context(), libsql.Query("SELECT count(*) FROM meta WHERE key = 'written'"))
	if readErr != nil {
		t.Fatal(readErr)
	}
	return res[0].Rows[0].Int(0) == 1, err
}

func TestAFaultKeepsThePromisesOfTheClasses(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx     context.Context
		kind    Kind
		applied bool
		class   libsql.Class
	}{
		"no fault":     {t.Context(), None, true, ""},
		"busy":         {t.Context(), Busy, false, libsql.Busy},
		"a lost reply": {t.Context(), LostReply, true, libsql.Unknown},
		"a call that stalls until its context ends": {ended, Late, false, libsql.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			applied, err := write(c.ctx, t, open(t, 1), c.kind)
			if applied != c.applied || libsql.ClassOf(err) != c.class {
				t.Errorf("applied %t, class %q; want %t, %q", applied, libsql.ClassOf(err), c.applied, c.class)
			}
		})
	}
	t.Run("a reply that stalls until its context ends", func(t *testing.T) {
		t.Parallel()
		d := open(t, 1)
		ctx, cancel := context.WithCancel(t.Context())
		var b libsql.Batch
		b.Exec("UPDATE meta SET updated_at = 1 WHERE key = 'epoch'")
		_, err := meet(ctx, d, Slow, func() ([]libsql.Result, error) {
			defer cancel()
			return d.DB.Write(ctx, &b)
		})
		if libsql.ClassOf(err) != libsql.Unknown {
			t.Errorf("error %v", err)
		}
	})
	t.Run("an error of the database itself comes back as it is", func(t *testing.T) {
		t.Parallel()
		var b libsql.Batch
		b.Exec("INSERT INTO nothing VALUES (1)")
		d := open(t, 1)
		_, err := meet(t.Context(), d, LostReply, func() ([]libsql.Result, error) { return d.DB.Write(t.Context(), &b) })
		if libsql.ClassOf(err) != libsql.Invalid {
			t.Errorf("error %v", err)
		}
	})
}

// stalled is a clock whose timers fire at once and remember how long they
// were asked to wait.
type stalled struct {
	system.Real
	waits chan time.Duration
}

func (s stalled) NewTimer(d time.Duration) system.Timer {
	s.waits <- d
	return s.Real.NewTimer(0)
}

func TestAStallIsLongerThanAShortLeaseAndEnds(t *testing.T) {
	t.Parallel()
	for _, kind := range []Kind{Late, Slow} {
		d := open(t, 1)
		waits := make(chan time.Duration, 1)
		d.sys = stalled{waits: waits}
		if applied, err := write(t.Context(), t, d, kind); !applied || err != nil || <-waits != 5*time.Second {
			t.Errorf("%s: applied %t, %v", kind, applied, err)
		}
	}
}

func TestALeaseLossTakesTheJobFromItsHolder(t *testing.T) {
	t.Parallel()
	d := open(t, 1)
	q := queue.New(d.DB, system.Real{}, job.Known())
	e, err := q.Enqueue(t.Context(), job.New{Type: job.DebugEcho})
	if err != nil {
		t.Fatal(err)
	}
	claim, err := q.Claim(t.Context(), queue.ClaimRequest{Runner: "r", Token: q.NewToken(), Types: []string{job.DebugEcho}, Limit: 1, Lease: time.Hour})
	if err != nil || len(claim.Jobs) != 1 {
		t.Fatalf("%+v, %v", claim, err)
	}
	if _, err := write(t.Context(), t, d, LeaseLoss); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Finish(t.Context(), claim.Jobs[0].Lease, queue.Outcome{Kind: queue.Completed}); !errors.Is(err, queue.ErrLeaseLost) {
		t.Errorf("the holder's finish: %v", err)
	}
	if j, err := q.Detail(t.Context(), e.ID); err != nil || j.State != job.Queued || j.Crashes != 1 || len(j.Runs) != 1 || j.Runs[0].Outcome != "rescued" {
		t.Errorf("%+v, %v", j, err)
	}
}

func TestASeedGivesTheSameFaultsAgainAndAllOfThem(t *testing.T) {
	t.Parallel()
	draw := func(seed int64) (fates []Kind, counts map[Kind]int) {
		d := New(nil, seed, system.Real{}, zerolog.Nop())
		for range 5000 {
			fates = append(fates, d.draw(writes))
		}
		return fates, d.counts
	}
	first, counts := draw(7)
	again, _ := draw(7)
	other, _ := draw(8)
	same := 0
	for i := range first {
		if first[i] != again[i] {
			t.Fatalf("call %d met %s and then %s", i, first[i], again[i])
		}
		if first[i] == other[i] {
			same++
		}
	}
	if same == len(first) {
		t.Error("another seed makes the same faults")
	}
	for _, f := range writes {
		if n := counts[f.kind]; n < f.permille*5/2 || n > f.permille*10 {
			t.Errorf("%d calls of 5000 met %s, want about %d", n, f.kind, f.permille*5)
		}
	}
}
