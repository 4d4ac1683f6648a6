package config

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/reference"
)

// docs/reference/configuration.md is every key as the code has it, with what
// the annotated example says of it, which TestExampleFile holds to the code.
func TestReferenceOfConfiguration(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(Options{})
	if err != nil {
		t.Fatal(err)
	}
	all, err := loaded.Settings()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	for _, s := range all.Settings {
		values[s.Key] = string(s.Value)
	}
	comments := commentsOf(string(text))
	var b strings.Builder
	b.WriteString("# Configuration\n\nEvery key with its default and its variables. The file comes first, then the environment, then `-set KEY=VALUE`; the later wins. " +
		"[config/postroom.example.toml](../../config/postroom.example.toml) is the same as a file to begin with.\n")
	section := ""
	for _, f := range loaded.fields {
		name, _, _ := strings.Cut(f.key, ".")
		if name != section {
			section = name
			fmt.Fprintf(&b, "\n## [%s]\n\n%s\n\n| key | default | variables | meaning |\n|---|---|---|---|\n", section, strings.Join(comments[section], " "))
		}
		comment := comments[f.key]
		if f.table() {
			fmt.Fprintf(&b, "| `[%s]` | | | %s |\n", f.key, reference.Cell(strings.Join(comment, " ")))
			continue
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | `%s` | %s |\n", f.key, reference.Cell(values[f.key]), strings.Join(f.names, "`, `"), reference.Cell(strings.Join(comment[:len(comment)-1], " ")))
	}
	reference.Hold(t, "configuration.md", b.String())
}
