package config

import (
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// env makes a Lookup of name, value, name, value …
func env(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

// write puts text into a new file and returns its path.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "postroom.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, text string, environment ...string) *Loaded {
	t.Helper()
	l, err := Load(Options{Path: write(t, text), Lookup: env(environment...)})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// problems loads what must fail, and returns the lines of the error with the
// file's name shortened to "f".
func problems(t *testing.T, text string, o Options) []string {
	t.Helper()
	if text != "" {
		o.Path = write(t, text)
	}
	_, err := Load(o)
	var all *Problems
	if !errors.As(err, &all) {
		t.Fatalf("Load gave %v, want *Problems", err)
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(all.List) {
		t.Errorf("%d problems in %d lines:\n%v", len(all.List), len(lines), err)
	}
	if o.Path != "" {
		for i := range lines {
			lines[i] = strings.ReplaceAll(lines[i], o.Path, "f")
		}
	}
	return lines
}

func expectLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestLayers(t *testing.T) {
	t.Parallel()

	t.Run("defaults run without a file and fill in the heartbeat", func(t *testing.T) {
		t.Parallel()
		l, err := Load(Options{})
		if err != nil {
			t.Fatal(err)
		}
		want := Default()
		want.Queue.Heartbeat.Duration = 20 * time.Second
		if !reflect.DeepEqual(l.Config, want) {
			t.Errorf("got %+v\nwant %+v", l.Config, want)
		}
	})

	t.Run("flags win over the environment, which wins over the file", func(t *testing.T) {
		t.Parallel()
		path := write(t, "[app]\nhost = \"file\"\nport = 1\nenv = \"prod\"\n")
		l, err := Load(Options{
			Path:   path,
			Lookup: env("APP_PORT", "2", "APP_HOST", "variable"),
			Flags:  []Setting{{"-set", "app.port", "3"}, {"-port", "app.port", "4"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		got := []any{l.App.Host, l.App.Port, l.App.Env, l.Origin("app.host"), l.Origin("app.port"), l.Origin("app.env"), l.Origin("app.drain_delay")}
		want := []any{"variable", 4, "prod", "env APP_HOST", "flag -port", path + ":4", "default"}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})

	t.Run("every kind of value is read from a file, a variable and a flag", func(t *testing.T) {
		t.Parallel()
		for _, c := range []struct{ key, toml, text string }{
			{"app.host", `"x"`, "x"},
			{"app.port", "0x1_0", "16"},
			{"api.max_body", "2_000", "2000"},
			{"queue.debug_jobs", "true", "1"},
			{"telemetry.sample_ratio", "5_0.0e-2", "0.5"},
			{"telemetry.sample_ratio", "0", "0"},
			{"queue.lease", `"1m30s"`, "90s"},
			{"api.token", `'t'`, "t"},
			{"queue.queues", "[\n'a', # why\n'b',\n]", "a, b"},
			{"api.tokens", `["a", "b"]`, "a,b"},
		} {
			f, _ := newSchema().find(strings.Split(c.key, "."))
			inFile := load(t, c.key+" = "+c.toml)
			inVariable := load(t, "", f.names[0], c.text)
			inFlag, err := Load(Options{Flags: []Setting{{"-set", c.key, c.text}}})
			if err != nil {
				t.Fatal(err)
			}
			def := Default()
			for _, l := range []*Loaded{inFile, inVariable, inFlag} {
				got := f.in(&l.Config).Interface()
				if !reflect.DeepEqual(got, f.in(&inFile.Config).Interface()) || reflect.DeepEqual(got, f.in(&def).Interface()) {
					t.Errorf("%s from %s is %v", c.key, l.Origin(c.key), got)
				}
			}
		}
	})

	t.Run("an empty variable wins", func(t *testing.T) {
		t.Parallel()
		l := load(t, "queue.queues = ['a']\napi.token = 'x'", "QUEUE_HTTP_ADDR", "", "QUEUE_QUEUES", "", "API_TOKEN", "")
		if l.Queue.HTTPAddr != "" || len(l.Queue.Queues) != 0 || l.API.Token.Reveal() != "" {
			t.Errorf("got %q, %q, %q", l.Queue.HTTPAddr, l.Queue.Queues, l.API.Token.Reveal())
		}
		expectLines(t, problems(t, "", Options{Lookup: env("APP_PORT", "", "QUEUE_LEASE", "", "PATHS_DATABASE", "")}),
			"env APP_PORT: app.port: empty; want a whole number",
			"env PATHS_DATABASE: paths.database: an empty path; want a path, file:PATH, or libsql://, http:// or https:// and a host",
			`env QUEUE_LEASE: queue.lease: empty; want a duration such as "3s" or "1m30s"`)
	})

	t.Run("both names of a key must agree", func(t *testing.T) {
		t.Parallel()
		l := load(t, "", "DATABASE_URL", "a.db", "PATHS_DATABASE", "a.db", "OTLP_ENDPOINT", "http://c")
		if l.Paths.Database != "a.db" || l.Origin("telemetry.otlp_endpoint") != "env OTLP_ENDPOINT" {
			t.Errorf("got %q from %q", l.Paths.Database, l.Origin("telemetry.otlp_endpoint"))
		}
		expectLines(t, problems(t, "", Options{Lookup: env("DATABASE_URL", "", "PATHS_DATABASE", "a.db")}),
			"env PATHS_DATABASE: paths.database: differs from DATABASE_URL, which sets the same key; want one of the two, or one value in both")
	})

	t.Run("CONFIG_PATH names the file unless the flag does", func(t *testing.T) {
		t.Parallel()
		one, two := write(t, "app.port = 1"), write(t, "app.port = 2")
		for path, want := range map[string]int{"": 2, one: 1} {
			l, err := Load(Options{Path: path, Lookup: env("CONFIG_PATH", two)})
			if err != nil || l.App.Port != want {
				t.Errorf("-config %q gave port %v and %v", path, l, err)
			}
		}
		expectLines(t, problems(t, "", Options{Lookup: env("CONFIG_PATH", "/missing/x.toml", "APP_PORT", "x")}),
			"/missing/x.toml: the file named by CONFIG_PATH cannot be read: no such file or directory; want a readable TOML file",
			"env APP_PORT: app.port: not understood; want a whole number")
	})

	t.Run("a limit table is filled by file and flags", func(t *testing.T) {
		t.Parallel()
		path := write(t, "[queue.limits]\nqueues = { mail = 5 }\n[queue.limits.types]\n\"mail.sync\" = 2\n[queue.limits.intervals]\nacc = \"250ms\"\n")
		l, err := Load(Options{Path: path, Flags: []Setting{
			{"-set", "queue.limits.queues.mail", "6"}, {"-set", "queue.limits.types.a.b", "7"}, {"-set", "queue.limits.keys.*", "1"},
		}})
		if err != nil {
			t.Fatal(err)
		}
		want := Limits{
			Queues: map[string]int{"mail": 6}, Types: map[string]int{"mail.sync": 2, "a.b": 7}, Keys: map[string]int{"*": 1},
			Intervals: map[string]Duration{"acc": {250 * time.Millisecond}},
		}
		if !reflect.DeepEqual(l.Queue.Limits, want) {
			t.Errorf("got %v, want %v", l.Queue.Limits, want)
		}
	})

	t.Run("a file that begins with a byte order mark is read", func(t *testing.T) {
		t.Parallel()
		if l := load(t, "\ufeffapp.port = 1"); l.App.Port != 1 {
			t.Errorf("port %d", l.App.Port)
		}
	})
}

func TestReferences(t *testing.T) {
	t.Parallel()

	t.Run("every kind of value may name a variable", func(t *testing.T) {
		t.Parallel()
		l := load(t, `
			api.token = "env:ONE"
			api.tokens = ["env:TWO", "three"]
			queue.lease = "env:LEASE"
			app.port = "env:PORT"
			app.service_name = "env:NESTED"`,
			"ONE", "1", "TWO", "a,b", "LEASE", "5s", "PORT", "99", "NESTED", "env:PORT", "APP_HOST", "env:HOST", "HOST", "h", "QUEUE_QUEUES", "x, env:HOST")
		got := []any{l.API.Token.Reveal(), len(l.API.Tokens), l.API.Tokens[0].Reveal(), l.Queue.Lease.String(), l.App.Port, l.App.Host, l.App.ServiceName, l.Queue.Queues[1]}
		want := []any{"1", 2, "a,b", "5s", 99, "h", "env:PORT", "h"}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})

	t.Run("a variable that is not set is named with its key", func(t *testing.T) {
		t.Parallel()
		got := problems(t, "[api]\ntoken = 'env:NOPE'\ntokens = ['x', 'env:NADA']\n[app]\nhost = 'env:'", Options{Lookup: env("APP_SERVICE_NAME", "env:NIX")})
		expectLines(t, got,
			"f:2:9: api.token: the variable NOPE is not set; want it set, or another value for the key",
			"f:3:16: api.tokens: the variable NADA is not set; want it set, or another value for the key",
			"f:5:8: app.host: env: names no variable; want env:NAME",
			"env APP_SERVICE_NAME: app.service_name: the variable NIX is not set; want it set, or another value for the key")
	})
}

func TestAllProblemsAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	got := problems(t, `
port = 5
[app]
prot = 1
port = "x"
env = 'test'
port = 3
drain_delay = "-3s"
[[mail]]
sync_interval = 5
[logg]
level = "x"
[queue]
lease = 60
concurrency = 0
queues = ["a", 5]
heartbeat = "40s"
debug_jobs = 'yes'
limits.queues = { a = "x", b = -1, " " = 5, "" = 5 }
[queue.limits.types.x]
y = 1
[database]
readers = 99999999999999999999
busy_timeout = "3"
retry_base = 2024-01-02
[telemetry]
sample_ratio = nan
[api]
tokens = []
allowed_origins = ["https://ok.example", "https://bad.example/"]
`, Options{
		Lookup: env("LOG_LEVEL", "loud", "QUEUE_QUEUES", "a,,a"),
		Flags:  []Setting{{"-set", "app.hots", "x"}, {"-set", "", ""}, {"-set", "queue.limits", "x"}, {"-set", "app.port", "70000"}},
	})
	expectLines(t, got,
		"f:2:1: port: unknown key; want perhaps app.port",
		"f:4:1: app.prot: unknown key; want perhaps app.port",
		"f:5:8: app.port: wrong type (a string); want a whole number",
		"f:6:7: app.env: not one of its values; want dev or prod",
		"f:7:1: app.port: set twice; want it once; it was set in line 5",
		"f:8:15: app.drain_delay: out of range; want a duration from 0s to 1h",
		"f:9:3: mail: wrong type (a list of tables); want a table [mail]",
		"f:11:2: logg: unknown key; want perhaps log",
		`f:14:9: queue.lease: wrong type (a whole number); want a duration such as "3s" or "1m30s"`,
		"f:15:15: queue.concurrency: out of range; want a whole number from 1 to 10000",
		"f:16:16: queue.queues: wrong type (a list with a whole number); want a list of strings",
		"f:18:14: queue.debug_jobs: wrong type (a string); want true or false",
		"f:19:23: queue.limits.queues.a: wrong type (a string); want a whole number",
		"f:19:32: queue.limits.queues.b: out of range; want a whole number from 0 to 1000000",
		`f:19:42: queue.limits.queues." ": not a name; want a name of at most 200 bytes, not empty, without control characters and spaces around it`,
		`f:19:50: queue.limits.queues."": not a name; want a name of at most 200 bytes, not empty, without control characters and spaces around it`,
		"f:20:2: queue.limits.types.x: wrong type (a table); want a whole number",
		"f:23:11: database.readers: out of range; want a whole number from 1 to 64",
		`f:24:16: database.busy_timeout: not understood; want a duration such as "3s" or "1m30s"`,
		`f:25:14: database.retry_base: wrong type (a date or time); want a duration such as "3s" or "1m30s"`,
		"f:27:16: telemetry.sample_ratio: out of range; want a number from 0 to 1",
		"f:30:19: api.allowed_origins: item 2 is not an origin; want scheme://host or scheme://host:port, nothing after it",
		"env QUEUE_QUEUES: queue.queues: item 2 is not a queue name; want a name of at most 200 bytes, not empty, without control characters and spaces around it",
		"env LOG_LEVEL: log.level: not one of its values; want debug or info or warn or error",
		"flag -set: app.hots: unknown key; want perhaps app.host",
		"flag -set: no key; want KEY=VALUE, for example app.port=17800",
		"flag -set: queue.limits: a table, not a key; want a key in it",
		"flag -set: app.port: out of range; want a whole number from 0 to 65535",
	)
}

func TestOneProblemPerCause(t *testing.T) {
	t.Parallel()

	t.Run("a value that was not understood is not compared with others", func(t *testing.T) {
		t.Parallel()
		expectLines(t, problems(t, "queue.lease = 'x'\nqueue.heartbeat = '40s'", Options{}),
			`f:1:15: queue.lease: not understood; want a duration such as "3s" or "1m30s"`)
	})

	t.Run("problems of one line are in the order of the line", func(t *testing.T) {
		t.Parallel()
		expectLines(t, problems(t, "app = { port = 70000, hots = 1 }", Options{}),
			"f:1:16: app.port: out of range; want a whole number from 0 to 65535",
			"f:1:23: app.hots: unknown key; want perhaps app.host")
	})
}

func TestSyntaxErrors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"a value without quotes, of which nothing is repeated": {"[api]\ntoken = sesame", "f:2:9: not valid TOML: unexpected character at start of value"},
		"a string without an end":                              {"api.token = \"sesame\n", "f:1:20: not valid TOML: basic strings cannot have new lines"},
		"an unknown table":                                     {"[x]\n", "f:1:2: x: unknown key; want a key of the annotated example"},
		"a table twice":                                        {"[app]\n[log]\n[app]\n", "f:3:2: not valid TOML: table app already exists"},
		"a table where a key is":                               {"app = 5", "f:1:7: app: wrong type (a whole number); want a table [app]"},
		"a key below a key":                                    {"app.port.x = 5", "f:1:1: app.port: wrong type (a table); want a whole number"},
		"a quoted dot is no separator":                         {`"app.port" = 5`, `f:1:1: "app.port": unknown key; want perhaps app.port`},
		"a broken number":                                      {"app.port = 01", "f:1:12: not valid TOML: integers cannot have leading zeroes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			expectLines(t, problems(t, c.text, Options{}), c.want)
		})
	}

	t.Run("what stands before it is still judged", func(t *testing.T) {
		t.Parallel()
		expectLines(t, problems(t, "app.prot = 1\nqueue.lease = '2s'\nqueue.heartbeat = '1s'\n=", Options{Lookup: env("APP_PORT", "x")}),
			"f:1:1: app.prot: unknown key; want perhaps app.port",
			"f:4:1: not valid TOML: invalid character at start of key",
			"env APP_PORT: app.port: not understood; want a whole number")
	})

	t.Run("a file too large is not read", func(t *testing.T) {
		t.Parallel()
		expectLines(t, problems(t, strings.Repeat("#\n", maxFile/2)+"#", Options{}),
			"f: the file named by -config cannot be read: larger than 1048576 bytes; want a readable TOML file")
	})
}

func TestWhatMustFitTogether(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		env  []string
		want string
	}{
		"heartbeat and lease":    {"queue.heartbeat = '30s'", nil, "f:1:19: queue.heartbeat: a single late heartbeat would lose the lease; want queue.heartbeat below half of queue.lease"},
		"the one set last":       {"queue.heartbeat = '20s'", []string{"QUEUE_LEASE", "30s"}, "env QUEUE_LEASE: queue.lease: a single late heartbeat would lose the lease; want queue.heartbeat below half of queue.lease"},
		"busy and call timeout":  {"database.call_timeout = '1s'", nil, "f:1:25: database.call_timeout: longer than a whole call may take; want database.busy_timeout not above database.call_timeout"},
		"retry base and maximum": {"database.retry_base = '2s'", nil, "f:1:23: database.retry_base: the first wait is longer than the longest; want database.retry_base not above database.retry_max"},
		"certificate and key":    {"api.tls_cert = 'x'", nil, "f:1:16: api.tls_cert: one half of a pair; want api.tls_cert and api.tls_key, or neither"},
		"Pub/Sub":                {"gmail.use_pubsub = true", nil, "f:1:20: gmail.use_pubsub: incomplete; want gmail.project_id and gmail.subscription when gmail.use_pubsub is true"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			expectLines(t, problems(t, c.text, Options{Lookup: env(c.env...)}), c.want)
		})
	}
}

func TestSingleValues(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		key        string
		good, evil []string
	}{
		{"app.service_name", []string{"x"}, []string{"", " x"}},
		{"app.host", []string{"::1", "0.0.0.0", "localhost", "fe80::1%lo"}, []string{"", "a:1", "[::1]", "http://x", "a b"}},
		{"app.port", []string{"0", "65535"}, []string{"-1", "65536", "1.5"}},
		{"queue.heartbeat", []string{"0s", "29s"}, []string{"1ms", "30s"}},
		{"queue.http_addr", []string{"", ":0", "localhost:1", "[::1]:65535"}, []string{"localhost", "x:65536", "x:http", "::1"}},
		{"queue.queues", []string{"", "a", "a,b"}, []string{"a,a", "a,", ",", " "}},
		{"api.token", []string{"", "s3cr3t!"}, []string{"a b", "tok\n", "tök", " "}},
		{"api.tokens", []string{"", "a,b"}, []string{"a,,b"}},
		{"api.allowed_origins", []string{"http://a:1,https://b"}, []string{"*", "a", "http://a/", "ftp://a", "http://u@a"}},
		{"log.level", []string{"debug", "warn"}, []string{"trace", "WARN", ""}},
		{"telemetry.otlp_endpoint", []string{"", "http://c:4318", "https://c/base/"}, []string{"c:4318", "http://", "http://u:p@c", "http://c?x=1", "http://c?"}},
		{"telemetry.sample_ratio", []string{"0", "1", "1e-3"}, []string{"1.1", "-0.1", "nan", "1e999"}},
		{"model.base_url", []string{"https://m/v1"}, []string{"m", "https://key@m"}},
		{"discord.channel_id", []string{"", "123456789012345678"}, []string{"x", "-1", "+1", "99999999999999999999999"}},
		{"policy.approval_always", []string{"", "delete,none"}, []string{"destroy"}},
		{"policy.confidence_default", []string{"0", "1"}, []string{"2"}},
		{"app.host", nil, []string{"\xff"}},
		{"app.service_name", nil, []string{"\xff"}},
	} {
		for _, value := range c.good {
			if _, err := Load(Options{Flags: []Setting{{"-set", c.key, value}}}); err != nil {
				t.Errorf("%s=%q: %v", c.key, value, err)
			}
		}
		for _, value := range c.evil {
			_, err := Load(Options{Flags: []Setting{{"-set", c.key, value}}})
			if err == nil || !strings.HasPrefix(err.Error(), "flag -set: "+c.key+": ") || !strings.Contains(err.Error(), "; want ") {
				t.Errorf("%s=%q: %v", c.key, value, err)
			}
		}
	}
}

