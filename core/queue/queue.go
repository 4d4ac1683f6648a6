// Package queue is the durable job queue: it stores jobs, hands them to
// runners under leases, and takes back what they became. Every transition is
// one recorded batch, fenced by the token of the claim; docs/lifecycle.md is
// its specification, docs/cron.md that of schedules.
//
// A program that uses it opens a database with package libsql, makes a [Queue]
// of it with its own job types, and stores jobs with [Queue.Enqueue], or together
// with rows of its own with [Queue.NewBatch] and [Queue.Write]. Package worker
// runs them; what it calls of this package (Claim, Heartbeat, Finish, Rescue …)
// is of no use to others. docs/embedding.md shows a whole program.
//
// It may import core/cron,
// core/job, core/libsql, core/system, the trace helpers of core/telemetry and
// OpenTelemetry's API; it knows nothing of handlers or mail.
package queue

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/system"
	"github.com/postroom/postroom/core/telemetry"
)

// Errors that callers act on.
var (
	ErrNotFound     = errors.New("no such job")
	ErrInvalidState = errors.New("the job's state does not allow this")
	ErrKeyInUse     = errors.New("the job's idempotency key is held by another job")
	ErrIDInUse      = errors.New("the id belongs to a job of another type")
	// ErrLeaseLost means that the token no longer holds the job: another
	// runner has it, or it was taken back. Nothing was changed.
	ErrLeaseLost = errors.New("the lease on the job is lost")
)

// Queue is a handle on the jobs of one database. It is safe for concurrent use.
type Queue struct {
	db    libsql.DB
	sys   system.System
	types job.Types
	ready chan struct{}

	enqueued metric.Int64Counter
}

// New returns a queue over db. types fill in what an enqueuer leaves out.
func New(db libsql.DB, sys system.System, types job.Types) *Queue {
	return &Queue{db: db, sys: sys, types: types, ready: make(chan struct{}, 1), enqueued: enqueuedCounter()}
}

// System is where the queue has its time and its randomness from.
func (q *Queue) System() system.System { return q.sys }

// Types are the job types that the queue knows.
func (q *Queue) Types() job.Types { return q.types }

// DB is the database under the queue.
func (q *Queue) DB() libsql.DB { return q.db }

// Ready receives after this process freed a job, or when one claim did not do
// all there was, so that its own worker need not wait for a poll. Of what the
// process stores [Queue.ClaimStored] tells.
func (q *Queue) Ready() <-chan struct{} { return q.ready }

func (q *Queue) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// NewID returns a UUIDv7 from the injected clock and randomness.
func (q *Queue) NewID() string {
	var b [16]byte
	q.sys.Read(b[:])
	return newID(q.sys.Now().UnixMilli(), b)
}

// NewIDs returns n ids in ascending order. Rows with such ids are appended to
// the indexes over them, and to the index of words, which writes out what it
// has gathered whenever a row comes before the last.
func (q *Queue) NewIDs(n int) []string {
	random := make([]byte, 16*n)
	q.sys.Read(random)
	now := q.sys.Now().UnixMilli()
	ids := make([]string, n)
	for i := range ids {
		ids[i] = newID(now, [16]byte(random[16*i:]))
	}
	slices.Sort(ids)
	return ids
}

// newID makes a UUIDv7 of a time (ms) and random bytes.
func newID(now int64, b [16]byte) string {
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(now)) //nolint:gosec // after 1970
	copy(b[:6], ms[2:])
	b[6] = 0x70 | b[6]&0x0f
	b[8] = 0x80 | b[8]&0x3f
	var id [36]byte
	hex.Encode(id[:8], b[:4])
	hex.Encode(id[9:13], b[4:6])
	hex.Encode(id[14:18], b[6:8])
	hex.Encode(id[19:23], b[8:10])
	hex.Encode(id[24:], b[10:])
	for _, dash := range [...]int{8, 13, 18, 23} {
		id[dash] = '-'
	}
	return string(id[:])
}

// Enqueued says what became of a request to store a job.
type Enqueued struct {
	ID        string `json:"id"`
	Duplicate bool   `json:"duplicate"` // the key was held: ID is the job that has it
	Pruned    bool   `json:"pruned"`    // and that job is no longer stored
}

