package config

import (
	"strings"
	"testing"
)

func TestDatabasePath(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"./data/postroom.db":       "./data/postroom.db",
		"/abs/x.db":                "/abs/x.db",
		"~/x.db":                   "/home/u/x.db",
		"file:x.db":                "x.db",
		"FILE:/abs/x.db":           "/abs/x.db",
		"file:///abs/x.db":         "/abs/x.db",
		"file://localhost/abs/x":   "/abs/x",
		"file:~/x.db":              "/home/u/x.db",
		"file:with%20space.db":     "with space.db",
		"odd://name":               "",
		"a/b://c":                  "a/b://c",
		"100%.db":                  "100%.db",
		"":                         "",
		"file:":                    "",
		":memory:":                 "",
		"file::memory:":            "",
		"file:x.db?mode=ro":        "",
		"x.db?key=y":               "",
		"x.db#y":                   "",
		"file:x%3fkey=y":           "",
		"file:%zz":                 "",
		"file://elsewhere/x.db":    "",
		"~":                        "",
		"~other/x.db":              "",
		"folder/":                  "",
		"a\x00b":                   "",
		"libsql://host":            "",
		"postgres://host/database": "",
	} {
		got, err := Paths{in}.LocalPath("/home/u")
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q gave %q and %v, want %q", in, got, err, want)
		}
	}
	if _, err := (Paths{"~/x"}).LocalPath(""); err == nil {
		t.Error("~ without a home folder was accepted")
	}
}

func TestDatabaseURL(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"libsql://host":               "",
		"http://127.0.0.1:8080":       "",
		"HTTPS://host/namespace":      "",
		"libsql://host?tls=0":         "",
		"x.db":                        "",
		"https://":                    "without a host",
		"http://host:port":            "not a valid URL",
		"libsql://user@host":          "database.auth_token",
		"libsql://host?authToken=x":   "database.auth_token",
		"libsql://host?auth_token=x":  "database.auth_token",
		"libsql://host?tls=0&jwt=x":   "database.auth_token",
		"libsql://host#x":             "fragment",
		"ws://host":                   "unsupported",
		"postgres://u:p@host/name":    "unsupported",
		"file:x.db?authToken=sesame!": "options after ?",
	} {
		got := Paths{in}.databaseFault()
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
		wantRemote := strings.Contains(in, "libsql:") || strings.HasPrefix(strings.ToLower(in), "http")
		if remote := (Paths{in}).IsRemote(); remote != wantRemote {
			t.Errorf("%q is remote: %t", in, remote)
		}
	}
}
