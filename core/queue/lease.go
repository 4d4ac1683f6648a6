package queue

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
)

// Longest texts kept with a run.
const (
	maxError = 16 << 10
	maxStack = 64 << 10
)

// Lease is the right to work on a job: every write for the job carries its
// token and changes nothing once another claim or a rescue has ended it.
type Lease struct {
	JobID string
	Seq   int64 // the job's place in its table, where it is found soonest
	Token string
}

// Guard records the check that makes a batch fail once the lease is lost. It
// must come before the batch's other statements.
func (l Lease) Guard(b *libsql.Batch) { b.Guard(sqlGuard, l.JobID, l.Token) }

// Claimed is a job in the hands of this runner.
type Claimed struct {
	Lease
	Type        string
	Queue       string
	Priority    int64
	Attempt     int64 // runs started, this one included, less those handed back
	MaxAttempts int64
	Failures    int64
	Run         int64 // the number of this claim; never repeats
	Payload     json.RawMessage
	Key         string // idempotency key; "" for none
	TraceParent string
	Waited      time.Duration // since it could have been claimed, by the database's clock
	Deadline    time.Time     // local end of the lease unless a heartbeat moves it
}

// ClaimRequest says who wants what.
type ClaimRequest struct {
	Runner string
	Token  string   // from NewToken, or any other text of at most TokenLength bytes; one per call
	Types  []string // job types the runner knows
	Queues []string // nil for all
	Limit  int
	Lease  time.Duration
	Sight  *Sight // what the claim before left, if this one follows at once; nil to look first
}

// Claim is what a claim found, and what it left.
type Claim struct {
	Jobs []Claimed // in claim order
	Sight
}

