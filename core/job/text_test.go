package job

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestRepairedNamesCanBeStoredAndStayDifferent(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for name, want := range map[string]string{
		"":             "",
		"plain/é 1":    "plain/é 1",
		"caf\xe9":      `caf\xe9`,
		"caf\xe8":      `caf\xe8`,
		"\uFFFD":       "\uFFFD", // a character like any other
		"a\x00b\n\x7f": `a\x00b\x0a\x7f`,
		"\xf0\x9f\x98": `\xf0\x9f\x98`, // cut in the middle
	} {
		got := RepairName(name)
		if got != want || CheckText("name", got, MaxName) != nil {
			t.Errorf("%q became %q, want %q", name, got, want)
		}
		if other, has := seen[got]; has {
			t.Errorf("%q and %q are both %q", name, other, got)
		}
		seen[got] = name
	}
}

func TestRepairedTextCanBeStored(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		max  int
		want string
	}{
		{"as it is é\n", 100, "as it is é\n"},
		{"caf\xe9\x00", 100, "caf\uFFFD\uFFFD"},
		{"éé", 3, "é …"}, // never in the middle of a character
	} {
		if got := RepairText(c.text, c.max); got != c.want {
			t.Errorf("%q became %q, want %q", c.text, got, c.want)
		}
	}
}

func TestEncodeResult(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		v        any
		want     string
		repaired bool
	}{
		{nil, "null", false},
		{"caf\xe9", `"caf\ufffd"`, false}, // encoding/json does that itself
		{map[string]any{"a": json.RawMessage("\"caf\xe9\"")}, "{\"a\":\"caf\uFFFD\"}", true},
	} {
		got, repaired, err := EncodeResult(c.v)
		if string(got) != c.want || repaired != c.repaired || err != nil {
			t.Errorf("%v: %q, %v, %v", c.v, got, repaired, err)
		}
	}
	for name, v := range map[string]any{
		"no JSON":                       make(chan int),
		"too large":                     strings.Repeat("x", MaxPayload),
		"too deep":                      json.RawMessage(strings.Repeat("[", MaxJSONDepth+1) + strings.Repeat("]", MaxJSONDepth+1)),
		"too large once it is repaired": json.RawMessage(`"` + strings.Repeat("\xff.", MaxPayload/3) + `"`),
	} {
		if _, _, err := EncodeResult(v); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
