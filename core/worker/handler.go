package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
)

// Handler runs jobs of one type. What it returns becomes the job's result;
// what its error says becomes of the job is told in package job. The context
// ends when the job is canceled, its lease is lost, its time is up or the
// runner stops; context.Cause says which.
type Handler[P any] func(ctx context.Context, j *Job[P]) (result any, err error)

// Job is what a handler is given.
type Job[P any] struct {
	*Run
	Payload P
}

// Binding binds a handler to its job type. A service lists them all in one
// place.
type Binding struct {
	Type   string
	handle func(ctx context.Context, r *Run) (any, error)
}

// Bind makes a binding. A payload that does not decode into P fails the job
// for good, with the position of the mistake.
func Bind[P any](typ string, h Handler[P]) Binding {
	return Binding{Type: typ, handle: func(ctx context.Context, r *Run) (any, error) {
		j := &Job[P]{Run: r}
		if err := json.Unmarshal(r.claimed.Payload, &j.Payload); err != nil {
			return nil, job.Fatal(payloadError(r.claimed.Payload, err))
		}
		return h(ctx, j)
	}}
}

// Middleware stands around the handlers of a worker: it can change the context
// of a run, look at it before and after, answer in its place, and change its
// answer: whatever it returns counts, as what a handler returns does. It calls
// next, which is the handler or the next middleware, once or not at all.
// A payload that does not decode is an error of next; a panic passes through.
type Middleware func(ctx context.Context, r *Run, next func(context.Context) (any, error)) (result any, err error)

// within puts a middleware around what is bound.
func (b Binding) within(m Middleware) Binding {
	handle := b.handle
	b.handle = func(ctx context.Context, r *Run) (any, error) {
		return m(ctx, r, func(ctx context.Context) (any, error) { return handle(ctx, r) })
	}
	return b
}

// payloadError says where a payload does not fit, without quoting it.
func payloadError(payload []byte, err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		where := "the payload"
		if wrong.Field != "" {
			where = "payload." + wrong.Field
		}
		start := tokenStart(payload, wrong.Offset)
		line := 1 + bytes.Count(payload[:start], []byte("\n"))
		return fmt.Errorf("%s (byte %d, line %d) must be of type %s", where, start+1, line, wrong.Type)
	}
	return errors.New("the payload does not decode")
}

// tokenStart is where the token begins that encoding/json complains about. The
// offset it gives is the token's end; in keys of maps the first byte, and for
// numbers too large for an interface one byte too many.
func tokenStart(payload []byte, offset int64) int64 {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber() // a number may be too large for a float64
	for {
		before := d.InputOffset()
		token, err := d.Token()
		if err != nil {
			return min(offset, int64(len(payload)))
		}
		_, number := token.(json.Number)
		closing := token == json.Delim('}') || token == json.Delim(']')
		if end := d.InputOffset(); end >= offset && !closing || number && end == offset-1 {
			rest := payload[before:]
			return before + int64(len(rest)-len(bytes.TrimLeft(rest, " \t\r\n,:")))
		}
	}
}

// Run is one run of a job, as its handler sees it.
type Run struct {
	claimed   queue.Claimed
	queue     *queue.Queue
	base      zerolog.Logger
	committed atomic.Bool
}

// log is the logger of the run's lines. Most runs have none.
func (r *Run) log() *zerolog.Logger {
	log := r.base.With().Str("job_id", r.claimed.JobID).Str("job_type", r.claimed.Type).Int64("attempt", r.claimed.Attempt).Logger()
	return &log
}

// ID is the job's id.
func (r *Run) ID() string { return r.claimed.JobID }

// Type is the job's type.
func (r *Run) Type() string { return r.claimed.Type }

// Queue is the name of the job's queue.
func (r *Run) Queue() string { return r.claimed.Queue }

// Attempt counts the job's runs from 1, less those handed back or snoozed.
func (r *Run) Attempt() int64 { return r.claimed.Attempt }

// Number is the number of this run. Unlike Attempt it is never given twice.
func (r *Run) Number() int64 { return r.claimed.Run }

// Failures counts the failed attempts before this one.
func (r *Run) Failures() int64 { return r.claimed.Failures }

// LastAttempt says that a failure now would be the job's last.
func (r *Run) LastAttempt() bool { return r.claimed.Failures+1 >= r.claimed.MaxAttempts }

// Tick is the instant of a schedule that the job was stored for, however late
// that was; false for a job that no schedule stored, or somebody by hand.
func (r *Run) Tick() (time.Time, bool) {
	_, at, ok := queue.TickOf(r.claimed.Key)
	return at, ok
}

// Commit completes the job together with whatever fill records: the handler's
// own rows, follow-up jobs. All of it happens or none. While the database is
// away it tries again until ctx ends, which the local end of the lease sees to.
// It is safe to call again after an error. After it succeeded what the handler
// returns no longer matters.
func (r *Run) Commit(ctx context.Context, result any, fill func(*queue.Batch)) error {
	encoded, err := encodeResult(r.log, result)
	if err != nil {
		return err
	}
	if err := r.queue.Commit(ctx, r.claimed.Lease, encoded, fill); err != nil {
		return err
	}
	r.committed.Store(true)
	return nil
}

// Write applies a batch while the job is held: fill's statements come after
// the check of the lease.
func (r *Run) Write(ctx context.Context, fill func(*queue.Batch)) error {
	return r.queue.WriteUnder(ctx, r.claimed.Lease, fill)
}

func encodeResult(log func() *zerolog.Logger, result any) (json.RawMessage, error) {
	if result == nil {
		return nil, nil
	}
	encoded, repaired, err := job.EncodeResult(result)
	if err != nil {
		return nil, job.Fatal(fmt.Errorf("the result cannot be stored: %w", err))
	}
	if repaired {
		log().Warn().Msg("the job's result was not valid UTF-8; it is stored repaired")
	}
	return encoded, nil
}
