package queue_test

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
)

// model is the queue as docs/lifecycle.md tells it, without a database: maps
// and plain rules, written from that page and not from the SQL. Where the page
// leaves a choice (which jobs of a limited key stand in line) the model judges
// what the queue chose and takes it over.
type model struct {
	now    int64
	stored int64 // jobs so far
	jobs   map[string]*modelJob
	keys   map[[2]string]hold // by type and key
	queues map[string]bool    // whether each is paused
	limits map[[2]string]limit
	next   map[string]int64 // of a limit key: before when no job of it may start

	// crowd says that others are at work at the same time. A claim looks before
	// it writes, so it may not see what has just become claimable: only what
	// stood in line before the crowd came must not be left behind.
	crowd bool
}

// modelJob is a row of jobs with what belongs to it.
type modelJob struct {
	job.New
	seq      int64
	state    job.State
	created  int64
	due      *int64 // not_before
	attempts int64
	failures int64
	crashes  int64
	claims   int64

	token     string
	runner    string
	lease     int64 // its end, while running
	started   int64
	heartbeat *int64
	cancel    *int64 // when that was asked for
	finished  *int64

	waits bool
	after map[string]job.State // how each ended; "" while it has not
	marks map[string]bool      // which of them ended since somebody looked
	solo  int
	keyed bool // its key had a limit at some time since it was last queued
	lined bool // it stands in line since before the crowd came

	result string
	err    *string
	runs   []modelRun
	log    []job.State
}

type modelRun struct {
	number            int64
	runner            string
	outcome           string
	started, finished int64
}

type hold struct {
	job     string
	scope   job.Scope
	expires int64 // of scope until
}

type limit struct {
	most     *int64
	interval int64
}

// pruned is the end of a job that is no longer stored.
const pruned job.State = "pruned"

func newModel(now int64) *model {
	return &model{
		now: now, jobs: map[string]*modelJob{}, keys: map[[2]string]hold{}, queues: map[string]bool{},
		limits: map[[2]string]limit{}, next: map[string]int64{},
	}
}

func (m *model) clone() *model {
	c := *m
	c.jobs = make(map[string]*modelJob, len(m.jobs))
	for id, j := range m.jobs {
		copied := *j
		copied.after, copied.marks = maps.Clone(j.after), maps.Clone(j.marks)
		copied.runs, copied.log = slices.Clone(j.runs), slices.Clone(j.log)
		c.jobs[id] = &copied
	}
	c.keys, c.queues, c.limits, c.next = maps.Clone(m.keys), maps.Clone(m.queues), maps.Clone(m.limits), maps.Clone(m.next)
	return &c
}

// inOrder are the jobs in the order of storing.
func (m *model) inOrder() []*modelJob {
	return slices.SortedFunc(maps.Values(m.jobs), func(a, b *modelJob) int { return cmp.Compare(a.seq, b.seq) })
}

// enter moves a job into a state.
func (m *model) enter(j *modelJob, s job.State) {
	j.state = s
	j.log = append(j.log, s)
	j.lined = false
	j.runner, j.lease = "", 0
	j.finished = nil
	if !s.Final() {
		return
	}
	j.finished = at(m.now)
	j.waits, j.solo = false, 0
	if k := [2]string{j.Type, j.Key}; j.Key != "" && m.keys[k].job == j.ID && m.keys[k].scope == job.ScopeActive {
		delete(m.keys, k)
	}
	m.tell(j.ID, s)
}

// tell writes how a job ended into those that come after it.
func (m *model) tell(id string, end job.State) {
	for _, w := range m.jobs {
		if _, comes := w.after[id]; comes {
			w.after[id], w.marks[id] = end, end != ""
		}
	}
}

func at(ms int64) *int64 { return &ms }

