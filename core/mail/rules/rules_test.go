package rules

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func input() *Input {
	return &Input{
		FromEmail: "Ann.Lee@Mail.Example.COM",
		Subject:   "Straße: RECHNUNG  Nr. 5",
		Headers: map[string][]string{
			"X-Spam":   {"no", "Score=12"},
			"Received": {"from a", "from b"},
			"x-odd":    {"odd"},
		},
		Labels:        []string{"work", "Ärger"},
		BodyPlain:     []byte("Dear Bob,\r\nyour caf\xe9 bill is\nover due."),
		BodyHTML:      []byte("<p class=hidden>Total:&nbsp;<b>5</b>&euro;</p>"),
		ListID:        "Dev <dev.Lists.example.com>",
		HasAttachment: true,
	}
}

func leaf(op, value string) string { return fmt.Sprintf(`{"op":%q,"value":%q}`, op, value) }

func TestMatch(t *testing.T) {
	t.Parallel()
	header := func(name, pattern string) string {
		return fmt.Sprintf(`{"op":"header_match","header":%q,"pattern":%q}`, name, pattern)
	}
	for _, tc := range []struct {
		conditions string
		want       bool
	}{
		{leaf("sender_email", "ann.lee@mail.example.com"), true},
		{leaf("sender_email", " ANN.LEE@mail.EXAMPLE.com "), true},
		{leaf("sender_email", "*@mail.example.com"), true},
		{leaf("sender_email", "*@example.com"), false},
		{leaf("sender_email", "lee@mail.example.com"), false},
		{leaf("sender_domain", "example.com"), true},
		{leaf("sender_domain", "MAIL.example.com."), true},
		{leaf("sender_domain", "ample.com"), false},
		{leaf("sender_domain", "com"), true},
		{leaf("sender_domain", "x.mail.example.com"), false},
		{leaf("subject_contains", "rechnung nr"), true},
		{leaf("subject_contains", "STRASSE"), true},
		{leaf("subject_contains", "nr. 6"), false},
		{leaf("subject_regex", `Nr\. \d$`), true},
		{leaf("subject_regex", "rechnung"), false},
		{leaf("subject_regex", "(?i)rechnung"), true},
		{header("x-spam", "^Score=1"), true},
		{header("X-Spam", "^yes"), false},
		{header("Received", "b$"), true},
		{header("X-Odd", "odd"), true},
		{header("X-Missing", ".*"), false},
		{leaf("label_present", "work"), true},
		{leaf("label_present", "Work"), false},
		{leaf("body_contains", "BOB, your"), true},
		{leaf("body_contains", "CAFÉ bill"), true},
		{leaf("body_contains", "total: 5€"), true},
		{leaf("body_contains", "hidden"), false},
		{leaf("list_id", "dev.lists.example.com"), true},
		{leaf("list_id", "<DEV.lists.example.com>"), true},
		{leaf("list_id", "dev"), false},
		{`{"op":"has_attachment"}`, true},
		{`{"op":"not","children":[{"op":"has_attachment"}]}`, false},
		{`{"children":[{"op":"has_attachment"},` + leaf("label_present", "x") + `],"op":"and"}`, false},
		{`{"children":[{"op":"has_attachment"},` + leaf("label_present", "x") + `],"op":"or"}`, true},
	} {
		t.Run(tc.conditions, func(t *testing.T) {
			t.Parallel()
			c, err := Compile([]byte(tc.conditions))
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Match(input()); got != tc.want {
				t.Errorf("got %v", got)
			}
		})
	}
	t.Run("an empty message matches no leaf", func(t *testing.T) {
		t.Parallel()
		for _, op := range []string{"sender_email", "sender_domain", "subject_contains", "subject_regex", "label_present", "body_contains", "list_id"} {
			value := "x.y"
			if op == "sender_email" {
				value = "*@x.y"
			}
			c, err := Compile([]byte(leaf(op, value)))
			if err != nil {
				t.Fatal(err)
			}
			if c.Match(&Input{}) {
				t.Error(op)
			}
		}
	})
	t.Run("only the beginning of a large body is searched", func(t *testing.T) {
		t.Parallel()
		c, err := Compile([]byte(leaf("body_contains", "needle")))
		if err != nil {
			t.Fatal(err)
		}
		hay := strings.Repeat("x ", MaxBodyBytes/2)
		if !c.Match(&Input{BodyPlain: []byte("needle " + hay)}) || c.Match(&Input{BodyPlain: []byte(hay + "needle")}) {
			t.Error("the limit is elsewhere")
		}
	})
}

