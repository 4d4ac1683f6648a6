package step

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
)

// maxError is how much of an error's text is kept, in bytes.
const maxError = 16 << 10

// Config is what a recorder stands on. All fields are required.
type Config struct {
	DB        libsql.DB
	System    system.System
	Lease     queue.Lease
	Run       int64                  // the number of the claim
	LeaseEnds func() time.Time       // when the lease ends if it is not renewed, on this machine's clock
	Worker    context.Context        //nolint:containedctx // ends when the runner has stopped
	Log       func() *zerolog.Logger // of the run
}

// Recorder records the steps of one run of one job. Handlers may use it from
// several goroutines, through the functions of this package.
type Recorder struct {
	cfg Config

	mu        sync.Mutex
	loaded    bool
	before    map[string]before
	used      map[string]bool // names this run has used
	uncertain bool
}

// before is what earlier runs left of a step.
type before struct {
	outcome job.StepOutcome // "" for nothing
	run     int64
}

// NewRecorder returns the recorder of a run.
func NewRecorder(cfg Config) *Recorder {
	return &Recorder{cfg: cfg, used: map[string]bool{}}
}

type contextKey struct{}

// NewContext gives a handler's context its recorder.
func NewContext(ctx context.Context, r *Recorder) context.Context {
	return context.WithValue(ctx, contextKey{}, r)
}

func fromContext(ctx context.Context) (*Recorder, error) {
	if r, ok := ctx.Value(contextKey{}).(*Recorder); ok {
		return r, nil
	}
	return nil, ErrNoJob
}

// Uncertain says that the run came upon a step of which nobody can tell
// whether it happened. Whatever error the handler makes of that, the job must
// not run again before a person has looked.
func (r *Recorder) Uncertain() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.uncertain
}

// call is one use of a step's name in one run.
type call struct {
	*Recorder
	options
	name   string
	before before
	start  time.Time // when its function was called
}

// named returns the call of a name that was checked.
func (r *Recorder) named(name string) (*call, error) {
	fit := job.RepairName(name)
	if fit != name {
		r.cfg.Log().Warn().Str("step", fit).Msg("the step's name had bytes that cannot be stored; they are written out")
	}
	if fit == "" {
		return nil, job.Fatal(errors.New("step: the name is empty"))
	}
	if err := job.CheckText("step name", fit, job.MaxName); err != nil {
		return nil, job.Fatal(err)
	}
	return &call{Recorder: r, name: fit, start: r.cfg.System.Now()}, nil
}

