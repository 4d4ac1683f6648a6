package libsql_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
)

// modelTables are the tables that the data model promises, by their names.
var modelTables = []string{
	"accounts", "threads", "messages", "decisions", "actions", "action_links", "jobs", "job_steps", "discord_whitelist",
	"deterministic_rules", "llm_rules", "directions", "rules_chat_sessions", "rules_chat_messages",
}

// constantTables hold rows that never change after they were written.
var constantTables = []string{"action_links", "api_tokens", "job_keys", "job_log", "job_run_rows", "message_chunks", "message_labels", "rules_chat_messages"}

// derivedTables hold what follows from other rows, whose times they have.
var derivedTables = []string{"job_deps", "limit_keys", "queue_counts"}

func query(t *testing.T, db libsql.DB, sql string, args ...any) []libsql.Row {
	t.Helper()
	res, err := db.Read(t.Context(), libsql.Query(sql, args...))
	if err != nil {
		t.Fatal(err)
	}
	return res[0].Rows
}

func strs(rows []libsql.Row) []string {
	var out []string
	for _, r := range rows {
		out = append(out, r.Str(0))
	}
	return out
}

func TestEveryTableKeepsTheConventions(t *testing.T) {
	t.Parallel()
	db := dbtest.Open(t)
	const own = " FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> 'schema_migrations'"
	tables := strs(query(t, db, "SELECT CAST(name AS BLOB)"+own+" ORDER BY name"))
	for _, name := range modelTables {
		if !slices.Contains(tables, name) {
			t.Errorf("the table %s is missing", name)
		}
	}
	if loose := strs(query(t, db, "SELECT CAST(name AS BLOB)"+own+" AND strict = 0")); len(loose) > 0 {
		t.Errorf("not STRICT: %v", loose)
	}
	for _, table := range tables {
		columns := map[string]string{}
		for _, c := range query(t, db, "SELECT CAST(name AS BLOB), CAST(type AS BLOB) FROM pragma_table_info(?)", table) {
			columns[c.Str(0)] = c.Str(1)
		}
		for _, name := range []string{"created_at", "updated_at"} {
			if columns[name] != "INTEGER" && !slices.Contains(derivedTables, table) && (name == "created_at" || !slices.Contains(constantTables, table)) {
				t.Errorf("%s has no INTEGER %s", table, name)
			}
		}
		ddl := query(t, db, "SELECT CAST(sql AS BLOB) FROM sqlite_master WHERE type = 'table' AND name = ?", table)[0].Str(0)
		for name, typ := range columns {
			switch {
			case strings.HasSuffix(name, "_json"):
				if typ != "TEXT" || !strings.Contains(ddl, "json_valid("+name+")") {
					t.Errorf("%s.%s is %s without a json_valid CHECK", table, name, typ)
				}
			case strings.HasSuffix(name, "_at") && typ != "INTEGER":
				t.Errorf("%s.%s is %s, want INTEGER", table, name, typ)
			case slices.Contains(freeText, name) && typ != "BLOB":
				t.Errorf("%s.%s is free text of type %s, want BLOB", table, name, typ)
			case slices.Contains(flags, name) && !strings.Contains(ddl, "CHECK ("+name+" IN (0, 1))"):
				t.Errorf("%s.%s is a flag without its CHECK", table, name)
			}
		}
	}
	if broken := query(t, db, "SELECT 1 FROM pragma_foreign_key_check"); len(broken) > 0 {
		t.Error("a foreign key is broken in a fresh database")
	}
}

var (
	freeText = []string{
		"subject", "snippet", "from_name", "display_name", "body_plain", "body_html", "rationale", "last_error", "error",
		"error_message", "stack", "description", "rule_text", "content", "title", "username", "disabled_reason", "data",
	}
	flags = []string{"paused", "enabled", "needs_approval"}
)

