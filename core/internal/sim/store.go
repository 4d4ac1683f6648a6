package sim

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/core/libsql"
)

// Store is a database file that one run after the other lives on: a native
// connection is never closed, so a file a run would leave behind three open
// descriptors for each. Between runs it is emptied.
//
// Two things are the simulator's in it: db_clock reads a table, and triggers
// write down every change of every row of the queue's tables, whatever
// statement made it.
type Store struct {
	path    string
	tables  []string            // those that are emptied between runs
	columns map[string][]string // of each, as the change log has them

	sequence bool // there are AUTOINCREMENT columns
}

// fieldEnd ends each value of a row in the change log. They come in the order
// of Store.columns.
const fieldEnd = "\x1f"

// The queue's tables by how their names begin; those of the mail path are of
// no interest. unwatched tables are emptied, too, but no promise is about them.
var queueTables = []string{"job", "queue", "runner", "limit", "cron"}

var unwatchedTables = []string{"runners", "queue_counts"} // Verify knows what the counts must be

// unwatched columns are large, and no promise is about them here.
var unwatched = []string{"payload_json", "result_json", "last_error", "error", "stack", "trace_parent", "created_at", "updated_at"}

// watchedWith are columns that are watched all the same.
var watchedWith = []string{"jobs.created_at", "jobs.payload_json", "job_run_rows.error", "job_steps.result_json"}

