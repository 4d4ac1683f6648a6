package queue

import (
	"context"
	"fmt"
	"slices"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
)

// Change is what somebody does to jobs by hand.
type Change struct {
	name   string
	states []string // in which a job allows it
	stmts  []string // of the ids; the last one returns what was changed
	held   string   // counts those that were not, because of their key
	wakes  bool     // afterwards there may be something to claim
}

// The changes by hand.
var (
	// ToCancel ends queued jobs and asks running ones to stop.
	ToCancel = Change{name: "cancel", states: names(job.Queued, job.Running), stmts: []string{sqlCancelKey, sqlCancel}}
	// ToRetry puts failed and canceled jobs back into their queues with fresh
	// budgets. Finished steps are not run again. A job takes its key again, for
	// as long as it is active.
	ToRetry = Change{name: "retry", states: names(job.Failed, job.Canceled), stmts: []string{sqlRetryKey, sqlRetry}, held: sqlRetryHeld, wakes: true}
	// ToDelete deletes jobs that have ended, as retention does later.
	ToDelete = Change{name: "delete", states: names(job.Completed, job.Failed, job.Canceled), stmts: []string{sqlDelete}}

	toRunNow = Change{name: "run now", states: names(job.Queued), stmts: []string{sqlRunNow}, wakes: true}
)

func names(states ...job.State) []string {
	list := make([]string, len(states))
	for i, s := range states {
		list[i] = string(s)
	}
	return list
}

// record records the change of the jobs with these ids and returns the place
// of the rows of those that were changed.
func (c Change) record(b *Batch, ids ...string) (changed int) {
	for _, sql := range c.stmts[:len(c.stmts)-1] {
		b.Exec(sql, jsonList(ids))
	}
	return b.Query(c.stmts[len(c.stmts)-1], jsonList(ids))
}

// changeOne makes a change and returns the job as it is then, and whether it
// was changed.
func (q *Queue) changeOne(ctx context.Context, c Change, id string) (j job.Job, changed bool, err error) {
	b := q.NewBatch(ctx)
	n := c.record(b, id)
	now := b.Query(sqlGet, id)
	res, err := q.Write(ctx, b)
	if err == nil && len(res[now].Rows) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return j, false, fmt.Errorf("%s job %s: %w", c.name, id, err)
	}
	j, _ = jobRow(res[now].Rows[0])
	changed = len(res[n].Rows) > 0
	if changed && c.wakes {
		q.signal()
	}
	return j, changed, nil
}

func refuse(c Change, j job.Job, err error) error {
	return fmt.Errorf("%s job %s, which is %s: %w", c.name, j.ID, j.State, err)
}

// Cancel ends a queued job at once and asks a running one to stop. Canceling
// a canceled job changes nothing.
func (q *Queue) Cancel(ctx context.Context, id string) (*job.Job, error) {
	j, changed, err := q.changeOne(ctx, ToCancel, id)
	switch {
	case err != nil:
		return nil, err
	case !changed && j.State != job.Canceled:
		return nil, refuse(ToCancel, j, ErrInvalidState)
	}
	return &j, nil
}

// Retry is [ToRetry] for one job.
func (q *Queue) Retry(ctx context.Context, id string) (*job.Job, error) {
	j, changed, err := q.changeOne(ctx, ToRetry, id)
	switch {
	case err != nil:
		return nil, err
	case !changed && slices.Contains(ToRetry.states, string(j.State)):
		return nil, refuse(ToRetry, j, ErrKeyInUse)
	case !changed:
		return nil, refuse(ToRetry, j, ErrInvalidState)
	}
	return &j, nil
}

// Delete is [ToDelete] for one job.
func (q *Queue) Delete(ctx context.Context, id string) error {
	j, err := q.Get(ctx, id)
	if err != nil {
		return err
	}
	b := q.NewBatch(ctx)
	n := ToDelete.record(b, id)
	switch res, err := q.Write(ctx, b); {
	case err != nil:
		return fmt.Errorf("delete job %s: %w", id, err)
	case len(res[n].Rows) == 0:
		return refuse(ToDelete, *j, ErrInvalidState)
	}
	return nil
}

// RunNow makes a queued job that waits for its time due. One that is due
// already stays as it is; one that waits for other jobs is refused.
func (q *Queue) RunNow(ctx context.Context, id string) (*job.Job, error) {
	j, changed, err := q.changeOne(ctx, toRunNow, id)
	if err != nil {
		return nil, err
	}
	if !changed {
		res, err := q.db.Read(ctx, libsql.Query(sqlIsDue, id))
		if err != nil {
			return nil, fmt.Errorf("run job %s now: %w", id, err)
		}
		if len(res[0].Rows) == 0 {
			return nil, refuse(toRunNow, j, ErrInvalidState)
		}
	}
	return &j, nil
}

// changeBatch is how many jobs one transaction of ChangeMany changes: others
// write in between.
const changeBatch = 500

// Changed is what became of a change of many jobs.
type Changed struct {
	Matched int64 // jobs that the filter chose and whose state allowed the change
	Changed int64
	// Skipped are those of them that stay as they are: KeyInUse because
	// another job has their key, Moved because their state had changed
	// meanwhile.
	KeyInUse, Moved int64
	Next            int64 // the cursor to go on from; 0 when all jobs were looked at
}

// ChangeMany makes a change to the jobs that f chooses and whose state allows
// it, the newest first, from a cursor on: as far as a list looks in one call.
// With dryRun it only says which there are. An error means that nothing was
// changed; what fails later than that ends the call where it stands.
func (q *Queue) ChangeMany(ctx context.Context, c Change, f Filter, cursor int64, dryRun bool) (Changed, error) {
	states := c.states
	if f.State != "" {
		if !slices.Contains(states, f.State) {
			return Changed{}, &job.Invalid{Field: "state", Code: "invalid", Reason: fmt.Sprintf("%s jobs are none to %s", f.State, c.name)}
		}
		states = f.states()
	}
	rows, seen, err := q.list(ctx, sqlPlaces, sqlPlacesGiven, f, states, listWindow, cursor)
	if err != nil {
		return Changed{}, fmt.Errorf("%s jobs: %w", c.name, err)
	}
	if dryRun {
		return Changed{Matched: int64(len(rows)), Next: seen}, nil
	}
	var out Changed
	for part := range slices.Chunk(rows, changeBatch) {
		switch err := q.changePart(ctx, c, part, &out); {
		case err != nil && out.Matched == 0:
			return Changed{}, fmt.Errorf("%s jobs: %w", c.name, err)
		case err != nil:
			return out, nil // whoever goes on from there is told
		}
		out.Next = part[len(part)-1].Int(0)
	}
	out.Next = seen
	return out, nil
}

func (q *Queue) changePart(ctx context.Context, c Change, places []libsql.Row, out *Changed) error {
	ids := make([]string, len(places))
	for i, r := range places {
		ids[i] = r.Str(1)
	}
	b := q.NewBatch(ctx)
	n, held := c.record(b, ids...), -1
	if c.held != "" {
		held = b.Query(c.held, jsonList(ids))
	}
	res, err := q.Write(ctx, b)
	if err != nil {
		return err
	}
	matched, changed, inUse := int64(len(ids)), int64(len(res[n].Rows)), int64(0)
	if held >= 0 {
		inUse = res[held].Rows[0].Int(0)
	}
	out.Matched += matched
	out.Changed += changed
	out.KeyInUse += inUse
	out.Moved += matched - changed - inUse
	if changed > 0 && c.wakes {
		q.signal()
	}
	return nil
}
