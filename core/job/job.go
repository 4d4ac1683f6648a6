// Package job holds what a job is: its states, its types as plain data, and
// how a handler answers. Both services import it, so it imports the standard
// library only.
package job

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"
)

// State is where a job stands. docs/lifecycle.md lists the transitions.
type State string

const (
	// Queued waits for a runner, for its time, or for a retry. A claim makes
	// it running; a cancel makes it canceled.
	Queued State = "queued"
	// Running is held by one runner under a lease. Its holder completes,
	// fails, snoozes or hands it back; when the lease runs out another runner
	// takes it back to queued.
	Running State = "running"
	// Completed is final: the handler succeeded.
	Completed State = "completed"
	// Failed is final until somebody retries it: the attempts are used up or
	// the error was fatal.
	Failed State = "failed"
	// Canceled is final until somebody retries it.
	Canceled State = "canceled"
)

// States lists them all.
var States = []State{Queued, Running, Completed, Failed, Canceled}

// Final says whether a job in this state moves only when a person retries it.
func (s State) Final() bool { return s == Completed || s == Failed || s == Canceled }

// Scope is how long an idempotency key holds.
type Scope string

const (
	// ScopeActive frees the key as soon as its job is final.
	ScopeActive Scope = "active"
	// ScopeUntil frees the key after a time to live.
	ScopeUntil Scope = "until"
	// ScopeForever never frees the key; it outlives its job.
	ScopeForever Scope = "forever"
)

// Limits on what a job may hold.
const (
	MaxPayload     = 1 << 20 // bytes of a payload or result
	MaxName        = 200     // bytes of a type, queue or limit key
	MaxKey         = 512     // bytes of an idempotency key
	MaxPriority    = 100
	MaxAttempts    = 1000
	MaxAfter       = 10_000 // jobs that one job comes after
	MaxJSONDepth   = 500    // SQLite's JSON parser stops at 1,000
	DefaultQueue   = "default"
	DefaultKeyTTL  = 24 * time.Hour
	PriorityBoost  = 30 * time.Second // how much older one step of priority makes a job
	defaultTimeout = 10 * time.Minute
)

// Job is one job as the API shows it. Missing values are null.
type Job struct {
	ID                string          `json:"id"`
	Type              string          `json:"type"`
	Queue             string          `json:"queue"`
	State             State           `json:"state" enum:"queued,running,completed,failed,canceled"`
	Priority          int64           `json:"priority"`
	Attempts          int64           `json:"attempts"`
	MaxAttempts       int64           `json:"max_attempts"`
	Failures          int64           `json:"failures"`
	Crashes           int64           `json:"crashes"`
	Payload           json.RawMessage `json:"payload"`
	Result            json.RawMessage `json:"result"`
	LastError         *string         `json:"last_error"`
	NotBefore         *Time           `json:"not_before"`
	IdempotencyKey    *string         `json:"idempotency_key"`
	LimitKey          *string         `json:"limit_key"`
	CreatedAt         Time            `json:"created_at"`
	UpdatedAt         Time            `json:"updated_at"`
	FinishedAt        *Time           `json:"finished_at"`
	HeartbeatAt       *Time           `json:"heartbeat_at"`
	CancelRequestedAt *Time           `json:"cancel_requested_at"`
	ClaimedBy         *string         `json:"claimed_by"`
	ParentID          *string         `json:"parent_id"`
	TraceID           *string         `json:"trace_id"`
}

// Dependency is a job that another one comes after. Outcome is the state it
// ended in, "pruned" when it is no longer stored, and null until then.
type Dependency struct {
	ID      string  `json:"id"`
	Outcome *string `json:"outcome"`
}

// Transition is one change of a job's state.
type Transition struct {
	Seq   int64 `json:"seq"`
	State State `json:"state"`
	Run   int64 `json:"run"` // the run that began or ended with it, 0 before the first
	At    Time  `json:"at"`
}

// Run is one ended run of a job.
type Run struct {
	Run        int64   `json:"run"`
	Runner     string  `json:"runner"`
	Outcome    string  `json:"outcome"`
	StartedAt  Time    `json:"started_at"`
	FinishedAt Time    `json:"finished_at"`
	Error      *string `json:"error"`
	Stack      *string `json:"stack"`
}

// StepOutcome is how a step stands. docs/lifecycle.md says what a repeat of the
// step makes of each.
type StepOutcome string

