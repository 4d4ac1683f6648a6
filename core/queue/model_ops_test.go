package queue_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
)

// op is one call of the queue. do makes it; check lets the model judge the
// answer and carry the call out in its turn.
type op interface {
	do(ctx context.Context, q *queue.Queue) any
	check(m *model, got any) error
}

// answered is what a call gave.
type answered[T any] struct {
	v   T
	err error
}

func answer[T any](v T, err error) any { return answered[T]{v, err} }

func (a answered[T]) String() string { return fmt.Sprintf("%+v, %v", a.v, a.err) }

// want compares an answer with the model's.
func want[T any](got any, v T, err error) error {
	a := got.(answered[T])
	var inv *job.Invalid
	switch {
	case errors.Is(err, errUnknownAfter) && errors.As(a.err, &inv) && inv.Code == "unknown_job": // as it should be
	case err == nil && a.err != nil, err != nil && !errors.Is(a.err, err):
		return fmt.Errorf("error %v, want %v", a.err, err)
	case err == nil && fmt.Sprintf("%+v", a.v) != fmt.Sprintf("%+v", v):
		return fmt.Errorf("answer %+v, want %+v", a.v, v)
	}
	return nil
}

type enqueueOp struct{ Jobs newJobs }

// newJobs show themselves briefly.
type newJobs []job.New

func (list newJobs) String() string {
	var out []string
	for _, n := range list {
		s := fmt.Sprintf("%s type=%s queue=%s prio=%d", n.ID, n.Type, n.Queue, n.Priority)
		for _, f := range []struct {
			name string
			v    any
			zero bool
		}{
			{"max", n.MaxAttempts, n.MaxAttempts == 0}, {"at", n.NotBefore.UnixMilli(), n.NotBefore.IsZero()}, {"delay", n.Delay, n.Delay == 0}, {"key", n.Key, n.Key == ""},
			{"scope", n.KeyScope, n.KeyScope == ""}, {"ttl", n.KeyTTL, n.KeyTTL == 0}, {"limit", n.LimitKey, n.LimitKey == ""},
			{"after", n.After, len(n.After) == 0}, {"failure", n.AfterFailure, n.AfterFailure == ""},
		} {
			if !f.zero {
				s += fmt.Sprintf(" %s=%v", f.name, f.v)
			}
		}
		out = append(out, s)
	}
	return "[" + strings.Join(out, "; ") + "]"
}

func (o enqueueOp) do(ctx context.Context, q *queue.Queue) any {
	if len(o.Jobs) == 1 {
		e, err := q.Enqueue(ctx, o.Jobs[0])
		if err != nil {
			return answer[[]queue.Enqueued](nil, err)
		}
		return answer([]queue.Enqueued{e}, nil)
	}
	return answer(q.EnqueueMany(ctx, slices.Clone(o.Jobs)))
}

func (o enqueueOp) check(m *model, got any) error {
	list, err := checked(o.Jobs)
	if err != nil {
		return err
	}
	out, err := m.enqueue(list, false)
	return want(got, out, err)
}

// checked fills in what was left out.
func checked(jobs []job.New) ([]job.New, error) {
	list := slices.Clone(jobs)
	for i := range list {
		if err := list[i].Check(job.Known()); err != nil {
			return nil, err
		}
	}
	return list, nil
}

type claimOp struct{ r queue.ClaimRequest }

// claimed is what a claim gave, and whether it asks to be made again at once.
type claimed struct {
	queue.Claim
	again bool
}

func (c claimed) String() string {
	var jobs []string
	for _, j := range c.Jobs {
		jobs = append(jobs, fmt.Sprintf("%s %s/%s run=%d", j.JobID, j.Queue, j.Type, j.Run))
	}
	return fmt.Sprintf("%v due=%v suspect=%v again=%v", jobs, c.NextDue, c.Suspect, c.again)
}

func (o claimOp) do(ctx context.Context, q *queue.Queue) any {
	select {
	case <-q.Ready():
	default:
	}
	c, err := q.Claim(ctx, o.r)
	select {
	case <-q.Ready():
		return answer(claimed{c, true}, err)
	default:
		return answer(claimed{c, false}, err)
	}
}