// enqueue is transition 1 for several jobs, all or none. Of those that a
// handler hands over, one with the id of another type's is left out, and a job
// to come after that is not stored counts as pruned.
func (m *model) enqueue(list []job.New, handedOver bool) ([]queue.Enqueued, error) {
	trial := m.clone()
	var out []queue.Enqueued
	var problem error
	standsFor := map[string]string{} // of the jobs of this call
	for i, n := range list {
		e, err := trial.enqueueOne(n, standsFor, handedOver)
		if slices.ContainsFunc(list[:i], func(o job.New) bool { return o.ID == n.ID && o.Type != n.Type }) {
			err = queue.ErrIDInUse
		}
		switch {
		case err == nil:
			standsFor[n.ID] = e.ID
		case !handedOver && (problem == nil || errors.Is(err, queue.ErrIDInUse)):
			problem = err
		}
		out = append(out, e)
	}
	if problem != nil {
		return nil, problem
	}
	for i, e := range out { // the answer is given when all are stored
		out[i].Pruned = e.Duplicate && trial.jobs[e.ID] == nil
	}
	*m = *trial
	return out, nil
}

var errUnknownAfter = errors.New("comes after a job that is not stored")

func (m *model) enqueueOne(n job.New, standsFor map[string]string, handedOver bool) (queue.Enqueued, error) {
	if err := n.Check(job.Known()); err != nil {
		return queue.Enqueued{}, err
	}
	if j := m.jobs[n.ID]; j != nil {
		if j.Type != n.Type {
			return queue.Enqueued{}, queue.ErrIDInUse
		}
		return queue.Enqueued{ID: n.ID}, nil
	}
	after, marks := map[string]job.State{}, map[string]bool{}
	for _, id := range n.After {
		holder, here := standsFor[id]
		if here {
			id = holder // of its key
		}
		other := m.jobs[id]
		switch {
		case other == nil && !here && !handedOver:
			return queue.Enqueued{}, errUnknownAfter
		case other == nil:
			after[id] = pruned
		case other.state.Final():
			after[id] = other.state
		default:
			after[id] = ""
		}
		marks[id] = after[id] != ""
	}
	if n.Key != "" {
		if h, held := m.held(n.Type, n.Key); held && h.job != n.ID {
			return queue.Enqueued{ID: h.job, Duplicate: true, Pruned: m.jobs[h.job] == nil}, nil
		} else if !held {
			m.keys[[2]string{n.Type, n.Key}] = hold{n.ID, n.KeyScope, m.now + n.KeyTTL.Milliseconds()}
		}
	}
	m.stored++
	j := &modelJob{New: n, seq: m.stored, state: job.Queued, created: m.now, after: after, marks: marks, waits: len(after) > 0, log: []job.State{job.Queued}}
	switch {
	case !n.NotBefore.IsZero():
		j.due = at(n.NotBefore.UnixMilli())
	case n.Delay > 0:
		j.due = at(m.now + n.Delay.Milliseconds())
	}
	m.jobs[n.ID] = j
	if _, known := m.queues[n.Queue]; !known {
		m.queues[n.Queue] = false
	}
	j.keyed = m.takesTurns(j)
	return queue.Enqueued{ID: n.ID}, nil
}

// How the errors begin of a job that was canceled with another, and of one
// that was poisoned.
const (
	comesAfter  = "it was to come after job "
	wasPoisoned = "poisoned: "
)

// lineUp is transitions 4 and 5, for the jobs that were marked before: what it
// cancels marks others for the next time.
func (m *model) lineUp() {
	var marked []*modelJob
	for _, j := range m.jobs {
		if slices.Contains(slices.Collect(maps.Values(j.marks)), true) {
			marked = append(marked, j)
			clear(j.marks)
		}
	}
	ended := func(j *modelJob) (open, bad, gone bool) {
		for _, end := range j.after {
			open = open || end == ""
			bad = bad || end != "" && end != job.Completed
			gone = gone || end == pruned
		}
		return open, bad, gone
	}
	var canceled []*modelJob
	for _, j := range marked {
		if _, bad, gone := ended(j); j.waits && (j.AfterFailure == job.AfterCancel && bad || j.AfterFailure == job.AfterWait && gone) {
			canceled = append(canceled, j)
		}
	}
	for _, j := range canceled {
		m.enter(j, job.Canceled)
		why := comesAfter
		j.err = &why
	}
	for _, j := range marked {
		if open, bad, _ := ended(j); !open && (!bad || j.AfterFailure == job.AfterRun) {
			j.waits = false
		}
	}
}

