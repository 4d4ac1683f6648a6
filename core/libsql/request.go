package libsql

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"sync/atomic"
	"time"
)

// request is one caller's work: a batch, or items of an op.
type request struct {
	at     time.Time    // when it was handed over
	fill   func(*Batch) // records the batch, of one that joins a group
	stmts  []Stmt
	guards int
	op     *Op
	items  [][]byte
	rouses bool // others wait to join its group
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

// record has the batch of a request that joins a group recorded.
func (r *request) record() error {
	if r.fill == nil {
		return nil
	}
	var b Batch
	r.fill(&b)
	r.stmts, r.guards = b.stmts, b.guards
	return checkAll(r.stmts)
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
	op := rs[0].op
	var arg any
	for _, a := range arrays(op, rs, math.MaxInt) { // one
		arg = a.arg
	}
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

// array is items as their op's statements take them.
type array struct {
	arg   any
	items int
}

// around is the most that arrays puts beside an item.
const around = 32

// arrays writes the items of all requests for an op as arrays, each no longer
// than limit unless a single item is.
func arrays(op *Op, rs []*request, limit int) []array {
	var items [][]byte
	for _, r := range rs {
		items = append(items, r.items...)
	}
	write := func(items [][]byte) any { return "[" + string(bytes.Join(items, []byte(","))) + "]" }
	if op.Packed {
		write = func(items [][]byte) any { return Pack(items...) }
	}
	var out []array
	first, size := 0, 0
	for i, it := range items {
		if i > first && size+len(it)+around > limit {
			out = append(out, array{write(items[first:i]), i - first})
			first, size = i, 0
		}
		size += len(it) + around
	}
	return append(out, array{write(items[first:]), len(items) - first})
}

// Pack writes what [PackedItems] reads: ten digits which say where the array of
// the items' places begins, the items, and that array. It is for a batch that
// has a statement of a packed op.
func Pack(items ...[]byte) []byte {
	size := around
	for _, it := range items {
		size += len(it) + around
	}
	b := append(make([]byte, 0, size), "0000000000"...)
	places := make([]byte, 0, around*len(items)/2)
	for i, it := range items {
		if i > 0 {
			places = append(places, ',')
		}
		places = strconv.AppendInt(places, int64(len(b)+1), 10)
		b = append(b, it...)
	}
	copy(b, fmt.Sprintf("%010d", len(b)+1))
	b = append(append(b, '['), places...)
	return append(b, ']')
}

// AppendPadded appends a number filled up with spaces to a width, as packed items
// have it.
func AppendPadded(b []byte, n int64, width int) []byte {
	end := len(b) + width
	b = strconv.AppendInt(b, n, 10)
	for len(b) < end {
		b = append(b, ' ')
	}
	return b
}