func (o claimOp) check(m *model, got any) error {
	a := got.(answered[claimed])
	if a.err != nil {
		return a.err
	}
	for _, j := range m.inOrder() { // what was to be seen before
		if m.crowd {
			break // somebody else may have changed it since
		}
		waiting := j.state == job.Queued && !j.waits
		switch due := a.v.NextDue; {
		case waiting && j.solo == 0 && j.due != nil && *j.due > m.now && (due == nil || due.Milliseconds() > *j.due-m.now):
			return fmt.Errorf("%s is due in %d ms, and the claim says %v", j.ID, *j.due-m.now, due)
		case waiting && j.solo == 1 && *j.due <= m.now && !a.v.Suspect:
			return fmt.Errorf("%s must run alone, and the claim does not say so", j.ID)
		}
	}
	return m.claim(o.r, a.v.Jobs, a.v.again)
}

type claimSoloOp struct{ r queue.ClaimRequest }

func (o claimSoloOp) do(ctx context.Context, q *queue.Queue) any {
	return answer(q.ClaimSolo(ctx, o.r))
}

func (o claimSoloOp) check(m *model, got any) error {
	a := got.(answered[*queue.Claimed])
	if a.err != nil {
		return a.err
	}
	return m.claimSolo(o.r, a.v)
}

type beginSoloOp struct{ l queue.Lease }

func (o beginSoloOp) do(ctx context.Context, q *queue.Queue) any {
	return answer(struct{}{}, q.BeginSolo(ctx, o.l))
}

func (o beginSoloOp) check(m *model, got any) error {
	j := m.holder(o.l)
	if j == nil {
		return want(got, struct{}{}, queue.ErrLeaseLost)
	}
	if j.solo > 0 {
		j.solo = 2
	}
	return want(got, struct{}{}, nil)
}

// byTokenOp asks what a claim has taken, as after a lost reply.
type byTokenOp struct{ token string }

func (o byTokenOp) do(ctx context.Context, q *queue.Queue) any {
	return answer(q.ClaimedBy(ctx, o.token, time.Time{}))
}

func (o byTokenOp) check(m *model, got any) error {
	a := got.(answered[[]queue.Claimed])
	var ids, held []string
	for _, c := range a.v {
		ids = append(ids, c.JobID)
		if c.Token != o.token {
			return fmt.Errorf("%+v has another token", c)
		}
	}
	for _, j := range m.inOrder() {
		if j.state == job.Running && j.token == o.token {
			held = append(held, j.ID)
		}
	}
	slices.Sort(ids)
	slices.Sort(held)
	return want(answer(ids, a.err), held, nil)
}

type heartbeatOp struct {
	leases []queue.Lease
	d      time.Duration
}

func (o heartbeatOp) do(ctx context.Context, q *queue.Queue) any {
	return answer(q.Heartbeat(ctx, o.leases, o.d))
}

func (o heartbeatOp) check(m *model, got any) error {
	a := got.(answered[[]queue.Beat])
	a.v = slices.Clone(a.v)
	var beats []queue.Beat
	for i, l := range o.leases {
		j := m.holder(l)
		if j == nil {
			if i < len(a.v) {
				a.v[i].CancelRequested = false // says nothing to one who is not the holder
			}
			beats = append(beats, queue.Beat{})
			continue
		}
		j.lease, j.heartbeat = m.now+o.d.Milliseconds(), at(m.now)
		beats = append(beats, queue.Beat{Held: true, CancelRequested: j.cancel != nil})
	}
	return want(answer(a.v, a.err), beats, nil)
}

type finishOp struct {
	l queue.Lease
	o queue.Outcome
}

func (o finishOp) do(ctx context.Context, q *queue.Queue) any {
	return answer(q.Finish(ctx, o.l, o.o))
}

func (o finishOp) check(m *model, got any) error {
	s, err := m.finish(o.l, o.o)
	return want(got, s, err)
}

// commitOp hands follow-up jobs over with a completion.
type commitOp struct {
	l      queue.Lease
	result string
	Jobs   newJobs
}

func (o commitOp) do(ctx context.Context, q *queue.Queue) any {
	return answer(struct{}{}, q.Commit(ctx, o.l, json.RawMessage(o.result), func(b *queue.Batch) {
		for _, n := range o.Jobs {
			b.Enqueue(n)
		}
	}))
}