// natural is the place in line that a job has by priority and age.
func (j *modelJob) natural() int64 {
	since := j.created
	if j.due != nil {
		since = max(since, *j.due)
	}
	return since - int64(j.Priority)*30_000
}

// latest is the last place in line that a job may have been given: the age of
// one with a limited key counts from when the key had room for it.
func (m *model) latest(j *modelJob) int64 {
	if !j.keyed {
		return j.natural()
	}
	return max(j.natural(), m.now-int64(max(j.Priority, 0))*30_000)
}

// behind says that a stands behind b in line for sure.
func (m *model) behind(a, b *modelJob) bool {
	if !a.keyed && !b.keyed && a.natural() == b.natural() {
		return a.seq > b.seq
	}
	return a.natural() > m.latest(b)
}

func (m *model) keyLimit(j *modelJob) (limit, bool) {
	if j.LimitKey == "" {
		return limit{}, false
	}
	l, has := m.limits[[2]string{queue.LimitKey, j.LimitKey}]
	if !has {
		l, has = m.limits[[2]string{queue.LimitKey, queue.EachKey}]
	}
	return l, has
}

// limited says that there is a limit which j falls under.
func (m *model) limited(j *modelJob) bool {
	_, key := m.keyLimit(j)
	_, of := m.limits[[2]string{queue.LimitQueue, j.Queue}]
	_, typ := m.limits[[2]string{queue.LimitType, j.Type}]
	return key || of || typ
}

// full says that a limit keeps j from starting while the others of its queue,
// type and key run, and the taken ones with them.
func (m *model) full(j *modelJob, taken []*modelJob) bool {
	reached := func(l limit, same func(o *modelJob) bool) bool {
		if l.most == nil {
			return false
		}
		n := int64(0)
		for _, o := range m.jobs {
			if same(o) && (o.state == job.Running || slices.Contains(taken, o)) {
				n++
			}
		}
		return n >= *l.most
	}
	sameKey := func(o *modelJob) bool { return o.LimitKey == j.LimitKey }
	if l, has := m.limits[[2]string{queue.LimitQueue, j.Queue}]; has && reached(l, func(o *modelJob) bool { return o.Queue == j.Queue }) {
		return true
	}
	if l, has := m.limits[[2]string{queue.LimitType, j.Type}]; has && reached(l, func(o *modelJob) bool { return o.Type == j.Type }) {
		return true
	}
	l, has := m.keyLimit(j)
	return has && (reached(l, sameKey) || m.next[j.LimitKey] > m.now || l.interval > 0 && slices.ContainsFunc(taken, sameKey))
}

// mayRun says that a job could start if there were room, for one who asks.
func (m *model) mayRun(j *modelJob, r queue.ClaimRequest) bool {
	return j.state == job.Queued && !j.waits && (j.due == nil || *j.due <= m.now) && !m.queues[j.Queue] &&
		slices.Contains(r.Types, j.Type) && (r.Queues == nil || slices.Contains(r.Queues, j.Queue))
}

// start makes a job running.
func (m *model) start(j *modelJob, r queue.ClaimRequest) {
	m.enter(j, job.Running)
	j.attempts++
	j.claims++
	j.token, j.runner, j.lease, j.started, j.heartbeat = r.Token, r.Runner, m.now+r.Lease.Milliseconds(), m.now, at(m.now)
	if l, has := m.keyLimit(j); has && l.interval > 0 {
		m.next[j.LimitKey] = m.now + l.interval
	}
	j.keyed = false
}

