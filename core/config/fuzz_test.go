package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// FuzzLoad feeds any bytes as a file: no panic, every problem has its place on
// one line, no secret of the environment shows, and what loads also prints and
// loads again to the same.
func FuzzLoad(f *testing.F) {
	example, err := os.ReadFile(exampleFile)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		string(example), "", "\xef\xbb\xbf", "[app]\nport = 1", "app = { port = 1 }", "[[app]]", "[app]\n[app]", "app.port.x = 1",
		"a = [[1], {b = 2}]", "queue.limits.queues = { 'a b' = 1, '' = 2 }", "x = 1979-05-27T07:32:00Z", "app.port = 0b1", "=", "\"\\u0000\" = 1",
		"api.tokens = [ # c\n 'env:HIDDEN',\n]", "app.host = 'env:HIDDEN'", "paths.database = '''\nx'''", "\"\" = 1", "app.port = '\xff'",
		"app\r.port=1", "[queue.limits.types.\"x\ny\"]", "app.port = 9223372036854775808", "app.port = +_1", "[a.b.c]\nd=1",
	} {
		f.Add([]byte(seed))
	}
	const hidden = "open-sesame-open"
	f.Fuzz(func(t *testing.T, doc []byte) {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, doc, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Load(Options{Path: path, Lookup: env("HIDDEN", hidden)})
		if err != nil {
			var all *Problems
			if !errors.As(err, &all) || len(all.List) == 0 {
				t.Fatalf("%T: %v", err, err)
			}
			if strings.Count(err.Error(), "\n") != len(all.List)-1 {
				t.Errorf("%d problems, not one a line: %q", len(all.List), err)
			}
			if strings.Contains(err.Error(), hidden) && !strings.Contains(string(doc), hidden) {
				t.Errorf("a value shows: %v", err)
			}
			for _, p := range all.List {
				positioned := strings.HasPrefix(p.Where, path+":")
				if p.What == "" || !positioned && len(doc) <= maxFile {
					t.Errorf("no position or no cause: %+v", p)
				}
			}
			return
		}
		var printed strings.Builder
		if err := l.Print(&printed); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(printed.String(), `"***"`) {
			return // a secret does not come back
		}
		if err := os.WriteFile(path, []byte(printed.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		// A value may have come from a reference and look like one itself.
		again, err := Load(Options{Path: path, Lookup: env("HIDDEN", hidden)})
		if err != nil {
			t.Fatalf("%v\nin\n%s", err, &printed)
		}
		if !reflect.DeepEqual(l.Config, again.Config) {
			t.Errorf("got %+v\nwant %+v", again.Config, l.Config)
		}
	})
}

// FuzzSettings does the same with a variable of the environment and with -set,
// where a value may be a secret in the wrong place: no error shows any.
func FuzzSettings(f *testing.F) {
	schema := newSchema()
	var names []string
	for _, field := range schema.fields {
		names = append(names, field.names...)
	}
	for i := range names {
		f.Add(uint8(i), "1", "app.port", "2")
	}
	for _, value := range []string{"", "0", "true", "3s", "-1s", "[\"a\", 'b']", "a,b", "env:HIDDEN", "env:", "env:NONE", "\xff", "\x00", "a\nb", "1e9", "0x10", " 1", "\"quoted\"", "99999999999999999999", "file:/x?mode=ro", "libsql://u:p@host", "none"} {
		f.Add(uint8(3), value, "queue.limits.queues.a b", value)
		f.Add(uint8(12), value, "app.host", value)
		f.Add(uint8(20), value, "api.token", value)
	}
	for _, key := range []string{"", ".", "queue.limits.types", "queue.limits.types.\"x\\ny\"", "queue.limits.keys.", "queue.limits.types.\xa9", "app", "app.port.x", "App.Port", "\xff", "a\nb", strings.Repeat("x", 300)} {
		f.Add(uint8(0), "", key, "1")
	}
	const hidden, mark = "open-sesame-open", "q9zq-mark"
	f.Fuzz(func(t *testing.T, which uint8, value, key, set string) {
		name := names[int(which)%len(names)]
		load := func(value, set string) (*Loaded, error) {
			return Load(Options{Lookup: env(name, value, "HIDDEN", hidden), Flags: []Setting{{Flag: "-set", Key: key, Value: set}}})
		}
		// What follows env: is a name, which an error may tell.
		if _, err := load(value+mark, mark+set); !strings.Contains(value, "env:") && err != nil && (strings.Contains(err.Error(), mark) || strings.Contains(err.Error(), hidden)) {
			t.Errorf("a value shows: %v", err)
		}
		l, err := load(value, set)
		if err != nil {
			var all *Problems
			if !errors.As(err, &all) || len(all.List) == 0 || strings.Count(err.Error(), "\n") != len(all.List)-1 {
				t.Fatalf("%T, not one problem a line: %q", err, err)
			}
			for _, p := range all.List {
				if p.Where != "env "+name && p.Where != "flag -set" || p.What == "" || p.Want == "" {
					t.Errorf("no place, no cause or no cure: %+v", p)
				}
			}
			return
		}
		var printed, inJSON strings.Builder
		if err := errors.Join(l.Print(&printed), l.PrintJSON(&inJSON)); err != nil {
			t.Fatal(err)
		}
		for _, f := range schema.fields {
			if secret, is := f.in(&l.Config).Interface().(Secret); is && !strings.Contains(value, set) && !strings.Contains(set, value) && len(secret.Reveal()) > 12 && strings.Contains(printed.String()+inJSON.String(), secret.Reveal()) {
				t.Errorf("%s shows", f.key)
			}
		}
		if strings.Contains(printed.String(), `"***"`) {
			return // a secret does not come back
		}
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, []byte(printed.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		again, err := Load(Options{Path: path, Lookup: env("HIDDEN", hidden)})
		if err != nil {
			t.Fatalf("%v\nin\n%s", err, &printed)
		}
		if !reflect.DeepEqual(l.Config, again.Config) {
			t.Errorf("got %+v\nwant %+v", again.Config, l.Config)
		}
	})
}
