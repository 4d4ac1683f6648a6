package libsql

import (
	"github.com/postroom/postroom/core/libsql/internal/hrana"
)

// maxValue is how long a value may be for a libsql server.
const maxValue = 5_000_000

// maxArray is how long the array of an op's items becomes before the next one
// is begun.
const maxArray = 4 << 20

// sqlSame raises an error unless the server still has the database that was
// opened: another one in its place must not be written to.
const sqlSame = `SELECT json(iif(EXISTS (SELECT 1 FROM meta WHERE key = 'database_id' AND CAST(value AS BLOB) = CAST(? AS BLOB)), '{}', 'another database'))`

// program is a group of requests written as the steps of one atomic Hrana
// batch: each step runs only when the one before succeeded and the transaction
// is still open, and what fails is rolled back to its savepoint.
type program struct {
	steps  []hrana.Step
	begin  int
	same   int
	units  []unit
	commit int
}

// unit is what succeeds or fails as one: a request, or an op with the items of
// all requests for it.
type unit struct {
	requests []*request
	op       *Op
	parts    []part
	whole    int // the step whose success is the unit's
}

// part is a run of a unit's statements.
type part struct {
	first, n int
	items    int // that the statements of an op worked on
}

// following is the condition for going on after a step.
func following(step int) *hrana.Cond {
	return hrana.And(hrana.OK(step), hrana.InTransaction())
}

func (p *program) add(cond *hrana.Cond, s Stmt) int {
	p.steps = append(p.steps, hrana.Step{If: cond, SQL: s.SQL, Args: wireArgs(s.Args), Rows: s.rows})
	return len(p.steps) - 1
}

// begun starts a program: the transaction, and whether the server still has
// the database with this id.
func begun(databaseID string) *program {
	p := &program{}
	p.begin = p.add(nil, Exec("BEGIN IMMEDIATE"))
	p.same = p.add(following(p.begin), Query(sqlSame, databaseID))
	return p
}

// groupProgram writes a group. first are statements that come before all.
func groupProgram(databaseID string, first []Stmt, group []*request) *program {
	p := begun(databaseID)
	last := p.same
	for _, s := range first {
		last = p.add(following(last), s)
	}
	merged := map[*Op]int{}
	for _, r := range group {
		if r.op == nil {
			p.units = append(p.units, unit{requests: []*request{r}})
		} else if at, ok := merged[r.op]; ok {
			p.units[at].requests = append(p.units[at].requests, r)
		} else {
			merged[r.op] = len(p.units)
			p.units = append(p.units, unit{requests: []*request{r}, op: r.op})
		}
	}
	if len(p.units) == 1 { // it has the transaction to itself
		u := &p.units[0]
		last = p.fill(u, last)
		u.whole = last
	} else {
		for i := range p.units {
			u := &p.units[i]
			save := p.add(following(last), Exec("SAVEPOINT r"))
			u.whole = p.add(following(p.fill(u, save)), Exec("RELEASE r"))
			back := p.add(hrana.And(hrana.OK(save), hrana.Not(hrana.OK(u.whole)), hrana.InTransaction()), Exec("ROLLBACK TO r"))
			p.add(following(back), Exec("RELEASE r"))
		}
	}
	p.end(last)
	return p
}

// end closes the transaction: with a commit if the step last succeeded.
func (p *program) end(last int) {
	p.commit = p.add(following(last), Exec("COMMIT"))
	p.add(hrana.InTransaction(), Exec("ROLLBACK"))
}

// fill adds a unit's statements, the first of them after the step last, and
// returns the step of the last.
func (p *program) fill(u *unit, last int) int {
	run := func(items int, stmts ...Stmt) {
		u.parts = append(u.parts, part{first: len(p.steps), n: len(stmts), items: items})
		for _, s := range stmts {
			last = p.add(following(last), s)
		}
	}
	if u.op == nil {
		run(0, u.requests[0].stmts...)
		return last
	}
	for _, a := range arrays(u.op, u.requests, maxArray) {
		stmts := make([]Stmt, len(u.op.Stmts))
		for i, sql := range u.op.Stmts {
			stmts[i] = Stmt{SQL: sql, Args: []any{a.arg}, rows: i == len(stmts)-1}
		}
		run(a.items, stmts...)
	}
	return last
}

// settle hands a unit's rows to its requests, or returns what went wrong.
func (u *unit) settle(res []hrana.Result) error {
	if u.op == nil {
		r := u.requests[0]
		p := u.parts[0]
		r.results = make([]Result, p.n)
		for i := range p.n {
			var err error
			if i < r.guards {
				err = stepError(res[p.first+i])
			} else {
				r.results[i], err = stepResult(r.stmts[i], res[p.first+i])
			}
			if err != nil {
				return inBatch(err, i, r.guards)
			}
		}
		return nil
	}
	var rows []Row
	for _, p := range u.parts {
		part := make([]Row, p.items)
		for i := range p.n {
			got, err := stepResult(Stmt{SQL: u.op.Stmts[i], rows: i == p.n-1}, res[p.first+i])
			if err != nil {
				return inBatch(err, i, 0)
			}
			for _, row := range got.Rows {
				if k := row.Int(0); k >= 0 && k < int64(p.items) {
					part[k] = row
				}
			}
		}
		rows = append(rows, part...)
	}
	for _, r := range u.requests {
		r.rows, rows = rows[:len(r.items):len(r.items)], rows[len(r.items):]
	}
	return nil
}

// statements is how many of a program's steps are its callers'.
func (p *program) statements() int {
	n := 0
	for _, u := range p.units {
		for _, part := range u.parts {
			n += part.n
		}
	}
	return n
}

// stepError is why a step was not executed to its end, or nil.
func stepError(r hrana.Result) error {
	switch {
	case r.Done:
		return nil
	case r.Err != nil:
		return ofStep(r.Err)
	}
	return errSkipped
}

// stepResult is what a statement gave.
func stepResult(s Stmt, r hrana.Result) (Result, error) {
	if err := stepError(r); err != nil {
		return Result{}, err
	}
	if !s.rows {
		return Result{Changes: r.Changes}, nil
	}
	out := Result{Rows: make([]Row, len(r.Rows))}
	for i, row := range r.Rows {
		for k, v := range row {
			if text, ok := v.(string); ok {
				if !told(s.SQL) {
					return Result{}, textError(r.Columns[k])
				}
				row[k] = []byte(text)
			}
		}
		out.Rows[i] = row
	}
	return out, nil
}

func wireArgs(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		switch v := a.(type) {
		case int:
			a = int64(v)
		case bool:
			a = int64(0)
			if v {
				a = int64(1)
			}
		case []byte:
			if v == nil {
				a = nil
			}
		}
		out[i] = a
	}
	return out
}
