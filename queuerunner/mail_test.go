package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/mail"
)

type accountPage struct {
	Accounts []mail.Account `json:"accounts"`
	Next     *string        `json:"next_cursor"`
}

type rulePage struct {
	Rules []mail.Rule `json:"rules"`
	Next  *string     `json:"next_cursor"`
}

func TestAccounts(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	hostile := "Mallory\x1b]0;owned\x07\u202e\x00end"
	id := strings.TrimSpace(fine(t, db.path, "accounts", "add", "-email", "me@example.com", "-path", "/var/mail/me", "-queue", "q", "-display-name", "Me"))
	if _, err := db.mail.CreateAccount(t.Context(), mail.NewAccount{
		Provider: "maildir", Email: "m@example.com", DisplayName: hostile, Config: []byte(`{"path":"/m"}`),
	}); err != nil {
		t.Fatal(err)
	}

	out := fine(t, db.path, "accounts", "list")
	if !strings.Contains(out, `Mallory\x1b]0;owned\a\u202e\x00end`) || strings.ContainsAny(out, "\x1b\x07\x00\u202e") {
		t.Errorf("%q", out)
	}
	if strings.Count(out, "\n") != 3 || !strings.Contains(out, `{"path":"/var/mail/me","queue":"q"}`) {
		t.Error(out)
	}
	p := decode[accountPage](t, fine(t, db.path, "accounts", "list", "-json", "-limit", "1"))
	if len(p.Accounts) != 1 || p.Next == nil || *p.Accounts[0].DisplayName != hostile {
		t.Fatalf("%+v", p)
	}
	p = decode[accountPage](t, fine(t, db.path, "accounts", "list", "-json", "-cursor", *p.Next))
	if len(p.Accounts) != 1 || p.Next != nil || p.Accounts[0].ID != id {
		t.Errorf("%+v", p)
	}

	t.Run("makes a relative path absolute", func(t *testing.T) {
		t.Parallel()
		a := decode[mail.Account](t, fine(t, newDatabase(t).path, "accounts", "add", "-email", "r@example.com", "-path", "rel", "-json"))
		want, err := filepath.Abs("rel")
		if err != nil {
			t.Fatal(err)
		}
		if cfg, err := a.Maildir(); err != nil || cfg.Path != want {
			t.Errorf("%+v %v", cfg, err)
		}
	})

	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"add", "-email", "me@example.com", "-path", "/m"}, exitFailed, "another account has this e-mail address"},
		{[]string{"add", "-email", "me", "-path", "/m"}, exitWrong, "-email: must be an address"},
		{[]string{"add", "-email", "x@example.com", "-path", "/a\nb"}, exitWrong, "contains a control character"},
		{[]string{"add", "-email", "x@example.com", "-path", "/a\xff"}, exitWrong, "is not valid UTF-8"},
		{[]string{"add", "-email", "x@example.com", "-path", "/m", "-display-name", "\xff"}, exitWrong, "-display-name: must be valid UTF-8"},
		{[]string{"list", "-cursor", "x"}, exitWrong, "-cursor: is not one that a list has returned"},
		{[]string{"list", "-limit", "-1"}, exitWrong, "-limit must be"},
	} {
		if r := cli(t, db.path, append([]string{"accounts"}, c.args...)...); r.code != c.code || !strings.Contains(r.err, c.want) {
			t.Errorf("%v: %+v", c.args, r)
		}
	}
}

const (
	oneRule  = `{"name":"News","conditions":{"op":"sender_domain","value":"news.example"},"action_type":"archive"}`
	badRule  = `{"name":"Bad","conditions":{"op":"and","children":[{"op":"subject_regex","value":"("}]},"action_type":"archive"}`
	wideRule = `{"name":"Wide","scope":"domain","scope_ref":"example.com","priority":5,"enabled":false,"safe_mode":"always_safe",
	 "description":"d","conditions":{"op":"has_attachment"},"action_type":"apply_label","action_parameters":{"label":"x"}}`
)

func TestRules(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	one := strings.TrimSpace(fine(t, db.path, "rules", "add", "-file", write(t, "one.json", oneRule)))
	r := cliWith(t, db.path, " ["+wideRule+","+oneRule+"]", "rules", "add", "-file", "-", "-json")
	added := decode[rulePage](t, r.out).Rules
	if len(added) != 2 {
		t.Fatalf("%+v", r)
	}
	if w := added[0]; w.Name != "Wide" || w.Scope != "domain" || *w.ScopeRef != "example.com" || w.Priority != 5 || w.Enabled ||
		w.SafeMode != "always_safe" || *w.Description != "d" || w.ActionType != "apply_label" || string(w.ActionParameters) != `{"label":"x"}` {
		t.Errorf("%+v", w)
	}
	out := fine(t, db.path, "rules", "list")
	if strings.Count(out, "\n") != 4 || !strings.Contains(out, one) || !strings.Contains(out, "domain example.com") || !strings.Contains(out, "disabled") {
		t.Error(out)
	}
	if p := decode[rulePage](t, fine(t, db.path, "rules", "list", "-json")); len(p.Rules) != 3 || p.Next != nil {
		t.Errorf("%+v", p)
	}
}

func TestRulesThatAreRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"a broken rule":       {badRule, "conditions.children[0].value: "},
		"one of several":      {"[" + oneRule + "," + badRule + "]", "rules[1].conditions.children[0].value: "},
		"no JSON":             {"{\n  \"name\": x\n}", "line 2, column 11: "},
		"a broken array":      {"[\n1,]", "line 2, column 3: "},
		"an unknown field":    {`{"nme":"x"}`, `unknown field "nme"`},
		"a wrong type":        {"[" + oneRule + `,{"name":1}]`, "rules[1]: "},
		"an empty array":      {"[]", "there is none"},
		"null":                {"[null]", "null is no rule"},
		"nothing":             {"", "unexpected end"},
		"broken UTF-8":        {"{\"name\":\"\xff\"}", "not valid UTF-8"},
		"a control character": {"{\"\x1b\":1}", "rules in"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			r := cli(t, db.path, "rules", "add", "-file", write(t, "rules.json", c.text))
			if list := fine(t, db.path, "rules", "list"); strings.Count(list, "\n") > 1 {
				t.Errorf("something was added: %s", list)
			}
			if r.code != exitWrong || !strings.Contains(r.err, c.want) || strings.Contains(r.err, "\x1b") {
				t.Errorf("%+v, want %q", r, c.want)
			}
		})
	}
}
