package token_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/token"
)

func TestRolesIncludeTheOnesBefore(t *testing.T) {
	t.Parallel()
	for i, has := range token.Roles {
		for j, needed := range token.Roles {
			if got := has.Includes(needed); got != (i >= j) {
				t.Errorf("%s includes %s: %v", has, needed, got)
			}
		}
		if token.Role("").Includes(has) || token.Role("root").Includes(has) {
			t.Errorf("what is no role includes %s", has)
		}
	}
}

func TestTokensAreStoredAsHashes(t *testing.T) {
	t.Parallel()
	db := dbtest.Open(t)
	s := token.Store{DB: db}
	secrets := map[string]bool{}
	for name, role := range map[string]token.Role{"grafana": token.Read, "me": token.Admin} {
		secret, err := s.Add(t.Context(), name, role)
		if err != nil || !strings.HasPrefix(secret, "postroom_") || len(secret) < 50 {
			t.Fatalf("%s: %q, %v", name, secret, err)
		}
		secrets[secret] = true
	}
	if len(secrets) != 2 {
		t.Error("two tokens have one secret")
	}
	list, err := s.List(t.Context())
	if err != nil || len(list) != 2 || list[0].Caller != (token.Caller{Name: "grafana", Role: token.Read}) || list[1].Name != "me" || list[0].CreatedAt == 0 {
		t.Errorf("%+v, %v", list, err)
	}
	res, err := db.Read(t.Context(), libsql.Query("SELECT hash FROM api_tokens"))
	if err != nil {
		t.Fatal(err)
	}
	for secret := range secrets {
		if slices.ContainsFunc(res[0].Rows, func(r libsql.Row) bool { return strings.Contains(r.Str(0), secret[9:20]) }) {
			t.Error("a secret is in the database")
		}
	}
	if _, err := s.Add(t.Context(), "me", token.Read); !errors.Is(err, token.ErrNameInUse) {
		t.Errorf("the same name again: %v", err)
	}
	if err := s.Remove(t.Context(), "me"); err != nil {
		t.Error(err)
	}
	if err := s.Remove(t.Context(), "me"); !errors.Is(err, token.ErrNotFound) {
		t.Errorf("removed again: %v", err)
	}
}

func TestBadTokensAreRefused(t *testing.T) {
	t.Parallel()
	s := token.Store{DB: dbtest.Open(t)}
	for _, c := range []struct {
		name  string
		role  token.Role
		field string
	}{
		{"", token.Read, "name"}, {token.Configured, token.Read, "name"}, {token.Loopback, token.Read, "name"}, {"a\nb", token.Read, "name"},
		{"\xff", token.Read, "name"}, {strings.Repeat("n", 201), token.Read, "name"}, {"a", "", "role"}, {"a", "root", "role"},
	} {
		_, err := s.Add(t.Context(), c.name, c.role)
		var inv *job.Invalid
		if !errors.As(err, &inv) || inv.Field != c.field {
			t.Errorf("%q, %q: %v, want the field %s", c.name, c.role, err, c.field)
		}
	}
}

func TestAKeyringKnowsConfiguredAndStoredTokens(t *testing.T) {
	t.Parallel()
	place := dbtest.Place(t)
	s := token.Store{DB: dbtest.OpenPath(t, place.Path)}
	if k := token.NewKeyring("", ""); !k.IsEmpty() {
		t.Error("empty secrets count")
	}
	k := token.NewKeyring("", "configured")
	secret, err := s.Add(t.Context(), "reader", token.Read)
	if err != nil {
		t.Fatal(err)
	}
	check := func(when string, known map[string]token.Caller) {
		t.Helper()
		for _, given := range []string{"", "configured", "configure", secret, secret[:len(secret)-1]} {
			if got, ok := k.Find(given); got != known[given] || ok != (got.Name != "") {
				t.Errorf("%s: %q is %+v, %v, want %+v", when, given, got, ok, known[given])
			}
		}
	}
	config, reader := token.Caller{Name: "config", Role: token.Admin}, token.Caller{Name: "reader", Role: token.Read}
	check("at first", map[string]token.Caller{"configured": config})
	if err := k.Refresh(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	check("once read", map[string]token.Caller{"configured": config, secret: reader})
	bringBack := place.TakeAway(t)
	if err := k.Refresh(t.Context(), s); err == nil {
		t.Error("a database that is away was read")
	}
	check("while the database is away", map[string]token.Caller{"configured": config, secret: reader})
	bringBack()
	if err := s.Remove(t.Context(), "reader"); err != nil {
		t.Fatal(err)
	}
	if err := k.Refresh(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	check("once removed", map[string]token.Caller{"configured": config})
}