// NewStore makes a migrated file with the simulator's additions.
func NewStore(t *testing.T) *Store {
	t.Helper()
	ctx := t.Context()
	dir := t.TempDir()
	// A file in memory where there is such a place: what is simulated here is
	// the queue, not the disk.
	if shm, err := os.MkdirTemp("/dev/shm", "postroom-sim-"); err == nil { //nolint:usetesting // t.TempDir is on the disk
		t.Cleanup(func() { _ = os.RemoveAll(shm) }) // nothing else is in it
		dir = shm
	}
	s := &Store{path: filepath.Join(dir, "postroom.db"), columns: map[string][]string{}}
	opt := libsql.Options{Path: s.path, Synchronous: "normal"}
	if err := libsql.Migrate(ctx, opt); err != nil {
		t.Fatalf("migrate: %v", err)
	}
	file, err := libsql.Open(ctx, opt)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	defer func() {
		if err := file.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	if err := s.install(ctx, file); err != nil {
		t.Fatalf("prepare the simulator's database: %v", err)
	}
	return s
}

func (s *Store) install(ctx context.Context, db libsql.DB) error {
	res, err := db.Read(ctx, libsql.Query(`SELECT CAST(m.name AS BLOB), CAST(c.name AS BLOB), CAST(c.type AS BLOB)
 FROM sqlite_master AS m JOIN pragma_table_info(m.name) AS c
 WHERE m.type = 'table' ORDER BY m.name, c.cid`))
	if err != nil {
		return err
	}
	var b libsql.Batch
	b.Exec("DROP VIEW db_clock")
	b.Exec("CREATE TABLE sim_clock(id INTEGER PRIMARY KEY, ms INTEGER NOT NULL, call INTEGER NOT NULL, watching INTEGER NOT NULL)")
	b.Exec("INSERT INTO sim_clock VALUES (1, 0, 0, 0)")
	b.Exec("CREATE VIEW db_clock(ms) AS SELECT ms FROM sim_clock WHERE id = 1")
	b.Exec("CREATE TABLE sim_log(n INTEGER PRIMARY KEY, call INTEGER NOT NULL, tbl TEXT NOT NULL, op TEXT NOT NULL, line TEXT NOT NULL)")
	for _, r := range res[0].Rows {
		table, column := r.Str(0), r.Str(1)
		s.sequence = s.sequence || table == "sqlite_sequence"
		if !slices.ContainsFunc(queueTables, func(prefix string) bool { return strings.HasPrefix(table, prefix) }) {
			continue
		}
		if !slices.Contains(s.tables, table) {
			s.tables = append(s.tables, table)
		}
		if slices.Contains(unwatched, column) && !slices.Contains(watchedWith, table+"."+column) {
			continue
		}
		s.columns[table] = append(s.columns[table], column)
	}
	for _, table := range s.tables {
		if slices.Contains(unwatchedTables, table) {
			continue
		}
		for _, on := range []struct{ event, op, row string }{{"INSERT", "+", "NEW"}, {"UPDATE", "=", "NEW"}, {"DELETE", "-", "OLD"}} {
			b.Exec(fmt.Sprintf(`CREATE TRIGGER sim_%s_%s AFTER %s ON %s WHEN (SELECT watching FROM sim_clock WHERE id = 1) BEGIN
 INSERT INTO sim_log(call, tbl, op, line) SELECT call, '%s', '%s', %s FROM sim_clock WHERE id = 1; END`,
				table, strings.ToLower(on.event), on.event, table, table, on.op, line(on.row, s.columns[table])))
		}
	}
	_, err = db.Write(ctx, &b)
	return err
}

// line is the expression for a row's values, joined. NULL becomes nothing.
func line(row string, columns []string) string {
	of := make([]string, len(columns))
	for i, c := range columns {
		of[i] = row + "." + c
	}
	return "format('" + strings.Repeat("%s"+fieldEnd, len(columns)) + "', " + strings.Join(of, ", ") + ")"
}

// reset empties the tables.
func (s *Store) reset(ctx context.Context, db libsql.DB) error {
	var b libsql.Batch
	b.Exec("UPDATE sim_clock SET ms = 0, call = 0, watching = 0")
	for _, table := range s.tables {
		b.Exec("DELETE FROM " + table)
	}
	if s.sequence {
		b.Exec("DELETE FROM sqlite_sequence")
	}
	b.Exec("UPDATE meta SET value = '0' WHERE key IN ('log_pruned_to', 'log_counted_to')")
	b.Exec("DELETE FROM sim_log")
	b.Exec("UPDATE sim_clock SET watching = 1")
	_, err := db.Write(ctx, &b)
	return err
}

// clockSQL sets the database's clock and the number of the call that is about
// to be made. It stands at the front of every write, in the same commit.
func clockSQL(ms int64, call int) string {
	return fmt.Sprintf("UPDATE sim_clock SET ms = %d, call = %d WHERE id = 1", ms, call)
}

// change is one change of one row.
type change struct {
	call  int
	table string
	op    string // + inserted, = updated, - deleted
	row   row
}

// row is what a row holds, by column; NULL, the empty text and a column that is
// not there are the same.
type row struct {
	columns []string
	values  []string
}

func (r row) get(column string) (string, bool) {
	i := slices.Index(r.columns, column)
	if i < 0 || i >= len(r.values) || r.values[i] == "" {
		return "", false
	}
	return r.values[i], true
}

func (r row) str(column string) string {
	v, _ := r.get(column)
	return v
}

func (r row) has(column string) bool {
	_, ok := r.get(column)
	return ok
}

// num returns an integer column; NULL is 0.
func (r row) num(column string) int64 {
	v, _ := r.get(column)
	var n int64
	neg := false
	for i := range len(v) {
		if v[i] == '-' {
			neg = true
			continue
		}
		n = 10*n + int64(v[i]-'0')
	}
	if neg {
		return -n
	}
	return n
}

func (r row) String() string {
	var b strings.Builder
	for i, c := range r.columns {
		if i < len(r.values) && r.values[i] != "" {
			if b.Len() > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(c + "=" + r.values[i])
		}
	}
	return b.String()
}

func (s *Store) row(table, line string) row {
	return row{columns: s.columns[table], values: strings.Split(strings.TrimSuffix(line, fieldEnd), fieldEnd)}
}

// result reads the change log and the jobs as they are at the end.
func (s *Store) result(ctx context.Context, db libsql.DB) (changes []change, jobs []row, err error) {
	res, err := db.Read(ctx,
		libsql.Query("SELECT call, CAST(tbl AS BLOB), CAST(op AS BLOB), CAST(line AS BLOB) FROM sim_log ORDER BY n"),
		libsql.Query("SELECT CAST("+line("jobs", s.columns["jobs"])+" AS BLOB) FROM jobs ORDER BY seq"))
	if err != nil {
		return nil, nil, err
	}
	for _, r := range res[0].Rows {
		changes = append(changes, change{call: int(r.Int(0)), table: r.Str(1), op: r.Str(2), row: s.row(r.Str(1), r.Str(3))})
	}
	for _, r := range res[1].Rows {
		jobs = append(jobs, s.row("jobs", r.Str(0)))
	}
	return changes, jobs, nil
}

// unfinished counts the jobs that are not final.
func unfinished(ctx context.Context, db libsql.DB) (int64, error) {
	res, err := db.Read(ctx, libsql.Query("SELECT count(*) FROM jobs WHERE finished_at IS NULL"))
	if err != nil {
		return 0, err
	}
	return res[0].Rows[0].Int(0), nil
}

func ms(t time.Time) int64 { return t.UnixMilli() }
