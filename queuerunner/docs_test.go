package main

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/config"
	"github.com/postroom/postroom/core/job"
)

// pages are those that tell people what to type.
func pages(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("../docs/*.md")
	if err != nil || len(paths) == 0 {
		t.Fatalf("%d pages, %v", len(paths), err)
	}
	texts := map[string]string{}
	for _, path := range append(paths, "../README.md", "../CONTRIBUTING.md", "../deploy/demo/README.md") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[strings.TrimPrefix(path, "../")] = string(text)
	}
	return texts
}

// A command that a page names is there, with the flags that it is given.
func TestPagesNameCommandsThatExist(t *testing.T) {
	t.Parallel()
	// In code: after a backtick or at the beginning of a line, perhaps with a
	// path or variables before it.
	named := regexp.MustCompile("(?m)(?:`|^)(?:[A-Z_]+=\\S+ )*(?:\\S*/)?queuerunner((?: +[^`\\n|&;#>]+)?)")
	found := 0
	for page, text := range pages(t) {
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			words := strings.Fields(m[1])
			if len(words) == 0 || !regexp.MustCompile(`^[-a-z]`).MatchString(words[0]) {
				continue // the program's name alone
			}
			found++
			name := ""
			for len(words) > 0 && (isGroup(strings.TrimSpace(name+" "+words[0])) || isCommand(strings.TrimSpace(name+" "+words[0]))) {
				name, words = strings.TrimSpace(name+" "+words[0]), words[1:]
				if isCommand(name) {
					break
				}
			}
			if name == "" && strings.HasPrefix(words[0], "-") {
				name = "run"
			}
			if !isCommand(name) && !isGroup(name) {
				t.Errorf("%s: there is no command queuerunner%s", page, m[1])
				continue
			}
			flags := flag.NewFlagSet(name, flag.ContinueOnError)
			c := &call{name: name, options: config.Options{Lookup: func(string) (string, bool) { return "", false }}}
			c.options.Register(flags)
			if isCommand(name) {
				lookUp(name).setup(c, flags)
			}
			for _, w := range words {
				given, _, _ := strings.Cut(strings.TrimLeft(strings.Trim(w, "[]\"'`"), "-"), "=")
				if strings.HasPrefix(strings.TrimLeft(w, "["), "-") && given != "" && flags.Lookup(given) == nil && !slices.Contains([]string{"h", "version"}, given) {
					t.Errorf("%s: queuerunner %s has no flag -%s", page, name, given)
				}
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d commands were found", found)
	}
}

// A key of the configuration that a page names is there.
func TestPagesNameKeysThatExist(t *testing.T) {
	t.Parallel()
	loaded, err := config.Load(config.Options{Lookup: func(string) (string, bool) { return "", false }})
	if err != nil {
		t.Fatal(err)
	}
	all, err := loaded.Settings()
	if err != nil {
		t.Fatal(err)
	}
	keys, sections := map[string]bool{}, map[string]bool{}
	for _, s := range all.Settings {
		section, _, _ := strings.Cut(s.Key, ".")
		keys[s.Key], sections[section] = true, true
	}
	named := regexp.MustCompile("`([a-z]+)\\.([a-z_]+)`")
	found := 0
	for page, text := range pages(t) {
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			name := m[1] + "." + m[2]
			if _, isType := job.Known()[name]; isType || !sections[m[1]] || m[2] == "go" || m[2] == "md" || slices.Contains([]string{"queue.job", "queue.enqueue", "queue.step"}, name) {
				continue // a type of jobs, a file, a span
			}
			if found++; !keys[name] {
				t.Errorf("%s names the key %s, which does not exist", page, name)
			}
		}
	}
	if found < 10 {
		t.Errorf("only %d keys were found", found)
	}
}