// claim is transition 6: it judges what the queue gave out. again says that the
// claim is to be made again at once, because it may not have brought all that
// limits leave room for.
func (m *model) claim(r queue.ClaimRequest, got []queue.Claimed, again bool) error {
	m.lineUp()
	if len(got) > r.Limit {
		return fmt.Errorf("%d jobs, and %d were asked for", len(got), r.Limit)
	}
	var taken []*modelJob
	for _, c := range got {
		j := m.jobs[c.JobID]
		switch {
		case j == nil || !m.mayRun(j, r) || j.solo > 0 || slices.Contains(taken, j):
			return fmt.Errorf("%s may not run", c.JobID)
		case m.full(j, taken):
			return fmt.Errorf("%s goes beyond a limit", c.JobID)
		case len(taken) > 0 && m.behind(taken[len(taken)-1], j):
			return fmt.Errorf("%s comes out of order", c.JobID)
		}
		if err := m.same(j, c, r); err != nil {
			return err
		}
		taken = append(taken, j)
	}
	for _, j := range m.inOrder() {
		if !m.mayRun(j, r) || j.solo > 0 || slices.Contains(taken, j) || m.crowd && (!j.lined || m.limited(j)) {
			continue
		}
		var before []*modelJob
		overtaken := false
		for _, o := range taken {
			if m.behind(o, j) {
				overtaken = true
			} else {
				before = append(before, o)
			}
		}
		switch {
		case m.full(j, before):
		case overtaken && (!again || !m.limited(j)):
			return fmt.Errorf("%s was overtaken", j.ID)
		case len(taken) < r.Limit && (len(taken) == 0 || !again):
			return fmt.Errorf("%s was left behind", j.ID)
		}
	}
	for _, j := range taken {
		m.start(j, r)
	}
	return nil
}

// same compares what a claim says of a job.
func (m *model) same(j *modelJob, c queue.Claimed, r queue.ClaimRequest) error {
	want := queue.Claimed{
		Lease: queue.Lease{JobID: j.ID, Seq: c.Seq, Token: r.Token}, Type: j.Type, Queue: j.Queue, Priority: int64(j.Priority), Attempt: j.attempts + 1,
		MaxAttempts: int64(j.MaxAttempts), Failures: j.failures, Run: j.claims + 1, Payload: j.Payload, Key: j.Key, Deadline: c.Deadline,
		Waited: time.Duration(m.now-j.natural()-int64(j.Priority)*30_000) * time.Millisecond,
	}
	if fmt.Sprintf("%+v", c) != fmt.Sprintf("%+v", want) {
		return fmt.Errorf("claimed as %+v, want %+v", c, want)
	}
	return nil
}

// claimSolo is transition 7.
func (m *model) claimSolo(r queue.ClaimRequest, got *queue.Claimed) error {
	for _, j := range m.inOrder() {
		may := m.mayRun(j, r) && j.solo == 1 && !m.full(j, nil)
		_, limited := m.keyLimit(j)
		switch {
		case may && got == nil && limited && m.next[j.LimitKey] > 0:
			// That the key's next start may come is noted by a claim first.
		case may && got == nil:
			return fmt.Errorf("%s was left behind", j.ID)
		case got == nil || got.JobID != j.ID:
		case !may:
			return fmt.Errorf("%s may not run alone", j.ID)
		default:
			if err := m.same(j, *got, r); err != nil {
				return err
			}
			m.start(j, r)
			return nil
		}
	}
	if got != nil {
		return fmt.Errorf("%s is not stored", got.JobID)
	}
	return nil
}

// holder is the job that the lease still holds.
func (m *model) holder(l queue.Lease) *modelJob {
	if j := m.jobs[l.JobID]; j != nil && j.state == job.Running && j.token == l.Token {
		return j
	}
	return nil
}

// landed says whether the job's run was ended under this lease.
func (m *model) landed(l queue.Lease) bool {
	j := m.jobs[l.JobID]
	return j != nil && j.state != job.Running && j.token == l.Token
}

