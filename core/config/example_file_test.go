package config

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const exampleFile = "../../config/postroom.example.toml"

func TestExampleFile(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(Options{Path: exampleFile})
	if err != nil {
		t.Fatal(err)
	}

	t.Run("loads as the defaults", func(t *testing.T) {
		t.Parallel()
		bare, err := Load(Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range loaded.fields {
			got, want := f.in(&loaded.Config).Interface(), f.in(&bare.Config).Interface()
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s is %v in the example and %v in the code", f.key, got, want)
			}
		}
	})

	t.Run("has every key of the code", func(t *testing.T) {
		t.Parallel()
		// A key the code does not have was refused by Load already.
		for _, f := range loaded.fields {
			switch {
			case f.table():
				if !strings.Contains(string(text), "\n["+f.key+"]\n") {
					t.Errorf("the example has no table [%s]", f.key)
				}
			case loaded.Origin(f.key) == "default":
				t.Errorf("the example leaves out %s", f.key)
			}
		}
	})

	t.Run("says of every key its variables and whether it is reserved", func(t *testing.T) {
		t.Parallel()
		comments := commentsOf(string(text))
		for _, f := range loaded.fields {
			comment := comments[f.key]
			if len(comment) == 0 {
				t.Errorf("%s has no comment", f.key)
				continue
			}
			if says := strings.HasPrefix(comment[0], "Reserved: "); says != f.reserved {
				t.Errorf("%s is reserved %t in the code and %t in the example", f.key, f.reserved, says)
			}
			last := comment[len(comment)-1]
			want := "Env: " + strings.Join(f.names, ", ")
			if !f.table() && last != want {
				t.Errorf("%s is followed by %q, want %q", f.key, last, want)
			}
		}
	})

	t.Run("states the ranges and values that are checked", func(t *testing.T) {
		t.Parallel()
		comments := commentsOf(string(text))
		// One value far outside of each key's range, and the numbers that its
		// error names must stand in the key's comment.
		numbers := regexp.MustCompile(`from (\S+) to (\S+)$`)
		for _, f := range loaded.fields {
			kind := f.typ.Kind()
			if kind != reflect.Int && kind != reflect.Int64 && kind != reflect.Float64 && f.typ != durationType {
				continue
			}
			if strings.HasPrefix(f.key, "queue.retention_") {
				continue // bounded only to keep sums from overflowing
			}
			value := "9999999999"
			if f.typ == durationType {
				value = "100000h"
			}
			_, err := Load(Options{Flags: []Setting{{"-set", f.key, value}}})
			if err == nil {
				t.Errorf("%s=%s was accepted", f.key, value)
				continue
			}
			bounds := numbers.FindStringSubmatch(strings.Split(err.Error(), "\n")[0])
			if bounds == nil {
				t.Errorf("no range in %q", err)
				continue
			}
			comment := strings.Join(comments[f.key], " ")
			if f.key == "queue.heartbeat" {
				bounds[2] = "half of the lease"
			}
			if bounds[1] == "0s" {
				bounds[1] = "up to"
			}
			for _, bound := range bounds[1:] {
				if !strings.Contains(comment, bound) {
					t.Errorf("%s: %q is checked and not in the comment %q", f.key, bound, comment)
				}
			}
		}
	})
}

// commentsOf returns the comment lines above each key and table.
func commentsOf(text string) map[string][]string {
	found := map[string][]string{}
	var comment []string
	section := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "#"):
			comment = append(comment, strings.TrimSpace(line[1:]))
			continue
		case strings.HasPrefix(line, "["):
			section = strings.Trim(line, "[]")
			found[section] = slices.Clone(comment)
		case line != "":
			key, _, _ := strings.Cut(line, " = ")
			found[section+"."+key] = slices.Clone(comment)
		}
		comment = nil
	}
	return found
}