func (o commitOp) check(m *model, got any) error {
	if m.holder(o.l) == nil {
		var err error
		if !m.landed(o.l) {
			err = queue.ErrLeaseLost
		}
		return want(got, struct{}{}, err)
	}
	list, err := checked(o.Jobs)
	if err != nil {
		return err
	}
	for i := range list {
		list[i].ParentID = o.l.JobID
	}
	if _, err := m.enqueue(list, true); err != nil {
		return err
	}
	_, err = m.finish(o.l, queue.Outcome{Kind: queue.Completed, Result: json.RawMessage(o.result)})
	return want(got, struct{}{}, err)
}

type rescueOp struct{}

func (rescueOp) do(ctx context.Context, q *queue.Queue) any { return answer(q.Rescue(ctx)) }

func (rescueOp) check(m *model, got any) error {
	a := got.(answered[[]queue.Rescued])
	if a.err != nil {
		return a.err
	}
	return m.rescue(a.v)
}

type cancelOp struct{ id string }

func (o cancelOp) do(ctx context.Context, q *queue.Queue) any {
	j, err := q.Cancel(ctx, o.id)
	if err != nil {
		return answer(job.State(""), err)
	}
	return answer(j.State, nil)
}

func (o cancelOp) check(m *model, got any) error {
	j, before := m.jobs[o.id], job.State("")
	if j != nil {
		before = j.state
	}
	err := m.cancelJob(o.id)
	switch {
	case err != nil:
		return want(got, job.State(""), err)
	case m.crowd: // the job is read after the write: somebody may have come between
		if a := got.(answered[job.State]); before == job.Canceled && errors.Is(a.err, queue.ErrInvalidState) {
			return nil
		}
		return want(answer("", got.(answered[job.State]).err), "", nil)
	}
	return want(got, j.state, nil)
}

type retryOp struct{ id string }

func (o retryOp) do(ctx context.Context, q *queue.Queue) any {
	j, err := q.Retry(ctx, o.id)
	if err != nil {
		return answer(job.State(""), err)
	}
	return answer(j.State, nil)
}

func (o retryOp) check(m *model, got any) error {
	if err := m.retry(o.id); err != nil {
		return want(got, job.State(""), err)
	}
	if m.crowd {
		return want(answer("", got.(answered[job.State]).err), "", nil)
	}
	return want(got, job.Queued, nil)
}

type runNowOp struct{ id string }

func (o runNowOp) do(ctx context.Context, q *queue.Queue) any {
	_, err := q.RunNow(ctx, o.id)
	return answer(struct{}{}, err)
}

func (o runNowOp) check(m *model, got any) error { return want(got, struct{}{}, m.runNow(o.id)) }

// manyOp changes several jobs at once.
type manyOp struct {
	change string
	ids    []string
}

func (o manyOp) do(ctx context.Context, q *queue.Queue) any {
	c := map[string]queue.Change{"cancel": queue.ToCancel, "retry": queue.ToRetry, "delete": queue.ToDelete}[o.change]
	return answer(q.ChangeMany(ctx, c, queue.Filter{IDs: o.ids}, 0, false))
}

// check makes the changes one by one, the newest job first.
func (o manyOp) check(m *model, got any) error {
	var out queue.Changed
	list := m.inOrder()
	slices.Reverse(list)
	for _, j := range list {
		if !slices.Contains(o.ids, j.ID) {
			continue
		}
		err := queue.ErrInvalidState
		switch {
		case o.change == "cancel" && !j.state.Final():
			err = m.cancelJob(j.ID)
		case o.change == "retry":
			err = m.retry(j.ID)
		case o.change == "delete" && j.state.Final():
			m.remove(j.ID)
			err = nil
		}
		switch {
		case errors.Is(err, queue.ErrInvalidState): // no match
			continue
		case errors.Is(err, queue.ErrKeyInUse):
			out.KeyInUse++
		default:
			out.Changed++
		}
		out.Matched++
	}
	return want(got, out, nil)
}

type pullOp struct{ typ, key string }

func (o pullOp) do(ctx context.Context, q *queue.Queue) any {
	return answer(q.PullForward(ctx, o.typ, o.key))
}

