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
