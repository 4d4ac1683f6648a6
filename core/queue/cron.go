package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/postroom/postroom/core/cron"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
)

// ErrNoCron means that there is no schedule with the name.
var ErrNoCron = errors.New("no such schedule")

// CatchUp says what becomes of instants that passed while no runner worked.
type CatchUp string

const (
	// CatchUpOne stores one job, for the last of them.
	CatchUpOne CatchUp = "one"
	// CatchUpAll stores a job for each, the oldest first.
	CatchUpAll CatchUp = "all"
	// CatchUpNone stores one job for the last of them if it is no more than a
	// minute late, and otherwise none.
	CatchUpNone CatchUp = "none"
)

// CatchUps lists them all.
var CatchUps = []CatchUp{CatchUpOne, CatchUpAll, CatchUpNone}

// Overlap says what happens at an instant while the schedule's last job has
// not ended.
type Overlap string

const (
	// OverlapAllow stores another job.
	OverlapAllow Overlap = "allow"
	// OverlapSkip stores none; the instant is passed over.
	OverlapSkip Overlap = "skip"
)

// Overlaps lists them all.
var Overlaps = []Overlap{OverlapAllow, OverlapSkip}

// Cron is a schedule as the API shows it. Missing values are null.
type Cron struct {
	Name      string          `json:"name"`
	Schedule  string          `json:"schedule"`
	TZ        string          `json:"tz"`
	CatchUp   CatchUp         `json:"catch_up" enum:"one,all,none"`
	Overlap   Overlap         `json:"overlap" enum:"allow,skip"`
	Paused    bool            `json:"paused"`
	Type      string          `json:"type"`
	Queue     *string         `json:"queue"` // null for the type's
	Priority  int64           `json:"priority"`
	Payload   json.RawMessage `json:"payload"`
	NextAt    *job.Time       `json:"next_at"`     // null while it is paused
	LastTick  *job.Time       `json:"last_tick"`   // the last instant that was dealt with
	LastJobID *string         `json:"last_job_id"` // the last job that was stored for it
	CreatedAt job.Time        `json:"created_at"`
	UpdatedAt job.Time        `json:"updated_at"`
}

// NewCron is a schedule to be stored. Name, Schedule and Type are required.
type NewCron struct {
	Name     string          // up to 100 letters, digits, '.', '_' and '-'
	Schedule string          // five fields, a name such as @daily, or @every with a duration
	TZ       string          // the zone whose clocks the fields mean; UTC when empty
	CatchUp  CatchUp         // CatchUpOne when empty
	Overlap  Overlap         // OverlapAllow when empty
	Type     string          // of its jobs
	Queue    string          // of its jobs; the type's when empty
	Priority int             // of its jobs
	Payload  json.RawMessage // of its jobs; nil is null
}

var cronName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// Check fills in what was left out and refuses what cannot be stored.
func (n *NewCron) Check(types job.Types) error {
	_, err := n.check(types)
	return err
}

func (n *NewCron) check(types job.Types) (cron.Schedule, error) {
	if n.TZ == "" {
		n.TZ = "UTC"
	}
	if n.CatchUp == "" {
		n.CatchUp = CatchUpOne
	}
	if n.Overlap == "" {
		n.Overlap = OverlapAllow
	}
	invalid := func(field, reason string) error { return &job.Invalid{Field: field, Code: "invalid", Reason: reason} }
	if !cronName.MatchString(n.Name) {
		return cron.Schedule{}, invalid("name", "must be 1 to 100 letters, digits, '.', '_' or '-', the first a letter or a digit")
	}
	s, err := parseCron(n.Schedule, n.TZ)
	if err != nil {
		return s, err
	}
	n.Schedule = s.String()
	switch {
	case !slices.Contains(CatchUps, n.CatchUp):
		return s, invalid("catch_up", `must be "one", "all" or "none"`)
	case !slices.Contains(Overlaps, n.Overlap):
		return s, invalid("overlap", `must be "allow" or "skip"`)
	case n.CatchUp == CatchUpAll && n.Overlap == OverlapSkip:
		return s, invalid("overlap", `must not be "skip" together with catch_up "all": the jobs of missed instants are stored at once, so all but one would be skipped`)
	}
	j := job.New{Type: n.Type, Queue: n.Queue, Priority: n.Priority, Payload: n.Payload}
	if err := j.Check(types); err != nil {
		return s, err
	}
	n.Payload = j.Payload
	return s, nil
}