// item is a job as opEnqueue takes it.
type item struct {
	ID       string  `json:"id"`
	Type     string  `json:"type"`
	Queue    string  `json:"queue"`
	Priority int     `json:"prio"`
	Max      int     `json:"max"`
	Payload  string  `json:"payload"`
	Key      *string `json:"key,omitempty"`
	Scope    *string `json:"scope,omitempty"`
	TTLMS    *int64  `json:"ttl,omitempty"`
	rare
	After []after `json:"after,omitempty"`
	Fail  *string `json:"fail,omitempty"`
}

// rare is what few jobs have.
type rare struct {
	DelayMS *int64  `json:"delay,omitempty"`
	AtMS    *int64  `json:"nb,omitempty"`
	Limit   *string `json:"limit,omitempty"`
	Parent  *string `json:"parent,omitempty"`
	Trace   *string `json:"trace,omitempty"`
}

func rareOf(n *job.New, traceParent string) rare {
	r := rare{Limit: optional(n.LimitKey), Parent: optional(n.ParentID), Trace: optional(traceParent)}
	if n.Delay > 0 {
		ms := n.Delay.Milliseconds()
		r.DelayMS = &ms
	}
	if !n.NotBefore.IsZero() {
		ms := n.NotBefore.UnixMilli()
		r.AtMS = &ms
	}
	return r
}

