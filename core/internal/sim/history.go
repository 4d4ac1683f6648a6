package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/postroom/postroom/core/libsql"
)

// entry is one event of the history.
type entry struct {
	step int
	at   time.Duration // since the world began
	kind string
	proc string
	call *call  // of a call and of its reply
	job  string // the rest are for what handlers, clients and the world say
	run  int64
	name string
	text string
	span time.Duration // of a mishap
}

// record adds an event to the history. Whatever a dead process still does
// until its tasks have left is not part of it.
func (w *world) record(e entry) {
	for _, p := range w.procs {
		if p.name == e.proc && p.dead {
			return
		}
	}
	e.step, e.at = w.step, time.Since(w.began)
	w.history = append(w.history, e)
}

func (w *world) violate(rule, job, format string, args ...any) {
	w.violations = append(w.violations, Violation{Rule: rule, Job: job, At: len(w.history), Text: fmt.Sprintf(format, args...)})
}

// trace gives the history as text: each event with the statements, arguments
// and results of calls, and the rows that each call changed.
func (w *world) trace(changes []change) []string {
	byCall := map[int][]change{}
	for _, c := range changes {
		byCall[c.call] = append(byCall[c.call], c)
	}
	var out []string
	for i, e := range w.history {
		head := fmt.Sprintf("#%d %s %s", i, e.at, e.proc)
		if e.call == nil {
			out = append(out, strings.TrimRight(fmt.Sprintf("%s %s %s %d %s %s", head, e.kind, e.job, e.run, e.name, e.text), " "))
			continue
		}
		c := e.call
		if e.kind == "reply" {
			out = append(out, fmt.Sprintf("%s reply to call %d %s: %s", head, c.n, c.op, class(c.told)))
			continue
		}
		out = append(out, fmt.Sprintf("%s call %d %s %s at %d: %s", head, c.n, c.op, c.kind, c.ms, class(libsql.ClassOf(c.err))))
		if c.n == 0 {
			out[len(out)-1] = fmt.Sprintf("%s call %s %s: not made, %s", head, c.op, c.kind, class(c.told))
		}
		for _, s := range c.stmts {
			out = append(out, fmt.Sprintf("    : %s %s", strings.Join(strings.Fields(s.SQL), " "), values(s.Args)))
		}
		for _, r := range c.results {
			for _, row := range r.Rows {
				out = append(out, "    -> "+values(row))
			}
			if len(r.Rows) == 0 {
				out = append(out, fmt.Sprintf("    -> %d changed", r.Changes))
			}
		}
		for _, row := range c.rows {
			out = append(out, "    -> "+values(row))
		}
		for _, ch := range byCall[c.n] {
			if c.n > 0 {
				out = append(out, fmt.Sprintf("    %s%s %s", ch.op, ch.table, ch.row))
			}
		}
	}
	return out
}

func class(c libsql.Class) string {
	if c == "" {
		return "ok"
	}
	return string(c)
}

// Stacks are what no seed decides: addresses and goroutines' numbers. They go
// in as part of an item and come out as a column.
var (
	stack      = regexp.MustCompile(`"stack":"(\\.|[^"\\])*"`)
	stackAlone = []byte("goroutine ")
)

func values(vs []any) string {
	parts := make([]string, len(vs))
	for i, v := range vs {
		switch v := v.(type) {
		case []byte:
			if parts[i] = string(v); bytes.HasPrefix(v, stackAlone) {
				parts[i] = "…"
			}
		case string:
			parts[i] = stack.ReplaceAllString(v, `"stack":"…"`)
		default:
			b, _ := json.Marshal(v) // numbers and null
			parts[i] = string(b)
		}
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

// Story is the part of a trace that is about one job, without the statements.
func Story(trace []string, job string) []string {
	var out []string
	head, shown := "", false
	for _, line := range trace {
		if !strings.HasPrefix(line, "    ") {
			head, shown = line, false
		}
		if !strings.Contains(line, job) {
			continue
		}
		if line != head && !shown {
			out = append(out, head)
		}
		shown = true
		if strings.HasPrefix(line, "    : ") {
			continue
		}
		if len(line) > 700 {
			line = line[:700] + " …"
		}
		out = append(out, line)
	}
	return out
}