// finish is transitions 10 to 16.
func (m *model) finish(l queue.Lease, o queue.Outcome) (job.State, error) {
	j := m.holder(l)
	if j == nil {
		switch {
		case !m.landed(l):
			return "", queue.ErrLeaseLost
		case o.Kind == queue.Completed: // whatever has become of it since
			return job.Completed, nil
		}
		return m.jobs[l.JobID].state, nil
	}
	end := string(o.Kind)
	switch {
	case o.Kind == queue.Completed:
	case j.cancel != nil:
		end = "canceled"
	case o.Kind == queue.Fatal:
		end = "failed"
	case o.Kind == queue.Failed && j.failures+1 < int64(j.MaxAttempts):
		end = "retried"
	}
	if last := len(j.runs) - 1; o.Kind == queue.Snoozed && last >= 0 && j.runs[last].outcome == "snoozed" && j.runs[last].number == j.claims-1 {
		j.runs = j.runs[:last] // of consecutive snoozed runs only the last is kept
	}
	m.ended(j, end)
	switch end {
	case "completed":
		m.enter(j, job.Completed)
		j.result = string(o.Result)
	case "canceled":
		m.enter(j, job.Canceled)
	case "failed", "retried":
		j.failures++
		j.err = nil
		if o.Error != "" {
			j.err = &o.Error
		}
		if end == "failed" {
			m.enter(j, job.Failed)
			break
		}
		m.wait(j, o.Delay.Milliseconds())
		j.solo = 0
	case "snoozed":
		j.attempts--
		j.crashes = 0
		m.wait(j, o.Delay.Milliseconds())
		j.solo = 0
	case "handed_back":
		j.attempts--
		due := j.due
		m.wait(j, o.Delay.Milliseconds())
		if j.solo = min(j.solo, 1); j.solo == 0 {
			j.due = due
		}
	}
	return j.state, nil
}

// wait puts a job back until later.
func (m *model) wait(j *modelJob, ms int64) {
	m.enter(j, job.Queued)
	j.due = at(m.now + ms)
	j.keyed = m.takesTurns(j)
}

// takesTurns says that the key of j has a limit, or still has jobs in line from
// when it had one.
func (m *model) takesTurns(j *modelJob) bool {
	_, has := m.keyLimit(j)
	for _, o := range m.jobs {
		has = has || j.LimitKey != "" && o.LimitKey == j.LimitKey && o.keyed && o.state == job.Queued
	}
	return has
}

func (m *model) ended(j *modelJob, outcome string) {
	j.runs = append(j.runs, modelRun{j.claims, j.runner, outcome, j.started, m.now})
}

// rescue is transitions 17 to 19: it judges what was taken back.
func (m *model) rescue(got []queue.Rescued) error {
	n := 0
	for _, j := range m.inOrder() {
		if j.state != job.Running || j.lease >= m.now {
			continue
		}
		n++
		i := slices.IndexFunc(got, func(r queue.Rescued) bool { return r.ID == j.ID })
		if i < 0 {
			return fmt.Errorf("%s was not rescued", j.ID)
		}
		m.takeBack(j)
		if r := got[i]; r.Type != j.Type || r.State != j.state || r.Crashes != j.crashes || r.Solo != (j.solo == 1) {
			return fmt.Errorf("rescued as %+v, want %s after %d crashes, alone: %d", r, j.state, j.crashes, j.solo)
		}
	}
	if n != len(got) {
		return fmt.Errorf("%d jobs were rescued, want %d", len(got), n)
	}
	return nil
}

func (m *model) takeBack(j *modelJob) {
	delay := min(300_000, int64(2000)<<min(j.crashes, 16))
	alone := j.solo
	switch alone {
	case 1: // it was only reserved
		j.attempts--
		m.ended(j, "handed_back")
	case 2:
		j.crashes++
		m.ended(j, "poisoned")
	default:
		j.crashes++
		m.ended(j, "rescued")
	}
	switch {
	case j.cancel != nil:
		m.enter(j, job.Canceled)
	case alone == 2:
		m.enter(j, job.Failed)
		why := wasPoisoned
		j.err = &why
	default:
		m.wait(j, delay)
		if j.crashes >= 3 {
			j.solo = 1
		}
	}
	j.token = ""
}