func TestCompileErrors(t *testing.T) {
	t.Parallel()
	nested := strings.Repeat(`{"op":"not","children":[`, MaxDepth) + `{"op":"has_attachment"}` + strings.Repeat(`]}`, MaxDepth)
	wide := `{"op":"or","children":[` + strings.Repeat(`{"op":"has_attachment"},`, MaxNodes) + `{"op":"has_attachment"}]}`
	for _, tc := range []struct{ name, conditions, path, reason string }{
		{"nothing", ``, "$", "ends too early"},
		{"no object", `[]`, "$", "an object is needed, not a list"},
		{"null", `null`, "$", "null"},
		{"not JSON", `{op:1}`, "$", "not valid JSON at byte"},
		{"cut off", `{"op":"and","children":[{"op":"has_attachment"}`, "$.children", "ends too early"},
		{"more after it", `{"op":"has_attachment"} {}`, "$", "more after"},
		{"no op", `{}`, "$.op", "missing"},
		{"an unknown op", `{"op":"xor"}`, "$.op", "one of and, or"},
		{"an unknown op with children", `{"op":"xor","children":[]}`, "$.op", "unknown"},
		{"op of another type", `{"op":1}`, "$.op", "a string is needed, not a number"},
		{"an unknown field", `{"op":"and","children":[{"op":"has_attachment","foo":1}]}`, "$.children[0].foo", "unknown field"},
		{"an odd field name", `{"op":"has_attachment","a b\n":1}`, `$["a b\n"]`, "unknown field"},
		{"a field in another case", `{"Op":"has_attachment"}`, "$.Op", "unknown field"},
		{"a field twice", `{"op":"has_attachment","op":"and"}`, "$.op", "twice"},
		{"and without children", `{"op":"and"}`, "$.children", "missing"},
		{"or with none", `{"op":"or","children":[]}`, "$.children", "at least one"},
		{"not with two", `{"op":"not","children":[{"op":"has_attachment"},{"op":"has_attachment"}]}`, "$.children", "exactly one"},
		{"and with a value", `{"op":"and","children":[{"op":"has_attachment"}],"value":"x"}`, "$.value", "nothing else"},
		{"a leaf with children", `{"op":"list_id","value":"x","children":[]}`, "$.children", "only and, or and not"},
		{"children of another type", `{"op":"and","children":{}}`, "$.children", "a list is needed, not an object"},
		{"a child of another type", `{"op":"and","children":[1]}`, "$.children[0]", "an object is needed, not a number"},
		{"no value", `{"op":"and","children":[{"op":"has_attachment"},{"op":"list_id"}]}`, "$.children[1].value", "missing"},
		{"an empty value", `{"op":"body_contains","value":" \n"}`, "$.value", "empty"},
		{"a value of another type", `{"op":"body_contains","value":["x"]}`, "$.value", "a string is needed, not a list"},
		{"a NUL", `{"op":"body_contains","value":"\u0000x"}`, "$.value", "NUL"},
		{"a long value", leaf("body_contains", strings.Repeat("x", MaxPatternBytes+1)), "$.value", "at most 4096"},
		{"has_attachment with a value", `{"op":"has_attachment","value":"x"}`, "$.value", "no further field"},
		{"header_match with a value", `{"op":"header_match","value":"x"}`, "$.value", "header and pattern"},
		{"header_match without pattern", `{"op":"header_match","header":"x"}`, "$.pattern", "missing"},
		{"a header that is none", `{"op":"header_match","header":"a b","pattern":"x"}`, "$.header", "not a header name"},
		{"a broken expression", `{"op":"not","children":[{"op":"subject_regex","value":"(a"}]}`, "$.children[0].value", "missing closing )"},
		{"a backreference", `{"op":"header_match","header":"x","pattern":"(a)\\1"}`, "$.pattern", "RE2"},
		{"a large expression", leaf("subject_regex", strings.Repeat("(a{1000})", 6)), "$.value", "too large"},
		{"large expressions together", `{"op":"or","children":[` + strings.Repeat(leaf("subject_regex", strings.Repeat("(a{1000})", 3))+",", 2) + `{"op":"has_attachment"}]}`, "$.children[1].value", "too large"},
		{"no address", leaf("sender_email", "example.com"), "$.value", "an address"},
		{"a star elsewhere", leaf("sender_email", "a*@example.com"), "$.value", "star"},
		{"a star in the domain", leaf("sender_email", "a@*.com"), "$.value", "star"},
		{"no local part", leaf("sender_email", "@example.com"), "$.value", "before the @"},
		{"an address as domain", leaf("sender_domain", "a@example.com"), "$.value", "sender_email"},
		{"a star as domain", leaf("sender_domain", "*.example.com"), "$.value", "without a star"},
		{"a dot before the domain", leaf("sender_domain", ".example.com"), "$.value", "leading dot"},
		{"a list without id", leaf("list_id", "Dev <>"), "$.value", "list's id"},
		{"too deep", nested, "$" + strings.Repeat(".children[0]", MaxDepth), "at most 32 levels"},
		{"too many", wide, "$.children[999]", "at most 1000"},
		{"too long", leaf("body_contains", strings.Repeat("x", MaxConditionsBytes)), "$", "at most 65536"},
		{"not UTF-8", "{\"op\":\"body_contains\",\"value\":\"\xff\"}", "$", "UTF-8"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c, err := Compile([]byte(tc.conditions))
			var e *Error
			if !errors.As(err, &e) || c != nil {
				t.Fatalf("got %v, %v", c, err)
			}
			if e.Path != tc.path || !strings.Contains(e.Reason, tc.reason) {
				t.Errorf("got %v", e)
			}
		})
	}
}

