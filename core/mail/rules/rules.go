// Package rules compiles the conditions of deterministic rules when a rule is
// saved, and matches them against messages. A rule that does not compile is
// refused with the place in its JSON; one that compiles cannot fail later, nor
// cost much time, whatever mail it is shown.
//
// It also checks scopes and the parameters of actions.
//
// It may import the standard library, golang.org/x/text, and the mail packages
// message (the text of HTML), maildir (names of folders) and action (types and
// their parameters).
package rules

import (
	"errors"
	"fmt"
	"strings"
)

// The limits of one rule.
const (
	// MaxConditionsBytes is the size of the JSON.
	MaxConditionsBytes = 64 << 10
	// MaxDepth counts the nodes from the root down to a leaf.
	MaxDepth = 32
	// MaxNodes counts all nodes.
	MaxNodes = 1000
	// MaxPatternBytes is the size of one value, pattern or header name.
	MaxPatternBytes = 4 << 10
	// MaxProgram is the number of steps all regular expressions of a rule may
	// compile to. Matching takes time in proportion to steps times bytes.
	MaxProgram = 5_000
)

// What is looked at of one message; what lies beyond is not searched.
const (
	// MaxBodyBytes is for each of the plain and the HTML body.
	MaxBodyBytes = 1 << 20
	// MaxRegexBytes is what one regular expression is run over: the
	// beginning of the subject, or of all values of a header together.
	MaxRegexBytes = 16 << 10
)

// ErrNotSupported marks an action type that is known but not carried out by
// this version.
var ErrNotSupported = errors.New("not supported yet by this version")

// Error is what is wrong with a rule, where, and what would be right.
type Error struct {
	// Path is a JSON path such as $.children[1].value.
	Path   string
	Reason string
	kind   error
}

func (e *Error) Error() string { return e.Path + ": " + e.Reason }

func (e *Error) Unwrap() error { return e.kind }

func wrong(path, format string, args ...any) *Error {
	return &Error{Path: path, Reason: fmt.Sprintf(format, args...)}
}

// Input is what rules see of a message. Header names are canonical, as
// net/textproto writes them, in any other case they are found more slowly. What
// is prepared for matching is kept in it for the next rule, so it must not be
// changed after the first match, nor be used by two goroutines at once.
type Input struct {
	FromEmail     string
	Subject       string
	Headers       map[string][]string
	Labels        []string
	BodyPlain     []byte
	BodyHTML      []byte
	ListID        string
	HasAttachment bool

	prepared *view
}

// Compiled is a rule's conditions, ready to match. It may be used by several
// goroutines at once.
type Compiled struct{ root node }

// Match says whether the message meets the conditions. It never fails.
func (c *Compiled) Match(in *Input) bool { return c.root.match(in.view()) }

func (in *Input) view() *view {
	if in.prepared == nil {
		in.prepared = &view{Input: in}
	}
	return in.prepared
}

// A node is one condition or a combination of some.
type node interface{ match(v *view) bool }

// ValidateScope checks that scope is known and that ref is what it needs: an
// account's id, an address or *@domain, a domain; nothing for global. The
// paths of its errors are scope and scope_ref.
func ValidateScope(scope, ref string) error {
	switch scope {
	case "global":
		if ref != "" {
			return wrong("scope_ref", "a global rule has none")
		}
	case "account":
		if strings.TrimSpace(ref) == "" {
			return wrong("scope_ref", "an account's id is needed")
		}
	case "sender":
		if reason := checkSender(ref); reason != "" {
			return wrong("scope_ref", "%s", reason)
		}
	case "domain":
		if reason := checkDomain(ref); reason != "" {
			return wrong("scope_ref", "%s", reason)
		}
	default:
		return wrong("scope", "unknown scope; one of global, account, sender, domain")
	}
	return nil
}

// Scope is a rule's scope, ready to match.
type Scope struct {
	kind   string
	ref    string // an account's id, or a domain
	sender sender
}

// CompileScope reads a scope that ValidateScope accepts.
func CompileScope(scope, ref string) (Scope, error) {
	if err := ValidateScope(scope, ref); err != nil {
		return Scope{}, err
	}
	s := Scope{kind: scope, ref: ref}
	switch scope {
	case "sender":
		s.sender = newSender(ref)
	case "domain":
		s.ref = cleanDomain(ref)
	}
	return s, nil
}

// Matches says whether a rule of that scope applies to a message of the
// account. Sender and domain match like the conditions sender_email and
// sender_domain.
func (s Scope) Matches(accountID string, in *Input) bool {
	switch s.kind {
	case "global":
		return true
	case "account":
		return s.ref == accountID
	case "sender":
		return s.sender.is(in.view().from())
	case "domain":
		return domainUnder(in.view().from().domain, s.ref)
	}
	return false
}