// NewToken returns the token of one claim call.
func (q *Queue) NewToken() string {
	var b [16]byte
	q.sys.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Claim takes up to Limit jobs. It looks first, unless the caller says what
// there is, and takes the write lock only when there is something to do: also
// to line up what has become claimable. After an error of class unknown the
// caller asks [Queue.ClaimedBy] with the same token what it got.
func (q *Queue) Claim(ctx context.Context, r ClaimRequest) (Claim, error) {
	if err := r.check(); err != nil {
		return Claim{}, err
	}
	before := q.sys.Now()
	var s Sight
	if r.Sight == nil {
		var err error
		if s, err = q.Look(ctx); err != nil {
			return Claim{}, fmt.Errorf("claim: %w", err)
		}
	} else {
		s = *r.Sight
		s.changed = s.changed || s.limited // since then, perhaps: a key without room would keep others from their place
	}
	if !s.Ready {
		return Claim{Sight: s}, nil
	}
	out, err := q.take(ctx, r, s, before)
	if libsql.GuardIndex(err) == 0 { // a limit was set since there was none
		s.changed, s.limited = true, true
		out, err = q.take(ctx, r, s, before)
	}
	if err != nil {
		return Claim{}, fmt.Errorf("claim: %w", err)
	}
	q.goOn(out)
	return out, nil
}

// ClaimStored waits for this process to store jobs, and takes up to limit of
// what there is then in the commit that stores them, so that a job starts after
// one sync in place of two. It does not wait if jobs were stored since the call
// before. limit is asked when that commit is put together, and must not block.
// Where ctx ends first, nothing was claimed, and the error's class is canceled.
func (q *Queue) ClaimStored(ctx context.Context, r ClaimRequest, limit func() int) (Claim, error) {
	if err := r.check(); err != nil {
		return Claim{}, err
	}
	var s Sight
	if r.Sight != nil {
		s.limited = r.Sight.limited
		s.changed = s.limited
	}
	var before time.Time
	var places claimPlaces
	res, err := q.db.Join(ctx, func(b *libsql.Batch) {
		before = q.sys.Now()
		r.Limit = limit()
		places = q.recordClaim(b, r, s)
	})
	if libsql.GuardIndex(err) == 0 { // a limit was set since there was none
		r.Sight = &Sight{Ready: true, limited: true}
		return q.Claim(ctx, r)
	}
	if err != nil {
		return Claim{}, fmt.Errorf("claim: %w", err)
	}
	out, err := places.read(res, r, before)
	if err != nil {
		return Claim{}, fmt.Errorf("claim: %w", err)
	}
	q.goOn(out)
	return out, nil
}

// take is the write of a claim.
func (q *Queue) take(ctx context.Context, r ClaimRequest, s Sight, before time.Time) (Claim, error) {
	var b libsql.Batch
	places := q.recordClaim(&b, r, s)
	res, err := q.db.Write(ctx, &b)
	if err != nil {
		return Claim{}, err
	}
	return places.read(res, r, before)
}

// claimPlaces are the places of a claim's results.
type claimPlaces struct{ jobs, look int }

func (q *Queue) recordClaim(b *libsql.Batch, r ClaimRequest, s Sight) (p claimPlaces) {
	if !s.limited {
		b.Guard(sqlGuardUnlimited)
	}
	q.lineUp(b, s)
	args := []any{r.Token, r.Runner, millis(r.Lease), string(job.Payload(r.Types)), r.Limit, r.queues()}
	if s.limited {
		p.jobs = b.Query(sqlClaim, args...)
	} else {
		p.jobs = b.Query(sqlPick, args...)
		b.Exec(sqlTake, args...)
	}
	p.look = b.Query(sqlLook)
	return p
}

func (p claimPlaces) read(res []libsql.Result, r ClaimRequest, before time.Time) (out Claim, err error) {
	out.Sight = sightOf(res[p.look].Rows[0])
	out.Jobs, err = claimedRows(res[p.jobs].Rows, r.Token, before.Add(r.Lease))
	return out, err
}

// goOn asks for another claim where one batch did a bounded part of the work.
func (q *Queue) goOn(c Claim) {
	if c.more || c.limited && len(c.Jobs) > 0 {
		q.signal()
	}
}

// settles says whether the jobs of limited keys are put in their places: to
// promote and release others may have changed keys.
func (s Sight) settles() bool { return s.changed || s.marked || s.due }

// lineUp records what makes jobs claimable, and what keeps the counts, as far
// as there is any.
func (q *Queue) lineUp(b *libsql.Batch, s Sight) {
	if s.marked {
		b.Exec(sqlAfterTake)
		b.Exec(sqlAfterCancel)
		b.Exec(sqlAfterKeys)
		b.Exec(sqlAfterRelease)
		b.Exec(sqlAfterDone)
	}
	if s.due {
		b.Exec(sqlPromote)
	}
	if s.settles() {
		settle(b)
	}
	if s.uncounted {
		b.Exec(sqlCount)
		b.Exec(sqlCountedTo)
	}
}

// TokenLength is how many bytes a claim's token has at most.
const TokenLength = 32

func (r ClaimRequest) check() error {
	if r.Token == "" || len(r.Token) > TokenLength {
		return fmt.Errorf("claim: a token of %d bytes: it must have 1 to %d", len(r.Token), TokenLength)
	}
	return nil
}

func (r ClaimRequest) queues() any {
	if r.Queues == nil {
		return nil
	}
	return string(job.Payload(r.Queues))
}

// ClaimSolo reserves one job that must run alone because runners died while
// they ran it. The caller lets its other jobs end, calls [Queue.BeginSolo] and
// runs it, or hands it back.
func (q *Queue) ClaimSolo(ctx context.Context, r ClaimRequest) (*Claimed, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	before := q.sys.Now()
	var b libsql.Batch
	n := b.Query(sqlClaimSolo, r.Token, r.Runner, millis(r.Lease), string(job.Payload(r.Types)), r.queues())
	res, err := q.db.Write(ctx, &b)
	if err != nil {
		return nil, fmt.Errorf("claim a job that runs alone: %w", err)
	}
	if len(res[n].Rows) == 0 {
		return nil, nil
	}
	jobs, err := claimedRows(res[n].Rows, r.Token, before.Add(r.Lease))
	if err != nil {
		return nil, err
	}
	return &jobs[0], nil
}

// BeginSolo records that the job now runs, and nothing beside it: if its
// runner dies from here on, the job has failed as poisoned.
func (q *Queue) BeginSolo(ctx context.Context, l Lease) error {
	return q.WriteUnder(ctx, l, func(b *Batch) { b.Exec(sqlSoloBegins, l.JobID) })
}

// ClaimedBy returns the running jobs that carry the token. Their local
// deadline counts from the moment given: before the claim was sent.
func (q *Queue) ClaimedBy(ctx context.Context, token string, deadline time.Time) ([]Claimed, error) {
	res, err := q.db.Read(ctx, libsql.Query(sqlByToken, token))
	if err != nil {
		return nil, fmt.Errorf("claimed by token: %w", err)
	}
	return claimedRows(res[0].Rows, token, deadline)
}

// claimedRows reads claimColumns and returns the jobs in claim order.
func claimedRows(rows []libsql.Row, token string, deadline time.Time) ([]Claimed, error) {
	type inLine struct {
		Claimed

		place, seq int64
	}
	line := make([]inLine, len(rows))
	for i, r := range rows {
		var n [8]int64
		const parts = 3 + len(n) + 3
		row, payload := r.Bytes(0), -1
		for range parts - 1 {
			end := bytes.IndexByte(row[payload+1:], '\n')
			if end < 0 {
				return nil, errClaimedRow
			}
			payload += 1 + end
		}
		text := strings.SplitN(string(row[:payload]), "\n", parts-1)
		for k := range n {
			var err error
			if n[k], err = strconv.ParseInt(text[3+k], 10, 64); err != nil {
				return nil, errClaimedRow
			}
		}
		priority, seq, since, claimed := n[0], n[5], n[6], n[7]
		line[i] = inLine{place: since - priority*boost, seq: seq, Claimed: Claimed{
			Lease: Lease{JobID: text[0], Seq: seq, Token: token},
			Type:  text[1], Queue: text[2], Priority: priority, Attempt: n[1], MaxAttempts: n[2], Failures: n[3], Run: n[4],
			Payload: row[payload+1:], TraceParent: text[11][1:], Key: text[12][1:], Deadline: deadline,
			Waited: time.Duration(claimed-since) * time.Millisecond,
		}}
	}
	slices.SortFunc(line, func(a, b inLine) int {
		return cmp.Or(cmp.Compare(a.place, b.place), cmp.Compare(a.seq, b.seq))
	})
	out := make([]Claimed, len(line))
	for i := range line {
		out[i] = line[i].Claimed
	}
	return out, nil
}

var errClaimedRow = &libsql.Error{Class: libsql.Corrupt, Op: "claim", Detail: "the row of a claimed job cannot be read"}

// Beat is the answer to one lease's heartbeat.
type Beat struct {
	Held            bool // the lease was extended
	CancelRequested bool
}

// Heartbeat extends the leases that still hold.
func (q *Queue) Heartbeat(ctx context.Context, leases []Lease, d time.Duration) ([]Beat, error) {
	if len(leases) == 0 {
		return nil, nil
	}
	items := make([][]byte, len(leases))
	for i, l := range leases {
		items[i] = job.Payload(map[string]any{"id": l.JobID, "t": l.Token, "lease": millis(d)})
	}
	rows, err := q.db.Merge(ctx, opHeartbeat, items...)
	if err != nil {
		return nil, fmt.Errorf("heartbeat: %w", err)
	}
	out := make([]Beat, len(rows))
	for i, r := range rows {
		out[i] = Beat{Held: r.Bool(1), CancelRequested: r.Bool(2)}
	}
	return out, nil
}

// CancelRequested lists the runner's jobs that somebody wants canceled.
func (q *Queue) CancelRequested(ctx context.Context, runner string) ([]string, error) {
	res, err := q.db.Read(ctx, libsql.Query(sqlCancelRequested, runner))
	if err != nil {
		return nil, fmt.Errorf("cancel requests: %w", err)
	}
	ids := make([]string, len(res[0].Rows))
	for i, r := range res[0].Rows {
		ids[i] = r.Str(0)
	}
	return ids, nil
}

// Outcome is how a run ended, as its handler meant it. What becomes of the
// job also depends on its budget and on whether its cancel was asked for.
type Outcome struct {
	Kind   Kind
	Delay  time.Duration   // until the next run, for Failed and Snoozed
	Result json.RawMessage // for Completed; nil is null
	Error  string          // for Failed and Fatal
	Stack  string          // of a panic
}

// Kind is what a handler's answer asks for.
type Kind string

// The kinds.
const (
	Completed  Kind = "completed"
	Failed     Kind = "failed"      // try again after Delay while the budget lasts
	Fatal      Kind = "fatal"       // never again
	Snoozed    Kind = "snoozed"     // again after Delay, at no cost
	HandedBack Kind = "handed_back" // again at once, at no cost
)

// completeItem is the item of opComplete.
func (l Lease) completeItem(result json.RawMessage) []byte {
	b := l.AppendPacked(make([]byte, 0, 58+len(result)))
	return append(libsql.AppendPadded(b, int64(len(result)), 7), result...)
}

// AppendPacked appends the lease as packed items begin with it: the place of the
// job and the token, each filled up with spaces to its length in bytes.
func (l Lease) AppendPacked(b []byte) []byte {
	b = append(libsql.AppendPadded(b, l.Seq, 19), l.Token...)
	for range TokenLength - len(l.Token) {
		b = append(b, ' ')
	}
	return b
}

// finishItem is the item of opFinish.
func (l Lease) finishItem(o Outcome) []byte {
	return job.Payload(struct {
		ID    string  `json:"id"`
		Token string  `json:"t"`
		Kind  Kind    `json:"o"`
		Delay int64   `json:"d"`
		Error *string `json:"err,omitempty"`
		Stack *string `json:"stack,omitempty"`
	}{l.JobID, l.Token, o.Kind, millis(o.Delay), optional(job.RepairText(o.Error, maxError)), optional(job.RepairText(o.Stack, maxStack))})
}

// Finish ends the run and returns the job's new state. A repeat after a lost
// reply returns what the first call made of it. ErrLeaseLost means that
// nothing was changed, because the lease had ended before.
func (q *Queue) Finish(ctx context.Context, l Lease, o Outcome) (job.State, error) {
	state, err := q.finish(ctx, l, o)
	if err != nil {
		return "", fmt.Errorf("finish job %s as %s: %w", l.JobID, o.Kind, err)
	}
	if o.Kind == HandedBack {
		q.signal()
	}
	return state, nil
}

func (q *Queue) finish(ctx context.Context, l Lease, o Outcome) (job.State, error) {
	op := opFinish
	switch o.Kind {
	case Completed:
		held, err := q.Complete(ctx, []Completion{{l, o.Result}})
		if err == nil && !held[0] {
			err = ErrLeaseLost
		}
		return job.Completed, err
	case Snoozed:
		op = opSnooze
	}
	rows, err := q.db.Merge(ctx, op, l.finishItem(o))
	if err != nil {
		return "", err
	}
	if !rows[0].Bool(1) {
		return "", ErrLeaseLost
	}
	return job.State(rows[0].Str(2)), nil
}

// Completion is a run that has completed, and its job's result; nil is null.
type Completion struct {
	Lease
	Result json.RawMessage
}

// Complete is [Queue.Finish] for many runs that have completed, which are
// stored or not as a whole. It says of each whether its lease still held: of
// one whose did not, nothing was changed.
func (q *Queue) Complete(ctx context.Context, runs []Completion) (held []bool, err error) {
	items := make([][]byte, len(runs))
	for i, c := range runs {
		if err := job.CheckJSON("result", orNull(c.Result)); err != nil {
			return nil, err
		}
		items[i] = c.completeItem(c.Result)
	}
	rows, err := q.db.Merge(ctx, opComplete, items...)
	if err != nil {
		return nil, fmt.Errorf("complete: %w", err)
	}
	held = make([]bool, len(runs))
	for i, row := range rows {
		held[i] = row == nil
	}
	return held, nil
}

// Commit completes the run together with whatever fill records: all of it
// happens or none. Where that is nothing but new jobs, without a key, an id or
// others to come after, it shares its statements with other runs. While the
// database is away it tries again until ctx ends. It is safe to repeat after a
// lost reply.
func (q *Queue) Commit(ctx context.Context, l Lease, result json.RawMessage, fill func(*Batch)) error {
	if err := job.CheckJSON("result", orNull(result)); err != nil {
		return err
	}
	b := q.NewBatch(ctx)
	b.parent, b.lease = l.JobID, l.AppendPacked([]byte("J"))
	l.Guard(&b.Batch)
	fill(b)
	if b.problem == nil && len(b.plain) == b.Len()-1 {
		return libsql.Insist(ctx, q.sys, func() error { return q.handOver(ctx, l, result, b.plain) })
	}
	b.Exec(opComplete.Stmts[0], libsql.Pack(l.completeItem(result)))
	// The batch is recorded once, so that the ids it made stay true.
	return libsql.Insist(ctx, q.sys, func() error { return q.commit(ctx, l, b) })
}

// handOver completes the run and stores the jobs that follow it, together with
// what other runs hand over.
func (q *Queue) handOver(ctx context.Context, l Lease, result json.RawMessage, jobs [][]byte) error {
	rows, err := q.db.Merge(ctx, opHandOver, slices.Concat(jobs, [][]byte{l.completeItem(result)})...)
	if err == nil && rows[len(jobs)] != nil {
		err = ErrLeaseLost
	}
	if err != nil {
		return fmt.Errorf("commit job %s: %w", l.JobID, err)
	}
	if len(jobs) > 0 {
		q.enqueued.Add(ctx, int64(len(jobs)))
	}
	return nil
}

// commit applies a hand-over. A guard that fails may mean that an earlier try
// has landed.
func (q *Queue) commit(ctx context.Context, l Lease, b *Batch) error {
	_, err := q.Write(ctx, b)
	if libsql.GuardIndex(err) != 0 {
		return err
	}
	landed, err := q.landed(ctx, l)
	if err == nil && !landed {
		err = fmt.Errorf("commit job %s: %w", l.JobID, ErrLeaseLost)
	}
	return err
}

func orNull(v json.RawMessage) json.RawMessage {
	if v == nil {
		return json.RawMessage("null")
	}
	return v
}

// landed says whether the job was finished under this very lease.
func (q *Queue) landed(ctx context.Context, l Lease) (bool, error) {
	res, err := q.db.Read(ctx, libsql.Query(finishStatements[len(finishStatements)-1], "["+string(l.finishItem(Outcome{}))+"]"))
	if err != nil {
		return false, err
	}
	return res[0].Rows[0].Bool(1), nil
}

// Rescued is a job whose lease ran out.
type Rescued struct {
	ID, Type string
	State    job.State // queued again, canceled if that was asked for, failed if it was poisoned
	Crashes  int64
	Solo     bool // it will run alone next
}

// RescueBatch is how many jobs one Rescue takes back at most.
const RescueBatch = 100

// Rescue takes back jobs whose lease has run out, up to RescueBatch.
func (q *Queue) Rescue(ctx context.Context) ([]Rescued, error) {
	return q.rescue(ctx, &libsql.Batch{})
}

// TakeAway ends the lease of one running job as if it had run out, and takes
// the job back: what a rescuer does that takes a living runner for dead. A job
// that was taken back before is spared. Package fault rehearses lease losses
// with it.
func (q *Queue) TakeAway(ctx context.Context) ([]Rescued, error) {
	var random [4]byte
	q.sys.Read(random[:])
	var b libsql.Batch
	b.Exec(sqlTakeAway, int64(binary.BigEndian.Uint32(random[:])))
	return q.rescue(ctx, &b)
}

func (q *Queue) rescue(ctx context.Context, b *libsql.Batch) ([]Rescued, error) {
	b.Exec(sqlRescueRuns)
	b.Exec(sqlRescueKeys)
	n := b.Query(sqlRescue)
	res, err := q.db.Write(ctx, b)
	if err != nil {
		return nil, fmt.Errorf("rescue: %w", err)
	}
	out := make([]Rescued, len(res[n].Rows))
	for i, r := range res[n].Rows {
		out[i] = Rescued{ID: r.Str(0), Type: r.Str(1), State: job.State(r.Str(2)), Crashes: r.Int(3), Solo: r.Bool(4)}
	}
	return out, nil
}

// Look says what there is to do. It only reads.
func (q *Queue) Look(ctx context.Context) (Sight, error) {
	res, err := q.db.Read(ctx, libsql.Query(sqlLook))
	if err != nil {
		return Sight{}, fmt.Errorf("look: %w", err)
	}
	return sightOf(res[0].Rows[0]), nil
}

func sightOf(r libsql.Row) Sight {
	s := Sight{due: r.Bool(1), changed: r.Bool(2), marked: r.Bool(3), Suspect: r.Bool(4), Expired: r.Bool(5), limited: r.Bool(7), uncounted: r.Bool(8)}
	s.more = s.due || s.changed || s.marked || s.uncounted
	s.Ready = r.Bool(0) || s.more
	if ms := r.IntPtr(6); ms != nil {
		due := time.Duration(max(*ms, 0)) * time.Millisecond
		s.NextDue = &due
	}
	return s
}

// Sight is what Look saw.
type Sight struct {
	Ready   bool           // a claim may find something
	Suspect bool           // a job waits that must run alone: see ClaimSolo
	Expired bool           // a lease has run out
	NextDue *time.Duration // until something becomes claimable by itself

	due, changed, marked bool // jobs to promote, keys to settle, jobs that waited for others
	uncounted            bool // much of the log is not in the counts
	more                 bool // any of them: one batch may not be enough
	limited              bool // there are limits: one claim may not bring all that they leave room for
}

// Runner is a row of the runners table.
type Runner struct {
	ID          string   `json:"id"`
	Host        string   `json:"host"`
	PID         int64    `json:"pid"`
	Version     string   `json:"version"`
	Queues      []string `json:"queues"` // empty for all
	Types       []string `json:"types"`
	Concurrency int64    `json:"concurrency"`
	StartedAt   job.Time `json:"started_at"`
	HeartbeatAt job.Time `json:"heartbeat_at"`
}

// Register writes the runner's row or renews its heartbeat.
func (q *Queue) Register(ctx context.Context, r Runner) error {
	if r.Queues == nil {
		r.Queues = []string{}
	}
	var b libsql.Batch
	b.Exec(sqlRunner, r.ID, r.Host, r.PID, r.Version, string(job.Payload(r.Queues)), string(job.Payload(r.Types)), r.Concurrency)
	b.Exec(sqlRunnersForget)
	if _, err := q.db.Write(ctx, &b); err != nil {
		return fmt.Errorf("register runner: %w", err)
	}
	return nil
}

// Unregister removes the runner's row.
func (q *Queue) Unregister(ctx context.Context, id string) error {
	var b libsql.Batch
	b.Exec(sqlRunnerGone, id)
	if _, err := q.db.Write(ctx, &b); err != nil {
		return fmt.Errorf("unregister runner: %w", err)
	}
	return nil
}

// Backoff is how long a job of the type waits after its nth failure.
func (q *Queue) Backoff(typ string, failures int64) time.Duration {
	var b [4]byte
	q.sys.Read(b[:])
	random := float64(uint32(b[0])|uint32(b[1])<<8|uint32(b[2])<<16|uint32(b[3])<<24) / (1 << 32)
	return q.types.Lookup(typ).Backoff.Delay(failures, random)
}

// WriteUnder applies what fill records if the lease still holds.
func (q *Queue) WriteUnder(ctx context.Context, l Lease, fill func(*Batch)) error {
	b := q.NewBatch(ctx)
	b.parent = l.JobID
	l.Guard(&b.Batch)
	fill(b)
	_, err := q.Write(ctx, b)
	if libsql.GuardIndex(err) == 0 {
		err = ErrLeaseLost
	}
	if err != nil {
		return fmt.Errorf("write for job %s: %w", l.JobID, err)
	}
	return nil
}
