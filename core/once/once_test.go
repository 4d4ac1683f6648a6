package once_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/once"
)

func exec(t *testing.T, db libsql.DB, sql string, args ...any) {
	t.Helper()
	var b libsql.Batch
	b.Exec(sql, args...)
	if _, err := db.Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
}

func TestARequestIsCarriedOutOnce(t *testing.T) {
	t.Parallel()
	s := once.Store{DB: dbtest.Open(t)}
	r := once.Request{Caller: "me", Key: "2024-01-02", Sum: [32]byte{1}}
	begin := func(r once.Request) (once.Claim, *once.Answer, error) {
		t.Helper()
		return s.Begin(t.Context(), r)
	}
	claim, was, err := begin(r)
	if err != nil || was != nil {
		t.Fatalf("got %v, %v", was, err)
	}
	if _, _, err := begin(r); !errors.Is(err, once.ErrUnderWay) {
		t.Errorf("while it is under way: %v", err)
	}
	other, stranger := r, r
	other.Sum, stranger.Caller = [32]byte{2}, "you"
	if _, _, err := begin(other); !errors.Is(err, once.ErrOther) {
		t.Errorf("another request: %v", err)
	}
	if _, theirs, err := begin(stranger); err != nil || theirs != nil {
		t.Errorf("another caller: %v, %v", theirs, err)
	}
	if err := s.Release(t.Context(), claim); err != nil {
		t.Fatal(err)
	}
	second, was, err := begin(r)
	if err != nil || was != nil {
		t.Fatalf("after it was released: %v, %v", was, err)
	}
	for what, end := range map[string]error{ // the first claim is over
		"finish": s.Finish(t.Context(), claim, once.Answer{Status: 200, Body: []byte("old")}), "release": s.Release(t.Context(), claim), "lose": s.Lose(t.Context(), claim),
	} {
		if end != nil {
			t.Errorf("%s: %v", what, end)
		}
	}
	if _, _, err := begin(r); !errors.Is(err, once.ErrUnderWay) {
		t.Errorf("ended by the claim before: %v", err)
	}
	if err := s.Finish(t.Context(), second, once.Answer{Status: 201, Body: []byte("{}\n")}); err != nil {
		t.Fatal(err)
	}
	if _, was, err := begin(r); err != nil || was == nil || was.Status != 201 || string(was.Body) != "{}\n" {
		t.Errorf("the answer is %v, %v", was, err)
	}
}

func TestNobodyKnowsWhatBecameOfARequestThatWasCutOff(t *testing.T) {
	t.Parallel()
	db := dbtest.Open(t)
	s := once.Store{DB: db}
	cut, lost := once.Request{Caller: "me", Key: "cut"}, once.Request{Caller: "me", Key: "lost"}
	if _, _, err := s.Begin(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	exec(t, db, "UPDATE request_keys SET created_at = created_at - 120000")
	claim, _, err := s.Begin(t.Context(), lost)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Lose(t.Context(), claim); err != nil {
		t.Fatal(err)
	}
	for _, r := range []once.Request{cut, lost} {
		if _, _, err := s.Begin(t.Context(), r); !errors.Is(err, once.ErrUnknown) {
			t.Errorf("%s: %v", r.Key, err)
		}
	}
}

func TestAnswersAreKeptForADay(t *testing.T) {
	t.Parallel()
	db := dbtest.Open(t)
	s := once.Store{DB: db}
	for _, key := range []string{"old", "older", "new"} {
		claim, _, err := s.Begin(t.Context(), once.Request{Caller: "me", Key: key})
		if err == nil {
			err = s.Finish(t.Context(), claim, once.Answer{Status: 200, Body: []byte("1")})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	exec(t, db, "UPDATE request_keys SET created_at = created_at - 86400001 WHERE key <> 'new'")
	if _, was, err := s.Begin(t.Context(), once.Request{Caller: "me", Key: "old"}); err != nil || was != nil {
		t.Errorf("after a day: %v, %v", was, err)
	}
	if err := s.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	res, err := db.Read(t.Context(), libsql.Query("SELECT CAST(group_concat(key) AS BLOB) FROM (SELECT key FROM request_keys ORDER BY key)"))
	if err != nil || res[0].Rows[0].Str(0) != "new,old" {
		t.Errorf("kept are %v, %v", res, err)
	}
}

func TestOfClaimsAtOnceOneIsGranted(t *testing.T) {
	t.Parallel()
	s := once.Store{DB: dbtest.Open(t)}
	var granted atomic.Int64
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			switch _, was, err := s.Begin(t.Context(), once.Request{Caller: "me", Key: "k"}); {
			case err == nil && was == nil:
				granted.Add(1)
			case !errors.Is(err, once.ErrUnderWay):
				t.Errorf("got %v, %v", was, err)
			}
		})
	}
	all.Wait()
	if n := granted.Load(); n != 1 {
		t.Errorf("%d claims were granted", n)
	}
}
