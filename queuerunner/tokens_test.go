package main

import (
	"strings"
	"testing"

	"github.com/postroom/postroom/core/token"
)

func TestTokens(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := cli(t, db.path, "tokens", "add", "grafana", "-role", "read")
	secret := strings.TrimSpace(r.out)
	if r.code != exitFine || !strings.HasPrefix(secret, "postroom_") || !strings.Contains(r.err, "not shown again") {
		t.Fatalf("%+v", r)
	}
	added := decode[addedToken](t, fine(t, db.path, "tokens", "add", "robot", "-role", "operate", "-json"))
	if added.Name != "robot" || added.Role != token.Operate || !strings.HasPrefix(added.Token, "postroom_") {
		t.Errorf("%+v", added)
	}
	fine(t, db.path, "tokens", "remove", "robot")
	keys := token.NewKeyring()
	if err := keys.Refresh(t.Context(), token.Store{DB: db.q.DB()}); err != nil {
		t.Fatal(err)
	}
	if got, _ := keys.Find(secret); got != (token.Caller{Name: "grafana", Role: token.Read}) {
		t.Errorf("what was printed opens for %+v", got)
	}
	out := fine(t, db.path, "tokens", "list")
	if lines := strings.Split(out, "\n"); len(lines) != 3 || !strings.HasPrefix(lines[0], "NAME     ROLE  ADDED") || !strings.HasPrefix(lines[1], "grafana  read  20") {
		t.Error(out)
	}
	list := decode[struct{ Tokens []token.Token }](t, fine(t, db.path, "tokens", "list", "-json"))
	if len(list.Tokens) != 1 || list.Tokens[0].Name != "grafana" || list.Tokens[0].Role != token.Read || list.Tokens[0].CreatedAt == 0 {
		t.Errorf("%+v", list)
	}
	for _, s := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"add", "grafana", "-role", "admin"}, exitFailed, "there is a token with this name"},
		{[]string{"add", "me"}, exitWrong, "-role is required: read, operate or admin"},
		{[]string{"add", "me", "-role", "root"}, exitWrong, "-role: must be read, operate or admin"},
		{[]string{"add", "config", "-role", "admin"}, exitWrong, "NAME: stands for something else"},
		{[]string{"remove", "me"}, exitFailed, "no such token"},
		{[]string{"remove", "\xff"}, exitWrong, "is not valid UTF-8"},
		{[]string{"remove", "grafana"}, exitFine, "the token grafana is removed"},
	} {
		r := cli(t, db.path, append([]string{"tokens"}, s.args...)...)
		if r.code != s.code || !strings.Contains(r.out+r.err, s.want) {
			t.Errorf("%v: %+v, want %q", s.args, r, s.want)
		}
	}
	if out := fine(t, db.path, "tokens", "list"); strings.Count(out, "\n") != 1 {
		t.Error(out)
	}
}
