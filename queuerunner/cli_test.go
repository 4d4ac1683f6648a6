package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/wiring"
)

// none is a path at which there is no database.
func none(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "postroom.db")
}

// write puts text into a file of its own and returns the file's path.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestHelp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"-h"}, []string{"migrate up", "jobs enqueue TYPE", "rules list", "-config FILE", "-version"}},
		{[]string{"jobs", "-h"}, []string{"jobs show ID", "-config FILE"}},
		{[]string{"jobs", "list", "-h"}, []string{"Usage: queuerunner jobs list [flags]", "-state STATE", "-set KEY=VALUE"}},
		{[]string{"run", "-help"}, []string{"Usage: queuerunner run [flags]"}},
	} {
		out := fine(t, none(t), c.args...)
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("%v: no %q in %s", c.args, want, out)
			}
		}
	}

	t.Run("every command has its own", func(t *testing.T) {
		t.Parallel()
		for _, cmd := range commands() {
			out := fine(t, none(t), append(strings.Fields(cmd.name), "-h")...)
			if !strings.HasPrefix(out, "Usage: queuerunner "+cmd.name+" ") {
				t.Errorf("%s: %s", cmd.name, out)
			}
		}
	})
}

func TestVersion(t *testing.T) {
	t.Parallel()
	out := fine(t, none(t), "-version")
	if !strings.HasPrefix(out, "queuerunner ") || len(strings.Fields(out)) != 2 {
		t.Errorf("%q", out)
	}
}

