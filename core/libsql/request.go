package libsql

import (
	"bytes"
	"math"
	"sync/atomic"
	"time"
)

// request is one caller's work: a batch, or items of an op.
type request struct {
	at     time.Time // when it was handed over
	stmts  []Stmt
	guards int
	op     *Op
	items  [][]byte
	state  atomic.Int32
	done   chan struct{}

	results []Result
	rows    []Row
	err     error
}

const (
	queued    int32 = iota
	started         // taken into a transaction: its outcome is the transaction's
	abandoned       // its caller left before it was taken
)

func (r *request) size() int {
	n := 0
	for _, s := range r.stmts {
		n += s.size()
	}
	for _, it := range r.items {
		n += len(it)
	}
	return n
}

func answer(group []*request, err error) {
	for _, r := range group {
		if err != nil {
			r.err, r.results, r.rows = err, nil, nil
		}
		close(r.done)
	}
}

func (r *request) runBatch(c *conn) (int, error) {
	r.results = make([]Result, len(r.stmts))
	for i, s := range r.stmts {
		var res Result
		var err error
		if i < r.guards {
			err = c.check(s)
		} else {
			res, err = c.run(s)
		}
		if err != nil {
			return i + 1, inBatch(err, i, r.guards)
		}
		r.results[i] = res
	}
	return len(r.stmts), nil
}

// runMerged runs an op's statements over one JSON array of all items and
// hands the rows of the last one back to the requests their items came from.
func runMerged(c *conn, rs []*request) (int, error) {
	total := 0
	for _, r := range rs {
		total += len(r.items)
	}
	arg := "[]"
	for _, a := range arrays(rs, math.MaxInt) { // one at most
		arg = a.text
	}
	op := rs[0].op
	var rows []Row
	run, changed := 0, int64(-1)
	for i, sql := range op.Stmts {
		s := Stmt{SQL: sql, Args: []any{arg}, rows: i == len(op.Stmts)-1}
		if s.rows && op.Misses && changed == int64(total) {
			break
		}
		err := s.checkArgs()
		var res Result
		if err == nil {
			res, err = c.run(s)
		}
		if err != nil {
			return i + 1, inBatch(err, i, 0)
		}
		rows, changed = res.Rows, res.Changes
		run++
	}
	byItem := make([]Row, total)
	for _, row := range rows {
		if k := row.Int(0); k >= 0 && k < int64(total) {
			byItem[k] = row
		}
	}
	for _, r := range rs {
		r.rows, byItem = byItem[:len(r.items):len(r.items)], byItem[len(r.items):]
	}
	return run, nil
}

// array is a JSON array of items.
type array struct {
	text  string
	items int
}

// arrays writes the items of all requests as JSON arrays, each no longer than
// limit unless a single item is.
func arrays(rs []*request, limit int) []array {
	var out []array
	var buf bytes.Buffer
	n := 0
	flush := func() {
		buf.WriteByte(']')
		out = append(out, array{buf.String(), n})
		buf.Reset()
		n = 0
	}
	for _, r := range rs {
		for _, it := range r.items {
			if n > 0 && buf.Len()+len(it)+2 > limit {
				flush()
			}
			if n++; n == 1 {
				buf.WriteByte('[')
			} else {
				buf.WriteByte(',')
			}
			buf.Write(it)
		}
	}
	if n > 0 {
		flush()
	}
	return out
}
