package config

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPrint(t *testing.T) {
	t.Parallel()
	text := "[app]\nport = 1\nservice_name = \"tab\\t \\\"quote\\\" \\u007f é <\"\n[queue.limits.types]\n\"a.b\" = 3\n[imap]\nidle = false"

	t.Run("writes TOML that loads to the same configuration", func(t *testing.T) {
		t.Parallel()
		l := load(t, text, "QUEUE_LEASE", "90s", "QUEUE_QUEUES", "x,y")
		var out bytes.Buffer
		if err := l.Print(&out); err != nil {
			t.Fatal(err)
		}
		again := load(t, out.String())
		if !reflect.DeepEqual(l.Config, again.Config) {
			t.Errorf("got %+v\nwant %+v\nfrom\n%s", again.Config, l.Config, &out)
		}
	})

	t.Run("gives each value's origin", func(t *testing.T) {
		t.Parallel()
		l := load(t, text, "LIBSQL_AUTH_TOKEN", "x", "QUEUE_LEASE", "90s")
		var out bytes.Buffer
		if err := l.Print(&out); err != nil {
			t.Fatal(err)
		}
		lines := map[string]string{}
		for line := range strings.Lines(out.String()) {
			key, rest, _ := strings.Cut(strings.TrimSpace(line), " = ")
			lines[key] = strings.Join(strings.Fields(rest), " ")
		}
		for key, want := range map[string]string{
			"app.port":                 "1 # " + l.File + ":2",
			"app.host":                 `"127.0.0.1" # default`,
			"queue.lease":              `"1m30s" # env QUEUE_LEASE`,
			"queue.heartbeat":          `"30s" # default`,
			"database.auth_token":      `"***" # env LIBSQL_AUTH_TOKEN`,
			"api.token":                `"" # default`,
			"telemetry.sample_ratio":   "1.0 # default",
			"queue.limits.queues":      "{} # default",
			`queue.limits.types."a.b"`: "3 # " + l.File + ":5",
			"policy.approval_always":   `["delete", "forward", "auto_reply", "escalate"] # default`,
		} {
			if lines[key] != want {
				t.Errorf("%s: %s, want %s", key, lines[key], want)
			}
		}
		if want := len(l.fields); len(lines) != want {
			t.Errorf("%d lines, want %d", len(lines), want)
		}
		want := []SetKey{
			{"imap.idle", l.File + ":7"},
		}
		if got := l.Reserved(); !slices.Equal(got, want) {
			t.Errorf("reserved: %v, want %v", got, want)
		}
	})

	t.Run("says the same in JSON", func(t *testing.T) {
		t.Parallel()
		l := load(t, text)
		var out bytes.Buffer
		if err := l.PrintJSON(&out); err != nil {
			t.Fatal(err)
		}
		var got struct{ Settings []map[string]any }
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{"key": "app.service_name", "value": "tab\t \"quote\" \x7f é <", "origin": l.File + ":3", "reserved": false}
		if len(got.Settings) != len(l.fields) || !reflect.DeepEqual(got.Settings[0], want) {
			t.Errorf("%d settings, the first %v", len(got.Settings), got.Settings[0])
		}
	})
}

func TestOriginOfAnUnknownKey(t *testing.T) {
	t.Parallel()
	if got := load(t, "").Origin("app.prot"); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestRehearsing(t *testing.T) {
	t.Parallel()
	if got := load(t, "queue.fault_seed = 0").Rehearsing(); len(got) != 0 {
		t.Errorf("got %v", got)
	}
	l := load(t, "queue.fault_seed = 7", "QUEUE_CLOCK_OFFSET", "-10m")
	want := []SetKey{{"queue.fault_seed", l.File + ":1"}, {"queue.clock_offset", "env QUEUE_CLOCK_OFFSET"}}
	if got := l.Rehearsing(); !slices.Equal(got, want) || l.Queue.ClockOffset.Duration != -10*time.Minute {
		t.Errorf("got %v, offset %v", got, l.Queue.ClockOffset)
	}
}

func TestLogFormat(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text     string
		terminal bool
		want     string
	}{
		{"", true, "pretty"},
		{"", false, "json"},
		{"app.env = 'prod'", true, "json"},
		{"log.format = 'json'", true, "json"},
		{"log.format = 'pretty'", false, "pretty"},
	} {
		if got := load(t, c.text).LogFormat(c.terminal); got != c.want {
			t.Errorf("%q with terminal %t: %s, want %s", c.text, c.terminal, got, c.want)
		}
	}
}

func TestPrintSaysWhereTheServerDecidesWhatACommitSurvives(t *testing.T) {
	t.Parallel()
	const words = "the server decides"
	for name, c := range map[string]struct {
		env  []string
		says bool
	}{
		"a file":                     {nil, false},
		"a server":                   {[]string{"DATABASE_URL", "http://db:8080"}, true},
		"a server with an admin URL": {[]string{"DATABASE_URL", "http://db:8080", "DATABASE_ADMIN_URL", "http://db:9090"}, false},
		"a server, and that is fine": {[]string{"DATABASE_URL", "http://db:8080", "DATABASE_SYNCHRONOUS", "normal"}, false},
	} {
		var out bytes.Buffer
		if err := load(t, "", c.env...).Print(&out); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(out.String(), words); got != c.says {
			t.Errorf("%s: it says %q: %v\n%s", name, words, got, &out)
		}
	}
}