func TestWrongUse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		want string // on stderr
	}{
		{[]string{"jbos"}, `unknown command "jbos": did you mean "jobs"?`},
		{[]string{"rnu"}, `did you mean "run"?`},
		{[]string{"jobs", "lits"}, `unknown command "jobs lits": did you mean "jobs list"?`},
		{[]string{"frobnicate"}, `unknown command "frobnicate"` + "\n"},
		{[]string{"a\x1b[31mb"}, `unknown command "a\x1b[31mb"`},
		{[]string{""}, `unknown command ""`},
		{[]string{"jobs"}, "which one? enqueue, list, tail, show, why, cancel, retry, delete, run-now, settle"},
		{[]string{"run", "now"}, `unexpected argument "now"`},
		{[]string{"-frob"}, "flag provided but not defined: -frob"},
		{[]string{"jobs", "list", "-frob"}, "queuerunner jobs list: flag provided but not defined: -frob\n"},
		{[]string{"jobs", "list", "-stat", "failed"}, "flag provided but not defined: -stat: did you mean -state?"},
		{[]string{"-jsno", "jobs", "list"}, "flag provided but not defined: -jsno\n"},
		{[]string{"-versio"}, "did you mean -version?"},
		{[]string{"jobs", "show"}, "ID is missing"},
		{[]string{"jobs", "show", "a", "b"}, `unexpected argument "b"`},
		{[]string{"jobs", "show", "\xff"}, "is no id"},
		{[]string{"jobs", "list", "-state", "quued"}, "-state must be queued, running"},
		{[]string{"jobs", "list", "-limit", "0"}, "-limit must be from 1 to 200"},
		{[]string{"jobs", "list", "-limit", "201"}, "-limit must be from 1 to 200"},
		{[]string{"jobs", "list", "-cursor", "x"}, "-cursor must be what an earlier list gave"},
		{[]string{"jobs", "list", "-queue", "\xff"}, "is not valid UTF-8"},
		{[]string{"jobs", "enqueue"}, "TYPE is missing"},
		{[]string{"jobs", "enqueue", ""}, "TYPE: is required"},
		{[]string{"jobs", "enqueue", "a\tb"}, "TYPE: contains a control character"},
		{[]string{"jobs", "enqueue", "t", "-payload", "{"}, "-payload: is not a JSON value"},
		{[]string{"jobs", "enqueue", "t", "-payload", ""}, "-payload must not be empty"},
		{[]string{"jobs", "enqueue", "t", "-priority", "101"}, "-priority: must be between"},
		{[]string{"jobs", "enqueue", "t", "-max-attempts", "0"}, "-max-attempts must not be 0"},
		{[]string{"jobs", "enqueue", "t", "-max-attempts", "-1"}, "-max-attempts: must be between"},
		{[]string{"jobs", "enqueue", "t", "-delay", "-1s"}, "-delay: must not be negative"},
		{[]string{"jobs", "enqueue", "t", "-delay", "soon"}, "-delay"},
		{[]string{"jobs", "enqueue", "t", "-not-before", "tomorrow"}, "-not-before must be a time such as"},
		{[]string{"jobs", "enqueue", "t", "-delay", "1s", "-not-before", "2030-01-01T00:00:00Z"}, "-delay: must not be given together"},
		{[]string{"jobs", "enqueue", "t", "-key", ""}, "-key must not be empty"},
		{[]string{"jobs", "enqueue", "t", "-key", "a\nb"}, "-key: contains a control character"},
		{[]string{"jobs", "enqueue", "t", "-key", "k", "-key-scope", "ever"}, "-key-scope: must be"},
		{[]string{"jobs", "enqueue", "t", "-key-scope", "forever"}, "-key-scope: needs"},
		{[]string{"jobs", "enqueue", "t", "-key", "k", "-key-scope", "active", "-key-ttl", "1h"}, "-key-ttl: goes with"},
		{[]string{"jobs", "enqueue", "t", "-id", "1"}, "-id: must be a UUID"},
		{[]string{"jobs", "enqueue", "t", "-after", ""}, "-after must not be empty"},
		{[]string{"jobs", "enqueue", "t", "-after", "0193f1a0-8c5e-7abc-8def-0123456789ab,1"}, "-after[1]: must be the id of a job"},
		{[]string{"jobs", "enqueue", "t", "-after-failure", "run"}, "-after-failure: goes with after only"},
		{[]string{"jobs", "enqueue", "t", "-after", "0193f1a0-8c5e-7abc-8def-0123456789ab", "-after-failure", "stop"}, "-after-failure: must be"},
		{[]string{"bench", "-jobs", "99"}, "-jobs must be from 100 to 1000000"},
		{[]string{"jobs", "why"}, "ID is missing"},
		{[]string{"queues"}, "which one? list, pause, resume"},
		{[]string{"queues", "pause"}, "NAME is missing"},
		{[]string{"limits"}, "which one? list, set, drop"},
		{[]string{"limits", "set", "key"}, "NAME is missing"},
		{[]string{"limits", "set", "key", "k", "-max-running", "few"}, "must be a whole number"},
		{[]string{"limits", "set", "key", "k", "-interval", "few"}, `must be a duration such as 90s or 1h30m, not "few"`},
		{[]string{"jobs", "list", "-limit", "few"}, "must be a whole number"},
		{[]string{"limits", "drop", "key", "\xff"}, "is not valid UTF-8"},
		{[]string{"limits", "list", "-limit", "0"}, "-limit must be from 1 to 200"},
		{[]string{"jobs", "settle", "a"}, "STEP is missing"},
		{[]string{"jobs", "settle", "a", "s"}, "did it happen?"},
		{[]string{"jobs", "settle", "a", "s", "-happened", "-not-happened"}, "did it happen?"},
		{[]string{"jobs", "settle", "a", "s", "-not-happened", "-result", "1"}, "-result: goes with a step that happened only"},
		{[]string{"jobs", "settle", "a", "s", "-happened", "-result", ""}, "-result must not be empty"},
		{[]string{"jobs", "settle", "a", "s", "-happened", "-result", "{"}, "-result: is not a JSON value"},
		{[]string{"jobs", "settle", "a", "\xff", "-happened"}, "STEP: is not valid UTF-8"},
		{[]string{"migrate", "down"}, "how far?"},
		{[]string{"migrate", "down", "-all", "1"}, "how far?"},
		{[]string{"migrate", "down", "0"}, "N must be a whole number"},
		{[]string{"migrate", "down", "one"}, "N must be a whole number"},
		{[]string{"cron"}, "which one? set, list, show, pause, resume, trigger, delete"},
		{[]string{"cron", "set", "n", "@daily"}, "TYPE is missing"},
		{[]string{"cron", "set", "n", "0", "2", "*", "*", "*", "t"}, `unexpected argument "*"`},
		{[]string{"cron", "set", "a b", "@daily", "t"}, "NAME: must be 1 to 100"},
		{[]string{"cron", "set", "n", "61 * * * *", "t"}, `SCHEDULE: has "61" as field 1, the minute: end of range (61) above maximum (59); it takes 0-59`},
		{[]string{"cron", "set", "n", "0 0 30 2 *", "t"}, "SCHEDULE: never comes: there is no such day"},
		{[]string{"cron", "set", "n", "\x1b[31m", "t"}, "SCHEDULE: must have five fields"},
		{[]string{"cron", "set", "n", "@daily", ""}, "TYPE: is required"},
		{[]string{"cron", "set", "n", "@daily", "t", "-tz", "Europe/Nowhere"}, "-tz: is no time zone"},
		{[]string{"cron", "set", "n", "@daily", "t", "-tz", ""}, "-tz must not be empty"},
		{[]string{"cron", "set", "n", "@daily", "t", "-catch-up", "some"}, "-catch-up: must be"},
		{[]string{"cron", "set", "n", "@daily", "t", "-overlap", "wait"}, "-overlap: must be"},
		{[]string{"cron", "set", "n", "@daily", "t", "-priority", "101"}, "-priority: must be between"},
		{[]string{"cron", "set", "n", "@daily", "t", "-payload", "{"}, "-payload: is not a JSON value"},
		{[]string{"cron", "show"}, "NAME is missing"},
		{[]string{"cron", "pause", "\xff"}, "is no id"},
		{[]string{"cron", "list", "-limit", "0"}, "-limit must be from 1 to 200"},
		{[]string{"cron", "list", "-cursor", "\xff"}, "-cursor must be what an earlier list gave"},
		{[]string{"accounts", "add", "-email", "me@example.com"}, "-email and -path are required"},
		{[]string{"rules", "add"}, "-file is required"},
		{[]string{"rules", "add", "-file", "/nonexistent/rules.json"}, "cannot be read"},
	} {
		r := cli(t, none(t), c.args...)
		if r.code != exitWrong || r.out != "" || !strings.Contains(r.err, c.want) {
			t.Errorf("%q: %+v, want %q", c.args, r, c.want)
		}
		if strings.ContainsAny(r.err, "\x1b\xff") {
			t.Errorf("%q: raw bytes on stderr: %q", c.args, r.err)
		}
	}
}

