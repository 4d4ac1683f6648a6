package httpd

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestAskReady(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		body   string
		want   string // in the error; "" for none
	}{
		"ready":    {http.StatusOK, `{"status":"ok"}`, ""},
		"draining": {http.StatusServiceUnavailable, `{"status":"draining"}`, `503 {"status":"draining"}`},
		"another service on the port that says much": {http.StatusNotFound, strings.Repeat("x", 1<<20), "404 xxx"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/readyz" {
					t.Errorf("asked %s", r.URL.Path)
				}
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body)) // who asks reads the beginning only
			}))
			defer s.Close()
			err := AskReady(t.Context(), s.Listener.Addr().String())
			if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || len(err.Error()) > 2<<10) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		t.Parallel()
		s := httptest.NewServer(http.NotFoundHandler())
		s.Close()
		if err := AskReady(t.Context(), s.Listener.Addr().String()); err == nil || !strings.Contains(err.Error(), "does not answer") {
			t.Error(err)
		}
	})
	for addr, want := range map[string]string{
		"0.0.0.0:1": "127.0.0.1:1", ":1": "127.0.0.1:1", "[::]:1": "[::1]:1", "10.0.0.1:1": "10.0.0.1:1", "localhost:1": "localhost:1",
	} {
		if got := fromHere(addr); got != want {
			t.Errorf("%s is called as %s, want %s", addr, got, want)
		}
	}
}