func TestLimitsAreReached(t *testing.T) {
	t.Parallel()
	for name, conditions := range map[string]string{
		"depth": strings.Repeat(`{"op":"not","children":[`, MaxDepth-1) + `{"op":"has_attachment"}` + strings.Repeat(`]}`, MaxDepth-1),
		"nodes": `{"op":"or","children":[` + strings.Repeat(`{"op":"has_attachment"},`, MaxNodes-2) + `{"op":"has_attachment"}]}`,
		"value": leaf("body_contains", strings.Repeat("x", MaxPatternBytes)),
	} {
		if _, err := Compile([]byte(conditions)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestScopes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		scope, ref, account, from string
		want                      bool
	}{
		{"global", "", "1", "", true},
		{"account", "1", "1", "", true},
		{"account", "2", "1", "", false},
		{"account", "", "", "", false},
		{"sender", "Ann@x.org", "1", "ann@X.org", true},
		{"sender", "*@x.org", "1", "ann@X.org", true},
		{"sender", "*@x.org", "1", "ann@a.x.org", false},
		{"domain", "x.org", "1", "ann@a.x.org", true},
		{"domain", "x.org", "1", "ann@ax.org", false},
		{"domain", "", "1", "ann", false},
		{"other", "", "1", "", false},
	} {
		s, err := CompileScope(tc.scope, tc.ref)
		if got := s.Matches(tc.account, &Input{FromEmail: tc.from}); got != tc.want || tc.want && err != nil {
			t.Errorf("%+v: got %v, %v", tc, got, err)
		}
	}
	for _, tc := range []struct{ scope, ref, path string }{
		{"global", "", ""}, {"account", "1", ""}, {"sender", "a@b.c", ""}, {"sender", "*@b.c", ""}, {"domain", "b.c", ""},
		{"global", "x", "scope_ref"}, {"account", " ", "scope_ref"}, {"sender", "b.c", "scope_ref"}, {"domain", "a@b.c", "scope_ref"}, {"x", "", "scope"},
	} {
		err := ValidateScope(tc.scope, tc.ref)
		var e *Error
		if got := errors.As(err, &e); got != (tc.path != "") || got && e.Path != tc.path {
			t.Errorf("%+v: got %v", tc, err)
		}
	}
}

func TestValidateAction(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ action, params, path, reason string }{
		{"archive", `{}`, "", ""}, {"mark_read", ``, "", ""}, {"star", ` `, "", ""}, {"trash", `{}`, "", ""}, {"none", `{}`, "", ""},
		{"move", `{"folder":"A/B"}`, "", ""}, {"move", `{"folder":"INBOX"}`, "", ""}, {"apply_label", `{"label":"Zu tun"}`, "", ""},
		{"archive", `{"x":1}`, "$.x", "no parameters"},
		{"archive", `null`, "$", "an object is needed"},
		{"archive", `{} {}`, "$", "more after"},
		{"move", `{}`, "$.folder", "missing"},
		{"move", ``, "$.folder", "missing"},
		{"move", `{"folder":"../x"}`, "$.folder", "invalid folder name"},
		{"move", `{"folder":""}`, "$.folder", "empty"},
		{"move", `{"folder":1}`, "$.folder", "a string is needed"},
		{"move", `{"folder":"a","label":"b"}`, "$.label", "unknown field"},
		{"move", `{"folder":"a","folder":"b"}`, "$.folder", "twice"},
		{"apply_label", `{"label":" a"}`, "$.label", "space"},
		{"apply_label", `{"label":"a\u0007"}`, "$.label", "control"},
		{"apply_label", `{"label":"` + strings.Repeat("x", 201) + `"}`, "$.label", "200"},
		{"apply_label", "{\"label\":\"\xff\"}", "$", "UTF-8"},
		{"forward", `{}`, "action_type", "not supported yet"},
		{"explode", `{}`, "action_type", "unknown"},
		{"", ``, "action_type", "unknown"},
	} {
		err := ValidateAction(tc.action, []byte(tc.params))
		var e *Error
		switch {
		case tc.path == "":
			if err != nil {
				t.Errorf("%s %s: %v", tc.action, tc.params, err)
			}
		case !errors.As(err, &e) || e.Path != tc.path || !strings.Contains(e.Reason, tc.reason):
			t.Errorf("%s %s: got %v", tc.action, tc.params, err)
		case errors.Is(err, ErrNotSupported) != (tc.action == "forward"):
			t.Errorf("%s: the kind of %v is wrong", tc.action, err)
		}
	}
}