// after is a job that an item comes after: see sqlAfter.
type after struct {
	ID   string `json:"id"`
	New  bool   `json:"new,omitempty"`
	Type string `json:"type,omitempty"`
	Key  string `json:"key,omitempty"`
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// encode checks a job and turns it into opEnqueue's item. stored are the jobs
// that the same call stores before it.
func (q *Queue) encode(ctx context.Context, n *job.New, stored map[string]after) (item, error) {
	if err := n.Check(q.types); err != nil {
		return item{}, err
	}
	if n.ID == "" {
		n.ID = q.NewID()
	}
	it := item{
		ID: n.ID, Type: n.Type, Queue: n.Queue, Priority: n.Priority, Max: n.MaxAttempts, Payload: string(n.Payload),
		Key: optional(n.Key), Scope: optional(string(n.KeyScope)), rare: rareOf(n, telemetry.TraceParent(ctx)),
	}
	if n.KeyScope == job.ScopeUntil {
		ms := n.KeyTTL.Milliseconds()
		it.TTLMS = &ms
	}
	for _, id := range n.After {
		a, ok := stored[id]
		if !ok {
			a = after{ID: id}
		}
		it.After = append(it.After, a)
	}
	it.Fail = optional(string(n.AfterFailure))
	if stored != nil {
		stored[n.ID] = after{ID: n.ID, New: true, Type: n.Type, Key: n.Key}
	}
	return it, nil
}

// Enqueue stores one job. When it returns without error the job is durable.
// An error of class unknown may be repeated safely with the same ID.
func (q *Queue) Enqueue(ctx context.Context, n job.New) (Enqueued, error) {
	out, err := q.EnqueueMany(ctx, []job.New{n})
	if err != nil {
		return Enqueued{}, err
	}
	return out[0], nil
}

// EnqueueShown is Enqueue for a caller that wants to see the job, or the one
// that stands for it: as it is then, or nil where that was pruned.
func (q *Queue) EnqueueShown(ctx context.Context, n job.New) (Enqueued, *job.Job, error) {
	out, rows, err := q.enqueue(ctx, []job.New{n}, opEnqueueNewShown, opEnqueueShown)
	if err != nil || rows[0].Bool(3) {
		return out[0], nil, err
	}
	j, _ := jobRow(rows[0][5:])
	return out[0], &j, nil
}

// EnqueueMany stores all jobs or none, in one commit. A key that comes twice
// refers to the first; a job may come after one that stands before it in the
// list. The ids of jobs that had none are filled in.
func (q *Queue) EnqueueMany(ctx context.Context, jobs []job.New) ([]Enqueued, error) {
	out, _, err := q.enqueue(ctx, jobs, opEnqueueNew, opEnqueue)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// enqueue stores jobs with the op for new ones, where all are, or else the
// one that asks about them. It also returns the rows of the op's answer.
func (q *Queue) enqueue(ctx context.Context, jobs []job.New, opNew, opAsks *libsql.Op) (out []Enqueued, rows []libsql.Row, err error) {
	out = make([]Enqueued, len(jobs))
	if len(jobs) == 0 {
		return out, nil, nil
	}
	ctx, span := telemetry.QueueEnqueue(ctx)
	defer func() { telemetry.End(span, err) }()
	fresh := true
	for i := range jobs {
		fresh = fresh && isNew(&jobs[i])
	}
	if fresh {
		rows, err = q.add(ctx, span, jobs, opNew)
	} else {
		rows, err = q.ask(ctx, span, jobs, opAsks)
	}
	if err != nil {
		return out, nil, err
	}
	q.enqueued.Add(ctx, int64(len(jobs)))
	for i, r := range rows {
		if r == nil { // there was nothing to ask
			out[i].ID = jobs[i].ID
			continue
		}
		out[i] = enqueued(r)
		if !out[i].Duplicate && r.Bool(4) { // the only job: nothing else was stored
			return out, nil, fmt.Errorf("%s: %w", out[i].ID, ErrIDInUse)
		}
	}
	return out, rows, nil
}

// isNew is true for a job that nothing stands in the way of: see opEnqueueNew.
func isNew(n *job.New) bool { return n.ID == "" && n.Key == "" && len(n.After) == 0 }

// add stores new jobs.
func (q *Queue) add(ctx context.Context, span trace.Span, jobs []job.New, op *libsql.Op) ([]libsql.Row, error) {
	size := 0
	for i := range jobs {
		if err := jobs[i].Check(q.types); err != nil {
			return nil, inItem(err, i, len(jobs))
		}
		size += len(jobs[i].Payload) + 256 // the rest is about as long
	}
	for i, id := range q.NewIDs(len(jobs)) {
		jobs[i].ID = id
	}
	telemetry.Enqueues(span, len(jobs), queueOf(jobs), jobs[0].ID, jobs[0].Type)
	traceParent := telemetry.TraceParent(ctx)
	items, all := make([][]byte, len(jobs)), make([]byte, 0, size)
	for i := range jobs {
		begin := len(all)
		all = pack(all, &jobs[i], traceParent)
		items[i] = all[begin:len(all):len(all)]
	}
	rows, err := q.db.Merge(ctx, op, items...)
	if err != nil {
		return nil, fmt.Errorf("enqueue: %w", err)
	}
	return rows, nil
}

// pack appends the item of a new job, as sqlInsertNew takes it: the id; filled
// up with spaces the priority and the attempts, to 4 bytes each, and the
// lengths in bytes of what follows, to 3, 3, 7 and 7; the type, the queue, the
// payload and, for few, an object with what most jobs do not have.
func pack(b []byte, n *job.New, traceParent string) []byte {
	var object []byte
	if r := rareOf(n, traceParent); r != (rare{}) {
		object = job.Payload(r)
	}
	b = append(b, n.ID...)
	for _, f := range [...]struct{ number, width int }{
		{n.Priority, 4}, {n.MaxAttempts, 4}, {len(n.Type), 3}, {len(n.Queue), 3}, {len(n.Payload), 7}, {len(object), 7},
	} {
		b = libsql.AppendPadded(b, int64(f.number), f.width)
	}
	b = append(b, n.Type...)
	b = append(b, n.Queue...)
	b = append(b, n.Payload...)
	return append(b, object...)
}

// queueOf is the queue of all jobs, or nothing if there are several.
func queueOf(jobs []job.New) string {
	for i := range jobs {
		if jobs[i].Queue != jobs[0].Queue {
			return ""
		}
	}
	return jobs[0].Queue
}

// ask stores jobs with the op that asks about them.
func (q *Queue) ask(ctx context.Context, span trace.Span, jobs []job.New, op *libsql.Op) ([]libsql.Row, error) {
	items := make([]item, len(jobs))
	stored := map[string]after{}
	guarded := false
	for i := range jobs {
		n := &jobs[i]
		guarded = guarded || len(n.After) > 0 || len(jobs) > 1 && n.ID != ""
		if before, again := stored[n.ID]; again && before.Type != n.Type {
			return nil, fmt.Errorf("%s: %w", n.ID, ErrIDInUse)
		}
		var err error
		if items[i], err = q.encode(ctx, n, stored); err != nil {
			return nil, inItem(err, i, len(jobs))
		}
	}
	telemetry.Enqueues(span, len(jobs), queueOf(jobs), jobs[0].ID, jobs[0].Type)
	rows, err := q.store(ctx, op, items, guarded)
	if err != nil {
		return nil, fmt.Errorf("enqueue: %w", err)
	}
	return rows, nil
}

// store applies an op that asks: merged with what other callers store or,
// where one item must not be stored without the others, or much is asked about
// long ones, as a batch of its own.
func (q *Queue) store(ctx context.Context, op *libsql.Op, items []item, guarded bool) ([]libsql.Row, error) {
	arrays := inArrays(items)
	if !guarded && len(arrays) == 1 {
		return q.db.Merge(ctx, op, arrays[0].texts...)
	}
	b := libsql.Batch{Rouses: true}
	for _, a := range arrays {
		b.Guard(sqlEnqueueGuardID, a.slim())
	}
	for _, a := range arrays {
		b.Guard(sqlEnqueueGuardAfter, a.slim())
	}
	answers := make([]int, len(arrays))
	for i, a := range arrays {
		answers[i] = a.record(&b, op, true)
	}
	res, err := q.db.Write(ctx, &b)
	switch guard := libsql.GuardIndex(err); {
	case guard >= len(arrays):
		return nil, q.unknownAfter(ctx, arrays[guard-len(arrays)], len(items))
	case guard >= 0:
		return nil, ErrIDInUse
	}
	if err != nil {
		return nil, err
	}
	rows := make([]libsql.Row, len(items))
	for i, a := range arrays {
		for _, r := range res[answers[i]].Rows {
			rows[a.first+int(r.Int(0))] = r
		}
	}
	return rows, nil
}

// array is a part of a call's items.
type array struct {
	first int // the place of its first item in the call
	items []item
	texts [][]byte
}

// arrayBytes is how long an array becomes before the next one is begun: a
// libsql server takes no argument of 5 MB.
const arrayBytes = 4 << 20

// texts encodes the items, into one piece of memory: there may be ten thousand.
func texts(items []item) [][]byte {
	var all bytes.Buffer
	size := 0
	for i := range items {
		size += len(items[i].Payload) + 256 // the rest is about as long
	}
	all.Grow(size)
	enc := json.NewEncoder(&all)
	enc.SetEscapeHTML(false) // as job.Payload
	ends := make([]int, len(items))
	for i := range items {
		if err := enc.Encode(&items[i]); err != nil {
			panic("queue: encode an item: " + err.Error())
		}
		ends[i] = all.Len()
	}
	out, begin := make([][]byte, len(items)), 0
	for i, end := range ends {
		out[i] = all.Bytes()[begin : end-1] // without the encoder's line end
		begin = end
	}
	return out
}

func inArrays(items []item) []array {
	var out []array
	texts := texts(items)
	first, size := 0, 0
	for i := range items {
		if i > first && size+len(texts[i]) > arrayBytes {
			out = append(out, array{first, items[first:i], texts[first:i]})
			first, size = i, 0
		}
		size += len(texts[i]) + 1
	}
	return append(out, array{first, items[first:], texts[first:]})
}

// slim is the array without payloads.
func (a array) slim() string {
	out := slices.Clone(a.items)
	for i := range out {
		out[i].Payload = ""
	}
	return string(job.Payload(out))
}

// record records an op that asks, and returns the place of its answer. Payloads
// go only where they are stored.
func (a array) record(b *libsql.Batch, op *libsql.Op, follows bool) int {
	last, slim := len(op.Stmts)-1, a.slim()
	for i, sql := range op.Stmts[:last] {
		arg := slim
		if i == last-1 {
			arg = "[" + string(bytes.Join(a.texts, []byte(","))) + "]"
		}
		b.Exec(sql, arg)
	}
	if follows {
		b.Exec(sqlAfter, slim)
	}
	return b.Query(op.Stmts[last], slim)
}

// unknownAfter is the error for a job to come after that is not stored.
func (q *Queue) unknownAfter(ctx context.Context, a array, items int) error {
	inv := &job.Invalid{Field: "after", Code: "unknown_job", Reason: "names a job that is not stored"}
	res, err := q.db.Read(ctx, libsql.Query(sqlUnknownAfter, a.slim()))
	if err != nil || len(res[0].Rows) == 0 { // stored since then: which one it was does not matter any more
		return inv
	}
	item, place := res[0].Rows[0].Int(0), res[0].Rows[0].Int(1)
	inv.Field, inv.Reason = fmt.Sprintf("after[%d]", place), "is no job that is stored"
	return inItem(inv, a.first+int(item), items)
}

// inItem says which of several jobs an error is about.
func inItem(err error, i, n int) error {
	var inv *job.Invalid
	if n > 1 && errors.As(err, &inv) {
		return &job.Invalid{Field: fmt.Sprintf("jobs[%d].%s", i, inv.Field), Code: inv.Code, Reason: inv.Reason}
	}
	return err
}

// Batch is a recorded batch that can also store jobs.
type Batch struct {
	libsql.Batch
	q       *Queue
	ctx     context.Context //nolint:containedctx // carries the trace into the follow-up jobs
	parent  string
	jobs    map[string]after // stored by this batch
	lease   []byte           // how opHandOver's items begin, where the run they follow is completed with them
	plain   [][]byte         // opHandOver's items of those of them that nothing is asked about
	problem error
}

// NewBatch starts a batch that [Queue.Write] applies.
func (q *Queue) NewBatch(ctx context.Context) *Batch {
	return &Batch{q: q, ctx: ctx, jobs: map[string]after{}}
}

// Enqueue records that the job is stored with the batch, and returns its id.
// If the job has a key that another one holds, that one stands for it. A job
// that it is to come after and that is not stored counts as pruned.
func (b *Batch) Enqueue(n job.New) string {
	id, _ := b.enqueue(n, false)
	return id
}

// EnqueueAsking is Enqueue for a caller that wants to know whether the job is
// a duplicate: [Answer] reads that from the result at the place returned.
func (b *Batch) EnqueueAsking(n job.New) (id string, place int) { return b.enqueue(n, true) }

func (b *Batch) enqueue(n job.New, asks bool) (id string, place int) {
	if n.ParentID == "" {
		n.ParentID = b.parent
	}
	fresh := isNew(&n)
	it, err := b.q.encode(b.ctx, &n, b.jobs)
	if err != nil {
		b.problem = errors.Join(b.problem, err)
		return n.ID, 0
	}
	if fresh && !asks {
		packed := pack(nil, &n, telemetry.TraceParent(b.ctx))
		b.plain = append(b.plain, slices.Concat(b.lease, packed))
		b.Exec(sqlInsertNew, libsql.Pack(packed))
		return n.ID, 0
	}
	return n.ID, inArrays([]item{it})[0].record(&b.Batch, opEnqueue, len(n.After) > 0)
}

// HoldKeys records that keys of a type are held for ever by a job that does
// their work itself. Keys that are held already stay as they are.
func (b *Batch) HoldKeys(typ string, keys []string, jobID string) {
	b.Exec(sqlHoldKeys, typ, string(job.Payload(keys)), jobID)
}

// DropKeys records that up to limit keys of a type that begin with prefix are
// freed, and returns the place of a result with a row for each.
func (b *Batch) DropKeys(typ, prefix string, limit int) (place int) {
	return b.Query(sqlDropKeys, typ, prefix, prefix+"\U0010FFFF", limit)
}

// Answer reads what became of a job that EnqueueAsking recorded.
func Answer(r libsql.Result) Enqueued { return enqueued(r.Rows[0]) }

func enqueued(r libsql.Row) Enqueued {
	return Enqueued{ID: r.Str(1), Duplicate: r.Bool(2), Pruned: r.Bool(3)}
}

// Write applies a batch. A worker of this process may claim the jobs that it
// stores in the same commit.
func (q *Queue) Write(ctx context.Context, b *Batch) ([]libsql.Result, error) {
	if b.problem != nil {
		return nil, b.problem
	}
	b.Rouses = len(b.jobs) > 0
	res, err := q.db.Write(ctx, &b.Batch)
	if err == nil && b.Rouses {
		q.enqueued.Add(ctx, int64(len(b.jobs)))
	}
	return res, err
}

// PullForward makes the queued job that holds (type, key) due now and says
// whether there was one waiting for its time.
func (q *Queue) PullForward(ctx context.Context, typ, key string) (bool, error) {
	b := q.NewBatch(ctx)
	n := b.Query(sqlPullForward, typ, key)
	res, err := q.Write(ctx, b)
	if err != nil {
		return false, fmt.Errorf("pull forward %s: %w", typ, err)
	}
	pulled := len(res[n].Rows) > 0
	if pulled {
		q.signal()
	}
	return pulled, nil
}

func millis(d time.Duration) int64 { return d.Milliseconds() }
