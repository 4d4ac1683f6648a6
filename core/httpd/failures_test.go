package httpd_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/core/httpd"
	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/token"
)

// try sends a token and returns the status.
func try(t *testing.T, g *httpd.Guard, remote, secret string) int {
	t.Helper()
	return ask(t, g, "GET", "/v1/jobs", remote, "api.example", "Authorization", "Bearer "+secret).StatusCode
}

func exhaust(t *testing.T, g *httpd.Guard, remote string) {
	t.Helper()
	for i := range 10 {
		if got := try(t, g, remote, fmt.Sprint("guess", i)); got != 401 {
			t.Errorf("guess %d: status %d", i, got)
		}
	}
}

func TestGuessingIsEndedForAMinute(t *testing.T) {
	t.Parallel()
	db := dbtest.Open(t)
	stored := token.Store{DB: db}
	made, err := stored.Add(t.Context(), "made", token.Read)
	if err != nil {
		t.Fatal(err)
	}
	tokens := token.NewKeyring("chosen")
	if err := tokens.Refresh(t.Context(), stored); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		const here, away = "192.0.2.7:5000", "192.0.2.8:5000"
		g := &httpd.Guard{Tokens: tokens, Open: []string{"/healthz"}}
		exhaust(t, g, here)
		<-time.After(20 * time.Second)
		got := ask(t, g, "GET", "/v1/jobs", "192.0.2.7:6000", "api.example", "Authorization", "Bearer guess")
		if got.StatusCode != http.StatusTooManyRequests || got.Header.Get("Retry-After") != strconv.Itoa(40) {
			t.Errorf("status %d, Retry-After %q", got.StatusCode, got.Header.Get("Retry-After"))
		}
		for secret, want := range map[string]int{"chosen": 429, made: answered} {
			if got := try(t, g, here, secret); got != want {
				t.Errorf("the right token %q: status %d, want %d", secret, got, want)
			}
		}
		if got := ask(t, g, "GET", "/healthz", here, "api.example"); got.StatusCode != answered {
			t.Errorf("health: status %d", got.StatusCode)
		}
		if got := try(t, g, away, "chosen"); got != answered {
			t.Errorf("another address: status %d", got)
		}
		<-time.After(40 * time.Second)
		if got := try(t, g, here, "chosen"); got != answered {
			t.Errorf("a minute later: status %d", got)
		}
		exhaust(t, g, here)
	})
}

func TestANetworkOfIPv6IsOneCaller(t *testing.T) {
	t.Parallel()
	g := &httpd.Guard{Tokens: token.NewKeyring("chosen")}
	for i := range 10 {
		try(t, g, fmt.Sprintf("[2001:db8:0:1::%x]:5000", i), "guess")
	}
	for remote, want := range map[string]int{"[2001:db8:0:1:ffff::1]:5000": 429, "[2001:db8:0:2::1]:5000": answered, "[::ffff:192.0.2.7]:5000": answered} {
		if got := try(t, g, remote, "chosen"); got != want {
			t.Errorf("%s: status %d, want %d", remote, got, want)
		}
	}
}

func TestCallsWithoutATokenAreNoGuesses(t *testing.T) {
	t.Parallel()
	g := &httpd.Guard{Tokens: token.NewKeyring("chosen")}
	for range 20 {
		if got := ask(t, g, "GET", "/v1/jobs", "192.0.2.7:5000", "api.example"); got.StatusCode != 401 {
			t.Errorf("status %d", got.StatusCode)
		}
	}
	if got := try(t, g, "192.0.2.7:5000", "chosen"); got != answered {
		t.Errorf("status %d", got)
	}
}

func TestFailuresAreRememberedOfABoundedNumberOfAddresses(t *testing.T) {
	t.Parallel()
	g := &httpd.Guard{Tokens: token.NewKeyring("chosen")}
	h := g.Wrap(http.NotFoundHandler())
	for i := range 25_000 {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
		r.RemoteAddr = fmt.Sprintf("10.%d.%d.7:5000", i/256, i%256)
		r.Header.Set("Authorization", "Bearer guess")
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	if n := httpd.Remembered(g); n == 0 || n > 10_000 {
		t.Errorf("%d addresses are remembered", n)
	}
}