// parseCron reads a schedule in a time zone.
func parseCron(schedule, tz string) (cron.Schedule, error) {
	zone, err := cron.Zone(tz)
	if err != nil {
		return cron.Schedule{}, &job.Invalid{Field: "tz", Code: "invalid", Reason: err.Error()}
	}
	s, err := cron.Parse(schedule, zone)
	if err != nil {
		return s, &job.Invalid{Field: "schedule", Code: "invalid", Reason: err.Error()}
	}
	return s, nil
}

// SetCron stores a schedule or replaces the one of this name, and says whether
// it is new. Its first instant is the first after now. A schedule that is
// replaced keeps where it stands, and whether it is paused, unless its
// schedule or zone is another one. It is safe to repeat.
func (q *Queue) SetCron(ctx context.Context, n NewCron) (c *Cron, created bool, err error) {
	s, err := n.check(q.types)
	if err != nil {
		return nil, false, err
	}
	var queue any
	if n.Queue != "" {
		queue = n.Queue
	}
	for {
		now, err := q.clock(ctx)
		if err != nil {
			return nil, false, fmt.Errorf("set schedule %s: %w", n.Name, err)
		}
		next := s.Next(now.Time()).UnixMilli()
		var b libsql.Batch
		b.Guard(sqlCronSetGuard, next)
		exists := b.Query(sqlCronExists, n.Name)
		b.Exec(sqlCronSet, n.Name, n.Schedule, n.TZ, string(n.CatchUp), string(n.Overlap), n.Type, queue, n.Priority, string(n.Payload), next, q.NewToken())
		res, err := q.db.Write(ctx, &b)
		if libsql.GuardIndex(err) == 0 {
			continue
		}
		if err != nil {
			return nil, false, fmt.Errorf("set schedule %s: %w", n.Name, err)
		}
		c, err = q.Cron(ctx, n.Name)
		return c, !res[exists].Rows[0].Bool(0), err
	}
}

// clock is the database's.
func (q *Queue) clock(ctx context.Context) (job.Time, error) {
	res, err := q.db.Read(ctx, libsql.Query("SELECT ms FROM db_clock"))
	if err != nil {
		return 0, err
	}
	return job.Time(res[0].Rows[0].Int(0)), nil
}

// Cron returns one schedule.
func (q *Queue) Cron(ctx context.Context, name string) (*Cron, error) {
	r, err := q.readCron(ctx, name)
	if err != nil {
		return nil, err
	}
	return &r.Cron, nil
}

// Crons lists up to limit schedules behind the given name, in the order of
// their names; next is "" or what to go on behind.
func (q *Queue) Crons(ctx context.Context, behind string, limit int) (list []Cron, next string, err error) {
	res, err := q.db.Read(ctx, libsql.Query(sqlCronList, behind, limit+1))
	if err != nil {
		return nil, "", fmt.Errorf("list schedules: %w", err)
	}
	list = []Cron{}
	for i, r := range res[0].Rows {
		if i == limit {
			return list, list[i-1].Name, nil
		}
		list = append(list, cronRow(r))
	}
	return list, "", nil
}

// DeleteCron removes a schedule; its jobs stay.
func (q *Queue) DeleteCron(ctx context.Context, name string) error {
	var b libsql.Batch
	n := b.Query(sqlCronDelete, name)
	res, err := q.db.Write(ctx, &b)
	if err == nil && len(res[n].Rows) == 0 {
		err = ErrNoCron
	}
	if err != nil {
		return fmt.Errorf("delete schedule %s: %w", name, err)
	}
	return nil
}

// PauseCron stops a schedule. Pausing a paused one changes nothing.
func (q *Queue) PauseCron(ctx context.Context, name string) (*Cron, error) {
	return q.pauseCron(ctx, name, true)
}

// ResumeCron starts a paused schedule again. The instants that passed in
// between are not caught up: they were not wanted.
func (q *Queue) ResumeCron(ctx context.Context, name string) (*Cron, error) {
	return q.pauseCron(ctx, name, false)
}