func TestEnumsAgreeWithTheirConstants(t *testing.T) {
	t.Parallel()
	db := dbtest.Open(t)
	var states []string
	for _, s := range job.States {
		states = append(states, string(s))
	}
	for column, want := range map[string][]string{
		"jobs.state":                    states,
		"job_keys.scope":                {string(job.ScopeActive), string(job.ScopeUntil), string(job.ScopeForever)},
		"job_steps.outcome":             {"running", "done", "failed", "uncertain"},
		"cron.catch_up":                 {"one", "all", "none"},
		"cron.overlap":                  {"allow", "skip"},
		"accounts.provider":             {"maildir", "imap", "jmap", "gmail"},
		"decisions.source":              {"llm", "deterministic"},
		"actions.status":                {"queued", "executing", "completed", "failed", "canceled", "rejected", "approved_pending"},
		"action_links.relation_type":    {"undo_of", "approval_for", "spawned", "related"},
		"deterministic_rules.scope":     {"global", "account", "sender", "domain"},
		"deterministic_rules.safe_mode": {"default", "always_safe", "dangerous_override"},
		"llm_rules.scope":               {"global", "account", "sender", "domain"},
		"rules_chat_messages.role":      {"user", "assistant", "system"},
	} {
		table, name, _ := strings.Cut(column, ".")
		ddl := query(t, db, "SELECT CAST(sql AS BLOB) FROM sqlite_master WHERE type = 'table' AND name = ?", table)[0].Str(0)
		if got := enum(ddl, name); !slices.Equal(got, want) {
			t.Errorf("%s may be %q, want %q", column, got, want)
		}
	}
}

// enum returns the values that a column's CHECK allows.
func enum(ddl, column string) []string {
	m := regexp.MustCompile(`(?m)^\s*` + column + `\s.*CHECK \(` + column + ` (?:IN|=) (.*)$`).FindStringSubmatch(ddl)
	if m == nil {
		return nil
	}
	var out []string
	for _, v := range regexp.MustCompile(`'([^']*)'`).FindAllStringSubmatch(m[1], -1) {
		out = append(out, v[1])
	}
	return out
}

// modelIndexes are the indexes that the data model promises: the table, its
// columns, and whether they are unique.
var modelIndexes = []string{
	"accounts(email) unique", "threads(account_id,provider_thread_id) unique", "threads(account_id,last_message_at)",
	"messages(account_id,provider_message_id) unique", "messages(account_id,content_sha256)", "messages(thread_id,received_at)",
	"messages(account_id,from_email)", "decisions(message_id,rules_version,source) unique", "decisions(message_id)", "decisions(created_at)",
	"actions(message_id,created_at)", "actions(status,created_at)", "action_links(cause_action_id)", "action_links(effect_action_id)",
	"action_links(effect_action_id) unique", "jobs(queue,type,ready_key,seq,limit_key)", "discord_whitelist(user_id) unique", "deterministic_rules(scope,scope_ref)",
	"deterministic_rules(enabled,priority)", "llm_rules(scope,scope_ref)", "llm_rules(enabled,created_at)", "directions(enabled,created_at)",
	"rules_chat_sessions(created_at)", "rules_chat_messages(session_id,created_at)",
}

func TestTheIndexesOfTheDataModelExist(t *testing.T) {
	t.Parallel()
	db := dbtest.Open(t)
	got := strs(query(t, db, `SELECT CAST(m.name || '(' || (SELECT group_concat(i.name, ',' ORDER BY i.seqno) FROM pragma_index_info(l.name) AS i) || ')' || iif(l."unique", ' unique', '') AS BLOB)
		FROM sqlite_master AS m, pragma_index_list(m.name) AS l WHERE m.type = 'table'`))
	for _, want := range modelIndexes {
		if !slices.Contains(got, want) {
			t.Errorf("there is no index %s", want)
		}
	}
}

func TestTheClockIsInMilliseconds(t *testing.T) {
	t.Parallel()
	db := dbtest.Open(t)
	row := query(t, db, "SELECT ms, ms / 1000 - unixepoch('now') FROM db_clock")[0]
	if row.Int(0) < 1_700_000_000_000 || row.Int(1) < -1 || row.Int(1) > 1 {
		t.Errorf("db_clock says %d, %d s off", row.Int(0), row.Int(1))
	}
}