// tree draws conditions as JSON can hold them.
func tree(t *rapid.T, depth int) map[string]any {
	if depth == 0 || rapid.Bool().Draw(t, "leaf") {
		word := rapid.SampledFrom([]string{"a", "b", "É", "ß"}).Draw(t, "word")
		switch op := rapid.SampledFrom([]string{"sender_email", "sender_domain", "subject_contains", "subject_regex", "header_match", "label_present", "body_contains", "list_id", "has_attachment"}).Draw(t, "op"); op {
		case "has_attachment":
			return map[string]any{"op": op}
		case "header_match":
			return map[string]any{"op": op, "header": "X", "pattern": word}
		case "sender_email":
			return map[string]any{"op": op, "value": "*@" + word}
		default:
			return map[string]any{"op": op, "value": word}
		}
	}
	op := rapid.SampledFrom([]string{"and", "or", "not"}).Draw(t, "op")
	n := 1
	if op != "not" {
		n = rapid.IntRange(1, 3).Draw(t, "n")
	}
	children := make([]any, n)
	for i := range children {
		children[i] = tree(t, depth-1)
	}
	return map[string]any{"op": op, "children": children}
}

func negate(n any) map[string]any { return map[string]any{"op": "not", "children": []any{n}} }

func TestLaws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "é", "SS", ""}), 6, 6).Draw(t, "words")
		in := &Input{
			FromEmail: "x@" + words[0], Subject: words[1], Headers: map[string][]string{"X": {words[2]}},
			Labels: words[3:4], BodyPlain: []byte(words[4]), ListID: words[5], HasAttachment: rapid.Bool().Draw(t, "attached"),
		}
		match := func(n any) bool {
			b, err := json.Marshal(n)
			if err != nil {
				t.Fatal(err)
			}
			c, err := Compile(b)
			if err != nil {
				t.Fatalf("%s: %v", b, err)
			}
			got := c.Match(in)
			if got != c.Match(in) {
				t.Fatal("matching twice gives two answers")
			}
			return got
		}
		a, b := tree(t, 3), tree(t, 3)
		pair := func(op string, x, y any) map[string]any {
			return map[string]any{"op": op, "children": []any{x, y}}
		}
		ma, mb := match(a), match(b)
		if match(negate(negate(a))) != ma {
			t.Error("not not a is not a")
		}
		if match(pair("and", a, b)) != (ma && mb) || match(pair("or", a, b)) != (ma || mb) {
			t.Error("and, or are not what they say")
		}
		if match(negate(pair("and", a, b))) != match(pair("or", negate(a), negate(b))) {
			t.Error("De Morgan does not hold")
		}
	})
}

