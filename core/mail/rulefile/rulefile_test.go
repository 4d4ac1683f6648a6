package rulefile

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/mail"
)

func TestWhatIsWrittenIsReadAgain(t *testing.T) {
	t.Parallel()
	why, ref := "too \"eager\"\nsince May", "example.com"
	stored := []mail.Rule{
		{Name: "News = 'all'", Scope: "global", Priority: 5, Enabled: true, SafeMode: "default", ActionType: "archive",
			Conditions: json.RawMessage(`{"op":"or","children":[{"op":"not","children":[{"op":"has_attachment"}]},{"op":"subject_regex","value":"^\\[x\\] \"é\""}]}`), ActionParameters: json.RawMessage("{}")},
		{Name: "Label", Scope: "domain", ScopeRef: &ref, Priority: -3, SafeMode: "always_safe", ActionType: "apply_label", DisabledReason: &why, Description: &why,
			Conditions: json.RawMessage(`{"op":"header_match","header":"X-A","pattern":"."}`), ActionParameters: json.RawMessage(`{"label":"a.b c"}`)},
	}
	text, err := FormatTOML(stored)
	if err != nil {
		t.Fatal(err)
	}
	read, err := ParseTOML(text)
	if err != nil || len(read) != 2 {
		t.Fatalf("%v\n%s", err, text)
	}
	for i, n := range read {
		r := stored[i]
		if n.Name != r.Name || n.Scope != r.Scope || *n.Priority != r.Priority || *n.Enabled != r.Enabled || n.SafeMode != r.SafeMode || n.ActionType != r.ActionType {
			t.Errorf("%+v\n%s", n, text)
		}
		if !sameJSON(t, n.Conditions, r.Conditions) || i == 1 && !sameJSON(t, n.ActionParameters, r.ActionParameters) {
			t.Errorf("%s %s\n%s", n.Conditions, n.ActionParameters, text)
		}
	}
	if n := read[1]; n.ScopeRef != ref || n.DisabledReason != why || n.Description != why {
		t.Errorf("%+v\n%s", n, text)
	}
}

func sameJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	var x, y any
	if err := json.Unmarshal(a, &x); err != nil {
		t.Fatalf("%v: %s", err, a)
	}
	if err := json.Unmarshal(b, &y); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(x, y)
}

func TestMistakesInTOMLHaveTheirPlace(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"no TOML":        {"[[rules]]\nname = x", "line 2, column 8"},
		"an unknown key": {"[[rules]]\nname = \"x\"\nnme = 1", `line 3, column 1: unknown field "rules.nme"`},
		"a wrong type":   {"[[rules]]\npriority = \"high\"", "line 2, column 12"},
		"nothing":        {"", "there is none"},
		"broken UTF-8":   {"[[rules]]\nname = \"\xff\"", "not valid UTF-8"},
	} {
		if _, err := ParseTOML([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