const (
	// StepRunning has begun: it is being executed, or was when its run ended,
	// and how it ended is not known.
	StepRunning StepOutcome = "running"
	// StepDone has a result, which comes back instead of a repeat.
	StepDone StepOutcome = "done"
	// StepFailed did not do its work; it is executed again.
	StepFailed StepOutcome = "failed"
	// StepUncertain may have done what must not be done twice. A reconcile
	// function or a person makes it done or failed; until then it is not
	// executed.
	StepUncertain StepOutcome = "uncertain"
)

// StepOutcomes lists them all.
var StepOutcomes = []StepOutcome{StepRunning, StepDone, StepFailed, StepUncertain}

// CodeStepUncertain begins the last_error of a job that failed because nobody
// could tell whether one of its steps happened. A person settles the step and
// then retries the job.
const CodeStepUncertain = "step_uncertain"

// Step is one recorded step of a job.
type Step struct {
	Name       string          `json:"name"`
	Run        int64           `json:"run"`
	Outcome    StepOutcome     `json:"outcome" enum:"running,done,failed,uncertain"`
	StartedAt  Time            `json:"started_at"`
	FinishedAt *Time           `json:"finished_at"`
	Result     json.RawMessage `json:"result"`
	Error      *string         `json:"error"`
}

// Time is an instant in Unix milliseconds; in JSON it is RFC 3339, UTC, with
// exactly three decimals.
type Time int64

const timeLayout = "2006-01-02T15:04:05.000Z"

// At converts t.
func At(t time.Time) Time { return Time(t.UnixMilli()) }

// Time converts back.
func (t Time) Time() time.Time { return time.UnixMilli(int64(t)).UTC() }

func (t Time) String() string { return t.Time().Format(timeLayout) }

// MarshalJSON implements json.Marshaler.
func (t Time) MarshalJSON() ([]byte, error) { return []byte(`"` + t.String() + `"`), nil }

// UnmarshalJSON implements json.Unmarshaler.
func (t *Time) UnmarshalJSON(b []byte) error {
	var v time.Time
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	*t = At(v)
	return nil
}

// New is a job to be stored. Only Type is required; what is left zero comes
// from the job's type.
type New struct {
	ID          string          // made by the client, a UUID; the same id again is the same request
	Type        string          // which handler runs it
	Queue       string          // which queue it waits in
	Payload     json.RawMessage // any JSON value; nil is null
	Priority    int             // -100 to 100; higher goes first
	MaxAttempts int             // failures until it is failed for good
	NotBefore   time.Time       // an instant, stored as given
	Delay       time.Duration   // or a time from now, by the database's clock
	Key         string          // idempotency key; "" for none
	KeyScope    Scope
	KeyTTL      time.Duration // for ScopeUntil
	LimitKey    string        // what it shares a limit with
	ParentID    string        // the job that made it
	After       []string      // ids of jobs that must end first
	// AfterFailure says what becomes of it when one of those fails, is
	// canceled or was pruned; AfterCancel when it is empty.
	AfterFailure AfterFailure
}

// AfterFailure says what becomes of a job when one that it comes after ends
// otherwise than completed.
type AfterFailure string

const (
	// AfterCancel cancels it, and so what comes after it.
	AfterCancel AfterFailure = "cancel"
	// AfterRun runs it once all have ended, however they ended.
	AfterRun AfterFailure = "run"
	// AfterWait lets it wait until the failed one was retried and completed;
	// it is canceled when that one is pruned.
	AfterWait AfterFailure = "wait"
)

// Invalid says what is wrong with a value from outside.
type Invalid struct {
	Field  string // as in the API
	Code   string // "invalid" or "invalid_utf8"
	Reason string
}

func (e *Invalid) Error() string { return e.Field + ": " + e.Reason }

func invalid(field, format string, args ...any) error {
	return &Invalid{Field: field, Code: "invalid", Reason: fmt.Sprintf(format, args...)}
}

