package libsql

import (
	"bytes"
	"errors"
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
			var e *Error
			if errors.As(err, &e) {
				e.Index = i
				if i < r.guards && !e.preparing && (e.Class == Invalid || e.Class == Constraint) {
					e.Class, e.Detail = Guard, ""
				}
			}
			return i + 1, err
		}
		r.results[i] = res
	}
	return len(r.stmts), nil
}

// runMerged runs an op's statements over one JSON array of all items and
// hands the rows of the last one back to the requests their items came from.
func runMerged(c *conn, rs []*request) (int, error) {
	total, size := 0, 2
	for _, r := range rs {
		for _, it := range r.items {
			total++
			size += len(it) + 1
		}
	}
	var array bytes.Buffer
	array.Grow(size)
	array.WriteByte('[')
	for _, r := range rs {
		for _, it := range r.items {
			if array.Len() > 1 {
				array.WriteByte(',')
			}
			array.Write(it)
		}
	}
	array.WriteByte(']')
	arg := array.String()
	op := rs[0].op
	var rows []Row
	for i, sql := range op.Stmts {
		s := Stmt{SQL: sql, Args: []any{arg}, rows: i == len(op.Stmts)-1}
		err := s.checkArgs()
		var res Result
		if err == nil {
			res, err = c.run(s)
		}
		if err != nil {
			var e *Error
			if errors.As(err, &e) {
				e.Index = i
			}
			return i + 1, err
		}
		rows = res.Rows
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
	return len(op.Stmts), nil
}
