package httpd_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/core/httpd"
	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/libsql"
)

func never() bool  { return false }
func always() bool { return true }

func check(t *testing.T, h http.HandlerFunc) (status int, body map[string]any) {
	t.Helper()
	w := httptest.NewRecorder()
	h(w, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatal(err)
	}
	return w.Code, body
}

func expect(t *testing.T, h http.HandlerFunc, code int, want map[string]any) {
	t.Helper()
	got, body := check(t, h)
	if got != code {
		t.Errorf("status %d, want %d: %v", got, code, body)
	}
	for key, value := range want {
		if body[key] != value {
			t.Errorf("%s is %v, want %v", key, body[key], value)
		}
	}
}

func TestHealthOfAWorkingService(t *testing.T) {
	t.Parallel()
	db := dbtest.Open(t)
	schema, err := db.Health(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h := httpd.Health{DB: db, Version: "1.2.3", Schema: schema, Draining: never}
	fine := map[string]any{"status": "ok", "version": "1.2.3", "database": "ok", "schema": float64(schema), "durability": db.Durability()}
	expect(t, h.Healthz, 200, fine)
	expect(t, h.Readyz, 200, fine)
	expect(t, h.Livez, 200, map[string]any{"status": "ok"})

	t.Run("a newer schema is fine, an older one is not ready", func(t *testing.T) {
		t.Parallel()
		h := h
		h.Schema = schema - 1
		expect(t, h.Readyz, 200, nil)
		h.Schema = schema + 1
		expect(t, h.Readyz, 503, map[string]any{"status": "schema_outdated"})
		expect(t, h.Healthz, 200, nil)
	})
	t.Run("a service that stops is draining and alive", func(t *testing.T) {
		t.Parallel()
		h := h
		h.Draining = always
		expect(t, h.Healthz, 503, map[string]any{"status": "draining", "database": nil})
		expect(t, h.Readyz, 503, map[string]any{"status": "draining"})
		expect(t, h.Livez, 200, nil)
	})
}

func TestHealthFollowsTheDatabase(t *testing.T) {
	t.Parallel()
	place := dbtest.Place(t)
	h := httpd.Health{DB: dbtest.OpenPath(t, place.Path), Draining: never}
	expect(t, h.Healthz, 200, nil)
	bringBack := place.TakeAway(t)
	gone := map[string]any{"status": "unavailable", "database": "unavailable", "schema": nil, "durability": nil}
	expect(t, h.Healthz, 503, gone)
	expect(t, h.Readyz, 503, gone)
	expect(t, h.Livez, 200, nil)
	bringBack()
	expect(t, h.Healthz, 200, nil)
	expect(t, h.Readyz, 200, nil)
}

// stuck is a database that does not answer in time: what a stopped process
// with the write lock or a dead disk looks like from here.
type stuck struct {
	libsql.DB
	health, writer bool
}

func (s stuck) Health(ctx context.Context) (int64, error) {
	if !s.health {
		return 1, nil
	}
	<-ctx.Done()
	return 0, &libsql.Error{Class: libsql.Canceled, Op: "probe"}
}

func (s stuck) Durability() string { return libsql.DurabilityFull }

func (s stuck) ProbeWriter(ctx context.Context) (time.Duration, error) {
	if !s.writer {
		return 0, nil
	}
	started := time.Now()
	<-ctx.Done()
	return time.Since(started), &libsql.Error{Class: libsql.Canceled, Op: "probe"}
}

// full is a database on a full disk: it reads, and has no room to write.
type full struct{ libsql.DB }

func (full) Health(context.Context) (int64, error) { return 1, nil }

func (full) Durability() string { return libsql.DurabilityFull }

func (full) ProbeWriter(context.Context) (time.Duration, error) {
	return 0, &libsql.Error{Class: libsql.Full, Op: "probe"}
}

func TestReadinessTellsOfAFullDisk(t *testing.T) {
	t.Parallel()
	h := httpd.Health{DB: full{}, Schema: 1, Draining: never}
	expect(t, h.Readyz, 503, map[string]any{"status": "disk_full", "database": "ok", "writer": "full"})
	expect(t, h.Healthz, 200, nil)
}

func TestHealthDoesNotWaitForAStuckDatabase(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		db             stuck
		health, ready  string
		atMost, within time.Duration // of /healthz and /readyz
	}{
		"readers are stuck":       {stuck{health: true}, "unavailable", "unavailable", time.Second, time.Second},
		"writers are stuck":       {stuck{writer: true}, "ok", "writer_blocked", 0, 2 * time.Second},
		"everything is stuck":     {stuck{health: true, writer: true}, "unavailable", "unavailable", time.Second, time.Second},
		"nothing is stuck at all": {stuck{}, "ok", "ok", 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := httpd.Health{DB: c.db, Schema: 1, Draining: never}
				for _, probe := range []struct {
					serve http.HandlerFunc
					want  string
					bound time.Duration
				}{{h.Healthz, c.health, c.atMost}, {h.Readyz, c.ready, c.within}} {
					started := time.Now()
					_, body := check(t, probe.serve)
					if took := time.Since(started); took > probe.bound || body["status"] != probe.want {
						t.Errorf("%v after %v, want %s within %v", body["status"], took, probe.want, probe.bound)
					}
				}
			})
		})
	}
}