// cancelJob is transitions 20 and 21.
func (m *model) cancelJob(id string) error {
	j := m.jobs[id]
	switch {
	case j == nil:
		return queue.ErrNotFound
	case j.state == job.Canceled:
		return nil
	case j.state.Final():
		return queue.ErrInvalidState
	}
	if j.cancel == nil {
		j.cancel = at(m.now)
	}
	if j.state == job.Queued {
		m.enter(j, job.Canceled)
	}
	return nil
}

// retry is transition 22.
func (m *model) retry(id string) error {
	j := m.jobs[id]
	switch {
	case j == nil:
		return queue.ErrNotFound
	case j.state != job.Failed && j.state != job.Canceled:
		return queue.ErrInvalidState
	}
	if j.Key != "" {
		switch h, held := m.held(j.Type, j.Key); {
		case held && h.job != id:
			return queue.ErrKeyInUse
		case !held:
			m.keys[[2]string{j.Type, j.Key}] = hold{job: id, scope: job.ScopeActive}
		}
	}
	m.wait(j, 0)
	j.failures, j.crashes, j.cancel, j.token = 0, 0, nil, ""
	m.tell(id, "")
	return nil
}

// runNow is transition 23, by hand.
func (m *model) runNow(id string) error {
	j := m.jobs[id]
	switch {
	case j == nil:
		return queue.ErrNotFound
	case j.state != job.Queued || j.waits:
		return queue.ErrInvalidState
	case j.due != nil && *j.due > m.now:
		j.due = at(m.now)
	}
	return nil
}

// pullForward is transition 23.
func (m *model) pullForward(typ, key string) bool {
	h, held := m.held(typ, key)
	j := m.jobs[h.job]
	if !held || j == nil || j.state != job.Queued || j.waits || j.due == nil || *j.due <= m.now {
		return false
	}
	j.due = at(m.now)
	return true
}

// held says who holds a key, if it has not expired.
func (m *model) held(typ, key string) (hold, bool) {
	h, has := m.keys[[2]string{typ, key}]
	if !has || h.scope == job.ScopeUntil && h.expires <= m.now {
		return hold{}, false
	}
	return h, true
}

// prune is transition 24, without a bound. An expired key may have gone before.
func (m *model) prune(r queue.Retention) (jobs, keys int) {
	keep := map[job.State]int64{job.Completed: r.Completed.Milliseconds(), job.Canceled: r.Canceled.Milliseconds(), job.Failed: r.Failed.Milliseconds()}
	for id, j := range m.jobs {
		if ms := keep[j.state]; ms > 0 && j.finished != nil && *j.finished <= m.now-ms {
			jobs++
			m.remove(id)
		}
	}
	for k, h := range m.keys {
		if h.scope == job.ScopeUntil && h.expires <= m.now {
			keys++
			delete(m.keys, k)
		}
	}
	return jobs, keys
}

// remove is transition 24 for one job.
func (m *model) remove(id string) {
	delete(m.jobs, id)
	for _, w := range m.jobs {
		if end, comes := w.after[id]; comes && end != job.Completed {
			w.after[id], w.marks[id] = pruned, true
		}
	}
}

// setLimit stores or drops a limit.
func (m *model) setLimit(scope, name string, l *limit) error {
	k := [2]string{scope, name}
	if l == nil {
		if _, has := m.limits[k]; !has {
			return queue.ErrNoLimit
		}
		delete(m.limits, k)
		return nil
	}
	m.limits[k] = *l
	for _, j := range m.jobs {
		if _, has := m.keyLimit(j); has && j.state == job.Queued {
			j.keyed = true
		}
	}
	return nil
}

// pause stops or resumes a queue, which need not be there yet.
func (m *model) pause(name string, paused bool) { m.queues[name] = paused }