// Conditions compile, or are refused with their place; what compiles matches
// any message at all without an error, and always the same.
func FuzzMatch(f *testing.F) {
	mail := []byte("From: Ann <ann@example.com>\nSubject: =?utf-8?q?Stra=C3=9Fe?=\nX: caf\xe9\nx: 2\nList-Id: a <list.example.com>\nContent-Type: text/html\n\n<b>5</b>&euro;")
	for _, conditions := range []string{
		leaf("sender_email", "*@example.com"), leaf("sender_email", "\"a@b\"@example.com"), leaf("sender_domain", "EXAMPLE.com."), leaf("subject_contains", "STRASSE"),
		leaf("subject_regex", `^\p{L}+$`), leaf("body_contains", "5€"), leaf("list_id", "<list.example.com>"), leaf("label_present", "a"), `{"op":"list_id","value":"\ud800"}`,
		`{"op":"and","children":[{"op":"not","children":[{"op":"header_match","header":"x","pattern":"(?i)^a{2,3}$"}]},{"op":"has_attachment"}]}`,
		`{"op":"header_match","header":"X","pattern":"(((a{30}){30})"}`, `{"op":"or","children":[]}`, `{"op":"and","op":"or"}`, `[`, "{\"op\":\"subject_regex\",\"value\":\"\xff\"}", `{"op":"subject_regex","value":"\\C\\Q"}`,
	} {
		f.Add([]byte(conditions), mail)
	}
	f.Add([]byte(leaf("body_contains", "x")), []byte{})
	f.Fuzz(func(t *testing.T, conditions, raw []byte) {
		c, err := Compile(conditions)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || !strings.HasPrefix(e.Path, "$") || e.Reason == "" || c != nil {
				t.Errorf("%v %v", c, err)
			}
			if strings.ContainsFunc(err.Error(), unicode.IsControl) || !utf8.ValidString(err.Error()) {
				t.Errorf("no clean line: %q", err)
			}
			return
		}
		if !json.Valid(conditions) {
			t.Error("compiled what is not JSON")
		}
		negated, err := Compile(slices.Concat([]byte(`{"op":"not","children":[`), conditions, []byte(`]}`)))
		var e *Error
		if err != nil && (!errors.As(err, &e) || !strings.Contains(e.Reason, "at most")) {
			t.Fatalf("compiles alone, and not inside of not: %v", err)
		}
		for _, in := range []*Input{input(), inputOf(raw), {}} {
			yes := c.Match(in)
			if yes != c.Match(in) {
				t.Error("matching twice gives two answers")
			}
			if negated != nil && yes == negated.Match(in) {
				t.Error("a rule and its opposite agree")
			}
		}
	})
}