func TestRegister(t *testing.T) {
	t.Parallel()
	var o Options
	path := write(t, "app.port = 1")
	for _, arguments := range [][]string{
		{"-config", path, "-set", "app.host=a=b", "-set=broken-secret"},
		{"-set", "app.env=prod"}, // after a subcommand
	} {
		flags := flag.NewFlagSet("x", flag.ContinueOnError)
		flags.SetOutput(io.Discard)
		o.Register(flags)
		if err := flags.Parse(arguments); err != nil {
			t.Fatal(err)
		}
	}
	want := Options{Path: path, Flags: []Setting{{"-set", "app.host", "a=b"}, {"-set", "", ""}, {"-set", "app.env", "prod"}}}
	if !reflect.DeepEqual(o, want) {
		t.Errorf("got %+v, want %+v", o, want)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	s := newSchema()
	owner := map[string]string{PathVariable: "the file"}
	for _, f := range s.fields {
		for _, name := range f.names {
			if other := owner[name]; other != "" {
				t.Errorf("%s means %s and %s", name, other, f.key)
			}
			if strings.HasPrefix(name, "OTEL_") {
				t.Errorf("%s is a name of OpenTelemetry's", name)
			}
			owner[name] = f.key
		}
	}
	for name, key := range map[string]string{
		"APP_PORT": "app.port", "APP_ENV": "app.env", "DATABASE_URL": "paths.database", "LIBSQL_AUTH_TOKEN": "database.auth_token",
		"QUEUE_LEASE": "queue.lease", "API_TOKEN": "api.token", "LOG_LEVEL": "log.level", "OTLP_ENDPOINT": "telemetry.otlp_endpoint",
		"MODEL": "model.model", "DISCORD_BOT_TOKEN": "discord.bot_token",
	} {
		if owner[name] != key {
			t.Errorf("%s means %q, want %s", name, owner[name], key)
		}
	}
}

func TestTheTokenOfADatabaseServer(t *testing.T) {
	t.Parallel()
	if token, err := load(t, "", "LIBSQL_AUTH_TOKEN", "abc").Database.Token(); err != nil || token != "abc" {
		t.Errorf("got %q, %v", token, err)
	}
	file := filepath.Join(t.TempDir(), "token")
	d := Database{AuthTokenFile: file}
	if token, err := d.Token(); err == nil {
		t.Errorf("a file that is not there gave %q", token)
	}
	for text, want := range map[string]string{"first\n": "first", " second": "second", "": "", "a b": "", "\x00": ""} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		token, err := d.Token() // as it is now
		if token != want || (err == nil) != (want != "") {
			t.Errorf("%q gave %q, %v", text, token, err)
		}
		if err != nil && strings.Contains(err.Error(), "a b") {
			t.Errorf("the error %v repeats the file", err)
		}
	}
}