// Programs read what commands print.
func TestWhatPrintsDataPrintsJSON(t *testing.T) {
	t.Parallel()
	without := map[string]string{
		"run": "logs", "healthcheck": "answers with its exit code", "config check": "answers with its exit code",
		"migrate up": "migrate status -json says it", "migrate down": "migrate status -json says it",
		"cron delete": "nothing is left to show", "limits drop": "nothing is left to show", "tokens remove": "nothing is left to show", "rules delete": "nothing is left to show",
		"completion": "prints a script", "rules export": "prints TOML, which rules import reads",
	}
	for _, cmd := range commands() {
		c := &call{name: cmd.name}
		flags := c.flagSet()
		cmd.setup(c, flags)
		if has := flags.Lookup("json") != nil; has == (without[cmd.name] != "") {
			t.Errorf("%s: has -json: %t; why not: %s", cmd.name, has, without[cmd.name])
		}
	}
}

func TestCommandsNeedADatabase(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"jobs", "enqueue", "t"}, {"jobs", "list"}, {"jobs", "show", "x"}, {"jobs", "cancel", "x"}, {"jobs", "retry", "x"},
		{"cron", "set", "n", "@daily", "t"}, {"cron", "list"}, {"cron", "show", "n"}, {"cron", "trigger", "n"}, {"cron", "delete", "n"},
		{"jobs", "why", "x"}, {"queues", "list"}, {"queues", "pause", "q"}, {"limits", "list"}, {"limits", "drop", "key", "k"}, {"verify"},
		{"accounts", "add", "-email", "me@example.com", "-path", "/m"}, {"accounts", "list"}, {"rules", "list"},
	} {
		path := none(t)
		r := cli(t, path, args...)
		if r.code != exitFailed || !strings.Contains(r.err, "there is no database at") || !strings.Contains(r.err, "`queuerunner migrate up`") {
			t.Errorf("%v: %+v", args, r)
		}
		if !wiring.IsMissing(path) {
			t.Errorf("%v made the file", args)
		}
	}
}

func TestConfigurationFlags(t *testing.T) {
	t.Parallel()
	file := write(t, "postroom.toml", "[queue]\nconcurrency = 3\n")
	for _, args := range [][]string{
		{"-config", file, "-set", "app.port=1234", "config", "print"},
		{"config", "-config", file, "-set", "app.port=1234", "print"},
		{"config", "print", "-config", file, "-set", "app.port=1234"},
		{"-config", "overridden", "-set", "app.port=1", "config", "print", "-set", "app.port=1234", "-config", file},
	} {
		out := fine(t, none(t), args...)
		for _, want := range []string{"queue.concurrency = 3 ", "app.port = 1234 "} {
			if !strings.Contains(out, want) {
				t.Errorf("%v: no %q", args, want)
			}
		}
	}
}