// open takes the name for this run and finds what earlier runs left of it.
func open(ctx context.Context, name string, opts []Option) (*call, error) {
	r, err := fromContext(ctx)
	if err != nil {
		return nil, err
	}
	c, err := r.named(name)
	if err != nil {
		return nil, err
	}
	for _, set := range opts {
		set(&c.options)
	}
	if c.timeout != nil && *c.timeout <= 0 {
		return nil, job.Fatal(fmt.Errorf("step %s: a timeout must be positive, not %s", c.name, *c.timeout))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.used[c.name] {
		return nil, job.Fatal(fmt.Errorf("step %s: the name was used before in this run", c.name))
	}
	if err := r.load(ctx); err != nil {
		return nil, err
	}
	r.used[c.name] = true
	c.before = r.before[c.name]
	return c, nil
}

// load reads how the steps of earlier runs stand, once; a first run has none.
func (r *Recorder) load(ctx context.Context) error {
	if r.loaded || r.cfg.Run == 1 {
		return nil
	}
	rows, err := r.read(ctx, libsql.Query(sqlLoad, r.cfg.Lease.JobID))
	if err != nil {
		return fmt.Errorf("load steps: %w", err)
	}
	r.before = make(map[string]before, len(rows))
	for _, row := range rows {
		r.before[row.Str(0)] = before{outcome: job.StepOutcome(row.Str(1)), run: row.Int(2)}
	}
	r.loaded = true
	return nil
}

// row reads the step's result and error.
func (c *call) row(ctx context.Context) (result []byte, why string, err error) {
	rows, err := c.read(ctx, libsql.Query(sqlStored, c.cfg.Lease.JobID, c.name))
	if err != nil {
		return nil, "", fmt.Errorf("load step %s: %w", c.name, err)
	}
	return rows[0].Bytes(0), rows[0].Str(1), nil
}

// stored returns the result that an earlier run recorded. misfit says that it
// cannot be read as a T, without quoting it.
func stored[T any](ctx context.Context, c *call) (v T, misfit, err error) {
	result, _, err := c.row(ctx)
	if err != nil {
		return v, nil, err
	}
	var wrong *json.UnmarshalTypeError
	switch err := json.Unmarshal(result, &v); {
	case errors.As(err, &wrong):
		misfit = fmt.Errorf("the stored result does not fit its type: byte %d must be of type %s", wrong.Offset, wrong.Type)
	case err != nil:
		misfit = errors.New("the stored result does not decode")
	}
	return v, misfit, nil
}

// encode turns a result into what is stored.
func (c *call) encode(v any) (json.RawMessage, error) {
	encoded, repaired, err := job.EncodeResult(v)
	if err != nil {
		return nil, fmt.Errorf("step %s: the result cannot be stored: %w", c.name, err)
	}
	if repaired {
		c.cfg.Log().Warn().Str("step", c.name).Msg("the step's result was not valid UTF-8; it is stored repaired")
	}
	return encoded, nil
}

// record writes down how the step's execution ended. That is done whatever
// became of the handler's context, and through outages however long, like the
// outcome of the run: the work is done, too. Only another holder of the job or
// the end of the runner prevents it.
func (c *call) record(ctx context.Context, outcome job.StepOutcome, result json.RawMessage, stepErr error) error {
	return c.recordNow(lasting{c.cfg.Worker, ctx}, outcome, result, stepErr)
}

// recordNow is record, but heeds the context.
func (c *call) recordNow(ctx context.Context, outcome job.StepOutcome, result json.RawMessage, stepErr error) error {
	return c.write(ctx, opRecord, outcome, result, stepErr)
}

// resolve is record for an effect whose intent is recorded.
func (c *call) resolve(ctx context.Context, outcome job.StepOutcome, result json.RawMessage, stepErr error) error {
	return c.write(lasting{c.cfg.Worker, ctx}, opResolve, outcome, result, stepErr)
}

// lasting is the runner's context, with what the handler's knows.
type lasting struct {
	context.Context //nolint:containedctx // the runner's

	handler context.Context //nolint:containedctx // for its values
}

func (l lasting) Value(key any) any {
	if v := l.Context.Value(key); v != nil {
		return v
	}
	return l.handler.Value(key)
}

// write asks for one op under the job's fence.
func (c *call) write(ctx context.Context, op *libsql.Op, outcome job.StepOutcome, result json.RawMessage, stepErr error) error {
	rest := string(result)
	if stepErr != nil {
		rest = job.RepairText(stepErr.Error(), maxError)
	}
	item := c.cfg.Lease.AppendPacked(make([]byte, 0, 81+len(c.name)+len(rest)))
	item = libsql.AppendPadded(item, c.cfg.System.Now().Sub(c.start).Milliseconds(), 10)
	item = libsql.AppendPadded(item, int64(len(c.name)), 4)
	item = append(append(item, outcome...), "         "[len(outcome):]...)
	item = libsql.AppendPadded(item, int64(len(rest)), 7)
	item = append(append(item, c.name...), rest...)
	var rows []libsql.Row
	err := libsql.Insist(ctx, c.cfg.System, func() (err error) {
		rows, err = c.cfg.DB.Merge(ctx, op, item)
		return err
	})
	if err == nil && rows[0] != nil {
		err = queue.ErrLeaseLost
	}
	if err != nil {
		return fmt.Errorf("record step %s: %w", c.name, err)
	}
	return nil
}

func (r *Recorder) read(ctx context.Context, s libsql.Stmt) ([]libsql.Row, error) {
	var rows []libsql.Row
	err := libsql.Insist(ctx, r.cfg.System, func() error {
		res, err := r.cfg.DB.Read(ctx, s)
		if err == nil {
			rows = res[0].Rows
		}
		return err
	})
	return rows, err
}
