package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/libsql/sqldtest"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
)

// On a libsql server an enqueue costs one round trip, its answer included.
func TestAnEnqueueCostsOneRoundTrip(t *testing.T) {
	t.Parallel()
	to, err := url.Parse(sqldtest.Start(t).URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	var trips atomic.Int64
	link := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		trips.Add(1)
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(link.Close)
	opt := libsql.Options{Path: link.URL}
	if err := libsql.Migrate(t.Context(), opt); err != nil {
		t.Fatal(err)
	}
	db, err := libsql.Open(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close(t.Context()) }) // it ends with the server
	if _, err := db.Write(t.Context(), &libsql.Batch{}); err != nil {
		t.Fatal(err) // the first one tells the database where it lies
	}
	h, err := newHandler(service{
		queue: queue.New(db, system.Real{}, job.Known()), log: zerolog.Nop(), maxBody: 32 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	api := httptest.NewServer(h)
	t.Cleanup(api.Close)

	id := "0198a6b2-0000-7000-8000-000000000001"
	for _, c := range []struct {
		name, path, body string
		status           int
	}{
		{"a job", "/v1/jobs", `{"type":"debug.echo","payload":{"n":1}}`, http.StatusCreated},
		{"one with an id", "/v1/jobs", fmt.Sprintf(`{"id":%q,"type":"debug.echo","payload":{"n":2}}`, id), http.StatusCreated},
		{"that one again", "/v1/jobs", fmt.Sprintf(`{"id":%q,"type":"debug.echo","payload":{"n":2}}`, id), http.StatusCreated},
		{"one with a key", "/v1/jobs", `{"type":"debug.echo","idempotency_key":"k"}`, http.StatusCreated},
		{"a duplicate", "/v1/jobs", `{"type":"debug.echo","idempotency_key":"k"}`, http.StatusOK},
		{"one that comes after another", "/v1/jobs", fmt.Sprintf(`{"type":"debug.echo","after":[%q]}`, id), http.StatusCreated},
		{"several", "/v1/jobs:batch", `{"jobs":[{"type":"debug.echo"},{"type":"debug.echo","idempotency_key":"k"}]}`, http.StatusCreated},
	} {
		before := trips.Load()
		got := send(t, "POST", api.URL+c.path, strings.NewReader(c.body), "Content-Type", "application/json")
		if got.status != c.status {
			t.Errorf("%s: %d %s", c.name, got.status, got.raw)
		}
		if n := trips.Load() - before; n != 1 {
			t.Errorf("%s took %d round trips", c.name, n)
		}
	}
}