// Check fills in what the type says and refuses what cannot be stored.
func (n *New) Check(types Types) error {
	t := types.Lookup(n.Type)
	if n.Queue == "" {
		n.Queue = t.Queue
	}
	if n.MaxAttempts == 0 {
		n.MaxAttempts = t.MaxAttempts
	}
	if n.Payload == nil {
		n.Payload = json.RawMessage("null")
	}
	if n.Key != "" && n.KeyScope == "" {
		n.KeyScope = t.KeyScope
	}
	if n.KeyScope == ScopeUntil && n.KeyTTL == 0 {
		n.KeyTTL = t.KeyTTL
	}
	for _, f := range []struct {
		field, value string
		max          int
		required     bool
	}{
		{"type", n.Type, MaxName, true},
		{"queue", n.Queue, MaxName, true},
		{"idempotency_key", n.Key, MaxKey, false},
		{"limit_key", n.LimitKey, MaxName, false},
		{"parent_id", n.ParentID, MaxName, false},
	} {
		if f.required && f.value == "" {
			return invalid(f.field, "is required")
		}
		if err := CheckText(f.field, f.value, f.max); err != nil {
			return err
		}
	}
	if n.ID != "" && !IsUUID(n.ID) {
		return invalid("id", "must be a UUID in lower-case hexadecimal, such as 0193f1a0-8c5e-7abc-8def-0123456789ab")
	}
	if n.Priority < -MaxPriority || n.Priority > MaxPriority {
		return invalid("priority", "must be between %d and %d", -MaxPriority, MaxPriority)
	}
	if n.MaxAttempts < 1 || n.MaxAttempts > MaxAttempts {
		return invalid("max_attempts", "must be between 1 and %d", MaxAttempts)
	}
	if n.Delay < 0 {
		return invalid("delay", "must not be negative")
	}
	if n.Delay != 0 && !n.NotBefore.IsZero() {
		return invalid("delay", "must not be given together with not_before")
	}
	if y := n.NotBefore.UTC().Year(); !n.NotBefore.IsZero() && (y < 1970 || y > 9999) {
		return invalid("not_before", "must lie between the years 1970 and 9999")
	}
	switch n.KeyScope {
	case "", ScopeActive, ScopeForever:
		if n.KeyTTL != 0 {
			return invalid("key_ttl", "goes with key_scope %q only", ScopeUntil)
		}
	case ScopeUntil:
		if n.KeyTTL < time.Second {
			return invalid("key_ttl", "must be at least 1s")
		}
	default:
		return invalid("key_scope", "must be %q, %q or %q", ScopeActive, ScopeUntil, ScopeForever)
	}
	if n.KeyScope != "" && n.Key == "" {
		return invalid("key_scope", "needs an idempotency_key")
	}
	if err := n.checkAfter(); err != nil {
		return err
	}
	return CheckJSON("payload", n.Payload)
}

func (n *New) checkAfter() error {
	if len(n.After) > MaxAfter {
		return invalid("after", "lists %d jobs, more than %d", len(n.After), MaxAfter)
	}
	for i, id := range n.After {
		switch {
		case !IsUUID(id):
			return invalid(fmt.Sprintf("after[%d]", i), "must be the id of a job")
		case id == n.ID:
			return invalid(fmt.Sprintf("after[%d]", i), "is the job itself")
		}
	}
	switch n.AfterFailure {
	case "":
		if len(n.After) > 0 {
			n.AfterFailure = AfterCancel
		}
	case AfterCancel, AfterRun, AfterWait:
		if len(n.After) == 0 {
			return invalid("after_failure", "goes with after only")
		}
	default:
		return invalid("after_failure", "must be %q, %q or %q", AfterCancel, AfterRun, AfterWait)
	}
	return nil
}

// CheckText refuses text that the database could not give back: invalid
// UTF-8, control characters, or more than max bytes.
func CheckText(field, s string, max int) error {
	if len(s) > max {
		return invalid(field, "is %d bytes long, more than %d", len(s), max)
	}
	if !utf8.ValidString(s) {
		return &Invalid{Field: field, Code: "invalid_utf8", Reason: "is not valid UTF-8"}
	}
	for _, r := range s {
		if r < 0x20 || r == 0x7f {
			return invalid(field, "contains a control character")
		}
	}
	return nil
}

// CheckJSON refuses what is not one JSON value, not UTF-8, too large or nested
// too deeply.
func CheckJSON(field string, v json.RawMessage) error {
	switch {
	case len(v) > MaxPayload:
		return invalid(field, "is %d bytes long, more than %d", len(v), MaxPayload)
	case !utf8.Valid(v):
		return &Invalid{Field: field, Code: "invalid_utf8", Reason: "is not valid UTF-8"}
	case !json.Valid(v):
		return invalid(field, "is not a JSON value")
	case bytes.Count(v, []byte("{"))+bytes.Count(v, []byte("[")) > MaxJSONDepth && depth(v) > MaxJSONDepth:
		return invalid(field, "is nested deeper than %d levels", MaxJSONDepth)
	}
	return nil
}

// depth is the nesting of valid JSON.
func depth(v []byte) int {
	deepest, now, quoted := 0, 0, false
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}

// IsUUID says whether s is a UUID in lower-case hexadecimal.
func IsUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (c == '-') || !dash && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