func (q *Queue) pauseCron(ctx context.Context, name string, paused bool) (*Cron, error) {
	err := q.changeCron(ctx, name, func(r *storedCron) (*Batch, error) {
		if r.Paused == paused {
			return nil, nil
		}
		next := r.next
		if !paused && next <= r.now {
			s, err := parseCron(r.Schedule, r.TZ)
			if err != nil {
				return nil, err
			}
			next = job.At(s.Next(s.Last(next.Time(), r.now.Time())))
		}
		b := q.NewBatch(ctx)
		b.Guard(sqlCronGuard, name, r.revision, 0)
		b.Exec(sqlCronPause, paused, int64(next), q.NewToken(), name)
		return b, nil
	})
	if err != nil {
		return nil, err
	}
	return q.Cron(ctx, name)
}

// TriggerCron stores a job of the schedule now and leaves its instants alone;
// a paused one can be triggered, too. With OverlapSkip the last job stands for
// it, as a duplicate, while it has not ended.
func (q *Queue) TriggerCron(ctx context.Context, name string) (Enqueued, error) {
	var out Enqueued
	err := q.changeCron(ctx, name, func(r *storedCron) (*Batch, error) {
		if r.Overlap == OverlapSkip && r.active {
			out = Enqueued{ID: *r.LastJobID, Duplicate: true}
			return nil, nil
		}
		b := q.NewBatch(ctx)
		b.Guard(sqlCronGuard, name, r.revision, 0)
		out = Enqueued{ID: b.Enqueue(r.job())}
		b.Exec(sqlCronTriggered, out.ID, q.NewToken(), name)
		return b, nil
	})
	return out, err
}

// changeCron reads the schedule and applies the batch that change makes of it,
// whose first statement is its guard. If it was changed in between, both are
// done again. A nil batch is no change.
func (q *Queue) changeCron(ctx context.Context, name string, change func(*storedCron) (*Batch, error)) error {
	for {
		r, err := q.readCron(ctx, name)
		if err != nil {
			return err
		}
		b, err := change(r)
		if err != nil || b == nil {
			return err
		}
		if _, err = q.Write(ctx, b); libsql.GuardIndex(err) == 0 {
			continue
		}
		if err != nil {
			return fmt.Errorf("change schedule %s: %w", name, err)
		}
		return nil
	}
}

// Coming lists the next n instants, as the zone's clocks show them; none of a
// paused schedule.
func (c *Cron) Coming(n int) ([]time.Time, error) {
	if c.NextAt == nil {
		return nil, nil
	}
	s, err := parseCron(c.Schedule, c.TZ)
	if err != nil {
		return nil, err
	}
	zone, err := cron.Zone(c.TZ)
	if err != nil {
		return nil, err
	}
	out := make([]time.Time, n)
	for i, at := 0, c.NextAt.Time(); i < n; i, at = i+1, s.Next(at) {
		out[i] = at.In(zone)
	}
	return out, nil
}

// storedCron is a row with what only this package needs of it.
type storedCron struct {
	Cron
	next     job.Time // also while it is paused
	revision string
	active   bool     // its last job has not ended
	now      job.Time // the database's, when the row was read
}

// job is what the schedule stores.
func (r *storedCron) job() job.New {
	n := job.New{Type: r.Type, Priority: int(r.Priority), Payload: r.Payload}
	if r.Queue != nil {
		n.Queue = *r.Queue
	}
	return n
}

func (q *Queue) readCron(ctx context.Context, name string) (*storedCron, error) {
	res, err := q.db.Read(ctx, libsql.Query(sqlCronGet, name))
	if err == nil && len(res[0].Rows) == 0 {
		err = ErrNoCron
	}
	if err != nil {
		return nil, fmt.Errorf("get schedule %s: %w", name, err)
	}
	row := res[0].Rows[0]
	return &storedCron{
		Cron: cronRow(row), next: job.Time(row.Int(10)), revision: row.Str(15), active: row.Bool(16), now: job.Time(row.Int(17)),
	}, nil
}

// cronRow reads a row of cronColumns.
func cronRow(r libsql.Row) Cron {
	c := Cron{
		Name: r.Str(0), Schedule: r.Str(1), TZ: r.Str(2), CatchUp: CatchUp(r.Str(3)), Overlap: Overlap(r.Str(4)), Paused: r.Bool(5),
		Type: r.Str(6), Queue: textPtr(r, 7), Priority: r.Int(8), Payload: raw(r, 9), LastTick: timePtr(r, 11),
		LastJobID: textPtr(r, 12), CreatedAt: job.Time(r.Int(13)), UpdatedAt: job.Time(r.Int(14)),
	}
	if !c.Paused {
		c.NextAt = timePtr(r, 10)
	}
	return c
}