func TestConfigCheck(t *testing.T) {
	t.Parallel()

	t.Run("says that all is fine and what is reserved", func(t *testing.T) {
		t.Parallel()
		out := fine(t, none(t), "config", "check", "-set", "model.model=m")
		if out != "configuration is fine\nmodel.model (flag -set) is reserved: nothing acts on it yet\n" {
			t.Errorf("%q", out)
		}
	})

	t.Run("warns of what makes a service misbehave", func(t *testing.T) {
		t.Parallel()
		out := fine(t, none(t), "config", "check", "-set", "queue.fault_seed=7")
		if !strings.Contains(out, "WARNING: queue.fault_seed (flag -set) is set: this makes the service misbehave on purpose") {
			t.Errorf("%q", out)
		}
	})

	t.Run("reports each mistake on a line, as the start does", func(t *testing.T) {
		t.Parallel()
		file := write(t, "postroom.toml", "[app]\nport = 70000\n[queue]\nlaese = \"1m\"\npoll = \"often\"\n")
		for _, args := range [][]string{{"config", "check"}, {"run"}, {}} {
			r := cli(t, none(t), append([]string{"-config", file}, args...)...)
			lines := strings.Split(strings.TrimSuffix(r.err, "\n"), "\n")
			if r.code != exitWrong || r.out != "" || len(lines) != 3 {
				t.Fatalf("%v: %+v", args, r)
			}
			for i, want := range []string{":2:", ":4:", ":5:"} {
				if !strings.HasPrefix(lines[i], file+want) {
					t.Errorf("%v: line %q, want %q", args, lines[i], want)
				}
			}
		}
	})

	t.Run("refuses what the services would refuse", func(t *testing.T) {
		t.Parallel()
		r := cli(t, none(t), "config", "check", "-set", "queue.http_addr=:17801", "-set", "app.host=0.0.0.0")
		lines := strings.Split(strings.TrimSuffix(r.err, "\n"), "\n")
		if r.code != exitWrong || len(lines) != 2 ||
			!strings.HasPrefix(lines[0], "flag -set: queue.http_addr: ") || !strings.HasPrefix(lines[1], "flag -set: app.host: ") {
			t.Errorf("%+v", r)
		}
		fine(t, "libsql://db.example.com", "config", "check")
		fine(t, none(t), "config", "check", "-set", "queue.http_addr=:17801", "-set", "app.host=0.0.0.0", "-set", "api.token=t")
	})
}

func TestConfigPrint(t *testing.T) {
	t.Parallel()
	args := []string{"config", "print", "-set", "api.token=do-not-show"}
	out := fine(t, none(t), args...)
	if !strings.Contains(out, `api.token = "***"`) || !strings.Contains(out, "# flag -set") || !strings.Contains(out, "# env PATHS_DATABASE") {
		t.Error(out)
	}
	asJSON := fine(t, none(t), append(args, "-json")...)
	type settings struct {
		Settings []struct{ Key, Origin string }
	}
	if s := decode[settings](t, asJSON).Settings; len(s) != strings.Count(out, "\n") {
		t.Errorf("%d settings in JSON", len(s))
	}
	if strings.Contains(out+asJSON, "do-not-show") {
		t.Error("the secret is shown")
	}
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "folder", "postroom.db")
	st, err := libsql.Schema(t.Context(), libsql.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	all := make([]string, st.Latest)
	for i := range all {
		all[i] = strconv.Itoa(i + 1)
	}
	// N stands for the newest schema, M for the one before.
	expand := strings.NewReplacer("N", strconv.FormatInt(st.Latest, 10), "M", strconv.FormatInt(st.Latest-1, 10), "ALL", strings.Join(all, ", "))
	steps := []struct {
		args []string
		want string
	}{
		{[]string{"status"}, "version  0\nlatest   N\npending  ALL\n"},
		{[]string{"up"}, "the schema was 0 and is N now\n"},
		{[]string{"up"}, "the schema is N; nothing to do\n"},
		{[]string{"down", "1"}, "the schema was N and is M now\n"},
		{[]string{"status", "-json"}, `{"version":M,"latest":N,"min_compatible":C,"pending":[N]}` + "\n"},
		{[]string{"down", "-all"}, "the schema was M and is 0 now\n"},
		{[]string{"down", "1"}, "the schema is 0; nothing to do\n"},
		{[]string{"up"}, "the schema was 0 and is N now\n"},
		{[]string{"status"}, "version  N\nlatest   N\npending  none\n"},
	}
	for _, s := range steps {
		out := regexp.MustCompile(`"min_compatible":\d+`).ReplaceAllString(fine(t, path, append([]string{"migrate"}, s.args...)...), `"min_compatible":C`)
		if out != expand.Replace(s.want) {
			t.Errorf("%v: %q, want %q", s.args, out, expand.Replace(s.want))
		}
	}
	if r := cli(t, path, "migrate", "down", "999"); r.code != exitFailed || !strings.Contains(r.err, "nothing was changed") {
		t.Errorf("%+v", r)
	}
	if r := cli(t, none(t), "migrate", "down", "1"); r.code != exitFailed || !strings.Contains(r.err, "there is no database") {
		t.Errorf("%+v", r)
	}
}

func TestAnOutputThatCannotBeWrittenIsAFailure(t *testing.T) {
	t.Parallel()
	var errs bytes.Buffer
	code := run(context.Background(), []string{"-version"}, os.LookupEnv, nil, brokenPipe{}, &errs)
	if code != exitFailed || !strings.Contains(errs.String(), "write the output") {
		t.Errorf("exit %d: %s", code, errs.String())
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, os.ErrClosed }