func (o pullOp) check(m *model, got any) error { return want(got, m.pullForward(o.typ, o.key), nil) }

type pruneOp struct{ r queue.Retention }

func (o pruneOp) do(ctx context.Context, q *queue.Queue) any { return answer(q.Prune(ctx, o.r, 500)) }

func (o pruneOp) check(m *model, got any) error {
	a := got.(answered[int])
	if jobs, keys := m.prune(o.r); a.err != nil || a.v < jobs || a.v > jobs+keys {
		return fmt.Errorf("%d pruned, %v; want %d jobs and up to %d keys", a.v, a.err, jobs, keys)
	}
	return nil
}

type limitOp struct {
	l    queue.Limit
	drop bool
}

func (o limitOp) do(ctx context.Context, q *queue.Queue) any {
	if o.drop {
		return answer(struct{}{}, q.DropLimit(ctx, o.l.Scope, o.l.Name))
	}
	return answer(struct{}{}, q.SetLimit(ctx, o.l))
}

func (o limitOp) check(m *model, got any) error {
	if o.drop {
		return want(got, struct{}{}, m.setLimit(o.l.Scope, o.l.Name, nil))
	}
	return want(got, struct{}{}, m.setLimit(o.l.Scope, o.l.Name, &limit{o.l.MaxRunning, o.l.Interval.Milliseconds()}))
}

func (o limitOp) String() string {
	return fmt.Sprintf("{%s %s most=%s interval=%v drop=%v}", o.l.Scope, o.l.Name, value(o.l.MaxRunning), o.l.Interval, o.drop)
}

type pauseOp struct {
	name   string
	paused bool
}

func (o pauseOp) do(ctx context.Context, q *queue.Queue) any {
	if o.paused {
		return answer(struct{}{}, q.Pause(ctx, o.name))
	}
	return answer(struct{}{}, q.Resume(ctx, o.name))
}

func (o pauseOp) check(m *model, got any) error {
	m.pause(o.name, o.paused)
	return want(got, struct{}{}, nil)
}

// advanceOp moves the database's clock.
type advanceOp struct{ ms int64 }

func (o advanceOp) do(ctx context.Context, q *queue.Queue) any {
	var b libsql.Batch
	b.Exec("UPDATE test_clock SET ms = ms + ?", o.ms)
	_, err := q.DB().Write(ctx, &b)
	return answer(struct{}{}, err)
}

func (o advanceOp) check(m *model, got any) error {
	m.now += o.ms
	return want(got, struct{}{}, nil)
}

// lookOp only reads.
type lookOp struct{}

func (lookOp) do(ctx context.Context, q *queue.Queue) any { return answer(q.Look(ctx)) }

func (lookOp) check(m *model, got any) error {
	a := got.(answered[queue.Sight])
	expired := false
	for _, j := range m.jobs {
		expired = expired || j.state == job.Running && j.lease < m.now
	}
	if a.err != nil || a.v.Expired != expired {
		return fmt.Errorf("saw %+v, %v; expired leases: %v", a.v, a.err, expired)
	}
	return nil
}

// getOp reads one job.
type getOp struct{ id string }

func (o getOp) do(ctx context.Context, q *queue.Queue) any {
	j, err := q.Get(ctx, o.id)
	if err != nil {
		return answer("", err)
	}
	return answer(fmt.Sprint(j.State, j.Attempts, j.Failures, j.Crashes, value((*int64)(j.CancelRequestedAt))), nil)
}

func (o getOp) check(m *model, got any) error {
	j := m.jobs[o.id]
	if j == nil {
		return want(got, "", queue.ErrNotFound)
	}
	return want(got, fmt.Sprint(j.state, j.attempts, j.failures, j.crashes, value(j.cancel)), nil)
}

// rowsOp reads everything.
type rowsOp struct{}

func (rowsOp) do(ctx context.Context, q *queue.Queue) any { return answer(rows(ctx, q.DB())) }

func (rowsOp) check(m *model, got any) error {
	a := got.(answered[[]libsql.Result])
	if a.err != nil {
		return a.err
	}
	if wrong := m.compare(a.v); len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "\n"))
	}
	return nil
}
