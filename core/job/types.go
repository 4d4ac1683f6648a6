package job

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"time"
)

// Type is one kind of job, as plain data. Fields left zero take the default.
type Type struct {
	Name        string        // the type's key in Types
	Queue       string        // DefaultQueue
	MaxAttempts int           // 5
	Backoff     Backoff       // DefaultBackoff
	Timeout     time.Duration // longest one run may take; 10 minutes
	KeyScope    Scope         // of a key whose enqueuer names no scope; ScopeUntil
	KeyTTL      time.Duration // for ScopeUntil; DefaultKeyTTL
}

// Backoff is how long a failed job waits: Base, doubling with each failure up
// to Cap, each wait spread by Jitter (0.25 is ±25 %).
type Backoff struct {
	Base, Cap time.Duration
	Jitter    float64
}

// DefaultBackoff is 2 s, doubling up to 5 min, ±25 %.
var DefaultBackoff = Backoff{Base: 2 * time.Second, Cap: 5 * time.Minute, Jitter: 0.25}

// Delay is the wait after the nth failure (from 1); random is in [0, 1).
func (b Backoff) Delay(n int64, random float64) time.Duration {
	d := b.Cap
	if n < 1 {
		n = 1
	}
	if n <= 32 && b.Base<<(n-1) > 0 {
		d = min(b.Cap, b.Base<<(n-1))
	}
	return time.Duration(float64(d) * (1 + b.Jitter*(2*random-1)))
}

// Types is the set of job types a program knows, by name. Those of Postroom are
// [Known]; a program of its own lists its own:
//
//	types := job.Types{
//		"report.send": {Timeout: time.Minute, KeyScope: job.ScopeForever},
//		"report.tidy": {},
//	}
type Types map[string]Type

// Lookup returns the type with its defaults filled in, also for one that nobody
// knows: such a job is stored and waits for a runner that knows it.
func (t Types) Lookup(name string) Type {
	known := t[name]
	known.Name = name
	return withDefaults(known)
}

// Names lists the known types in order.
func (t Types) Names() []string {
	return slices.Sorted(maps.Keys(t))
}

// The job types of the mail path and those for trying the queue out.
const (
	AccountSync     = "account.sync"
	MessageIngest   = "message.ingest"
	MessageClassify = "message.classify"
	ActionExecute   = "action.execute"
	ActionExpire    = "action.expire"
	RulesApply      = "rules.apply"
	MailImport      = "mail.import"
	AccountRemove   = "account.remove"

	DebugEcho  = "debug.echo"
	DebugSleep = "debug.sleep"
	DebugSpin  = "debug.spin"
	DebugFail  = "debug.fail"
	DebugPanic = "debug.panic"
	DebugSteps = "debug.steps"
	DebugExit  = "debug.exit"
)

// Known returns every job type of Postroom. The scope of each key is chosen on
// purpose: a key must never block work that is wanted again.
func Known() Types {
	list := []Type{
		// One sync per account at a time; the next is wanted once it is over. The
		// first may have a large mailbox to take in.
		{Name: AccountSync, KeyScope: ScopeActive, Timeout: 24 * time.Hour, MaxAttempts: 20},
		// A message is ingested once, however often it is found or posted.
		{Name: MessageIngest, KeyScope: ScopeForever, MaxAttempts: 10},
		// Once per message and version of the rules.
		{Name: MessageClassify, KeyScope: ScopeForever, MaxAttempts: 10},
		// Once per action row.
		{Name: ActionExecute, KeyScope: ScopeForever, MaxAttempts: 10},
		{Name: ActionExpire, KeyScope: ScopeForever, MaxAttempts: 10},
		// One at a time; wanted again after the next change of the rules.
		{Name: RulesApply, KeyScope: ScopeActive, MaxAttempts: 10, Timeout: 24 * time.Hour},
		// One of a path at a time; wanted again when there is more in it.
		{Name: MailImport, KeyScope: ScopeActive, MaxAttempts: 10, Timeout: 7 * 24 * time.Hour},
		// An account is removed once.
		{Name: AccountRemove, KeyScope: ScopeForever, MaxAttempts: 20, Timeout: 24 * time.Hour},
	}
	for _, name := range []string{DebugEcho, DebugSleep, DebugSpin, DebugFail, DebugPanic, DebugSteps, DebugExit} {
		list = append(list, Type{Name: name})
	}
	types := make(Types, len(list))
	for _, t := range list {
		types[t.Name] = withDefaults(t)
	}
	return types
}

func withDefaults(t Type) Type {
	if t.Queue == "" {
		t.Queue = DefaultQueue
	}
	if t.MaxAttempts == 0 {
		t.MaxAttempts = 5
	}
	if t.Backoff == (Backoff{}) {
		t.Backoff = DefaultBackoff
	}
	if t.Timeout == 0 {
		t.Timeout = defaultTimeout
	}
	if t.KeyScope == "" {
		t.KeyScope = ScopeUntil
	}
	if t.KeyTTL == 0 {
		t.KeyTTL = DefaultKeyTTL
	}
	return t
}

// The payloads of the mail path. Version is 1 where it is not given.

// SyncPayload is account.sync's.
type SyncPayload struct {
	AccountID string `json:"account_id"`
}

// IngestPayload is message.ingest's. Posted says that the bytes lie in the
// database, under the job's id, and are still to be delivered.
type IngestPayload struct {
	AccountID string `json:"account_id"`
	Unique    string `json:"unique"` // the Maildir's unique name
	Posted    bool   `json:"posted,omitempty"`
}

// ClassifyPayload is message.classify's.
type ClassifyPayload struct {
	MessageID string `json:"message_id"`
}

// ActionPayload is action.execute's and action.expire's.
type ActionPayload struct {
	ActionID string `json:"action_id"`
}

// ApplyPayload is rules.apply's.
type ApplyPayload struct {
	AccountID string `json:"account_id,omitempty"` // "" for all
}

// ImportPayload is mail.import's.
type ImportPayload struct {
	AccountID  string `json:"account_id"`
	Path       string `json:"path"`             // absolute, as the runner sees it
	Format     string `json:"format,omitempty"` // maildir, mbox or eml; "" to look
	ApplyRules bool   `json:"apply_rules,omitempty"`
}

// Payload encodes a payload, which must be a value that package json encodes:
// it panics at one that is not (a channel, a function, an endless loop). What
// means something to HTML only stays as it is: escaped, it would be six times
// as long, and a libsql server takes no value of that length.
func Payload(v any) json.RawMessage {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic("job: payload: " + err.Error())
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}
