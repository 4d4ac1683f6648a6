package libsql

import (
	"errors"
	"strings"

	"github.com/postroom/postroom/core/libsql/internal/native"
)

// Class says what kind of failure an [Error] is, and so what can be done.
type Class string

// The classes. Whatever the class, an error says nothing about values.
const (
	// Busy: another process held the write lock for all of the busy timeout,
	// or the server had too much to do. Nothing was applied; it may be repeated.
	Busy Class = "busy"
	// Unavailable: the file is missing, replaced, emptied or cannot be read
	// or written, or the server is away, has another database or refuses the
	// token. Nothing was applied; it may be repeated.
	Unavailable Class = "unavailable"
	// Full: no room on the disk. Nothing was applied.
	Full Class = "full"
	// Corrupt: the file is not a sound database.
	Corrupt Class = "corrupt"
	// Constraint: a CHECK, UNIQUE, NOT NULL or foreign key refused a row.
	Constraint Class = "constraint"
	// Guard: a guard of the batch raised its error.
	Guard Class = "guard"
	// Invalid: the statement or an argument is wrong.
	Invalid Class = "invalid"
	// Canceled: the context ended before the work began. Nothing was applied.
	Canceled Class = "canceled"
	// Unknown: the context ended, the disk failed, or the server's answer was
	// lost, while the work was under way. It may or may not have been applied.
	Unknown Class = "unknown"
	// Closed: the database was closed.
	Closed Class = "closed"
)

// Error is every error of this package.
type Error struct {
	Class  Class
	Op     string // what was being done: open, begin, bind, execute, read, commit
	Detail string // the database's own words, without SQL and values
	Index  int    // the statement's place in its batch, for Guard, Constraint and Invalid
	cause  error

	preparing bool // SQLite refused the SQL itself
	again     bool // no server was reached, or only a read was lost: the same call may be made again
}

func (e *Error) Error() string {
	s := "database " + string(e.Class)
	if e.Op != "" {
		s = "database: " + e.Op + ": " + string(e.Class)
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.cause != nil {
		s += ": " + e.cause.Error()
	}
	return s
}

// Unwrap gives the context's error of a Canceled or Unknown call.
func (e *Error) Unwrap() error { return e.cause }

// ClassOf returns the class of err, or "" when it is none of this package's.
func ClassOf(err error) Class {
	if err == nil {
		return "" // without the allocation
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	return ""
}

// GuardIndex returns which guard of a batch raised its error, or -1.
func GuardIndex(err error) int {
	var e *Error
	if errors.As(err, &e) && e.Class == Guard {
		return e.Index
	}
	return -1
}

// Transient says whether the same call may well succeed later.
func Transient(err error) bool {
	switch ClassOf(err) {
	case Busy, Unavailable, Full, Unknown, Canceled:
		return true
	}
	return false
}

// notApplied says whether a failed call can be repeated at once with a good
// chance and no risk.
func notApplied(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Class == Busy || e.again)
}

// inOp names what was being done.
func inOp(err error, op string) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	named := *e
	named.Op = op
	return &named
}

// inBatch gives an error the place of its statement, of which the first
// guards are guards.
func inBatch(err error, i, guards int) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	placed := *e
	placed.Index = i
	if i < guards && !e.preparing && (e.Class == Invalid || e.Class == Constraint) {
		placed.Class, placed.Detail = Guard, ""
	}
	return &placed
}

// endsTransaction says whether SQLite may have rolled the transaction back by
// itself when it reported this class.
func endsTransaction(c Class) bool {
	return c == Busy || c == Unavailable || c == Full || c == Corrupt || c == Unknown
}

var markers = []string{"SQLite failure: `", "SQLite error: `", "Remote SQlite failure: `", `code: "`}

// classify turns an error of the library into an Error that holds no value: one
// can stand only in SQLite's own words.
func classify(op string, err error) *Error {
	if errors.Is(err, native.ErrBind) {
		return &Error{Class: Invalid, Op: op, Detail: err.Error()}
	}
	text := err.Error()
	e := &Error{Op: op, preparing: strings.Contains(text, "Error preparing statement: ")}
	if strings.HasSuffix(text, ": Execute returned rows") {
		e.Class, e.Detail = Invalid, "the statement returns rows"
		return e
	}
	at := -1
	for _, m := range markers {
		if i := strings.Index(text, m); i >= 0 && (at < 0 || i+len(m) < at) {
			at = i + len(m)
		}
	}
	if at < 0 {
		e.Class = classOfText(text)
		return e
	}
	detail := text[at:]
	if i := strings.LastIndexAny(detail, "`\""); i >= 0 {
		detail = detail[:i]
	}
	e.Detail = withoutValues(detail)
	if !e.preparing && strings.HasPrefix(detail, "no such column") {
		e.Detail = "no such column" // of a full text query, which is a value
	}
	e.Class = classOfText(e.Detail)
	return e
}

// withoutValues cuts the part of SQLite's words that may come from a value.
// The words of a constraint and of an error in the SQL name only the schema
// and the SQL, which are constant.
func withoutValues(detail string) string {
	if strings.Contains(detail, "constraint failed: ") {
		return detail
	}
	for _, before := range []string{"bad JSON path", "unable to open database", "fts5", "malformed MATCH expression", "'"} {
		if head, _, found := strings.Cut(detail, before); found {
			return strings.TrimRight(head+strings.TrimSuffix(before, "'"), " :")
		}
	}
	return detail
}

func classOfText(s string) Class {
	has := func(sub string) bool { return strings.Contains(s, sub) }
	switch {
	case has("constraint failed"), has("cannot store "):
		return Constraint
	case has("is locked"), has("is busy"), has("locking protocol"):
		return Busy
	case has("is full"):
		return Full
	case has("not a database"), has("malformed") && !has("JSON"):
		return Corrupt
	case has("unable to open"), has("Unable to open"), has("Unable to connect"), has("I/O error"), has("readonly database"), has("out of memory"):
		return Unavailable
	}
	return Invalid
}
