package rules

import (
	"bytes"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/postroom/postroom/core/mail/action"
	"github.com/postroom/postroom/core/mail/maildir"
)

const maxLabelBytes = 200

// The bounds of a snooze's amount of time.
const (
	minSnooze = time.Second
	maxSnooze = 10 * 365 * 24 * time.Hour
)

// checks says what is wrong with a parameter's value; "" for nothing.
var checks = map[string]func(string) string{
	"folder": checkFolder,
	"label":  checkLabel,
	"until":  checkUntil,
	"for":    checkFor,
}

// ValidateAction checks an action type and its parameters: {"folder": …} for
// move, {"label": …} for apply_label and remove_label, {"until": …} or
// {"for": …} for snooze, and {} for the others (no JSON at all means {}). The
// error is an *Error; for a type that is known but not carried out yet it wraps
// ErrNotSupported. Its path is action_type, or begins with $ inside the
// parameters.
func ValidateAction(actionType string, parametersJSON []byte) error {
	typ, known := action.Lookup(actionType)
	if !known {
		return wrong("action_type", "unknown; one of %s", strings.Join(action.Names(), ", "))
	}
	if !typ.CarriedOut {
		return &Error{Path: "action_type", Reason: actionType + " is " + ErrNotSupported.Error(), kind: ErrNotSupported}
	}
	if len(bytes.TrimSpace(parametersJSON)) == 0 {
		parametersJSON = []byte("{}")
	}
	if len(parametersJSON) > MaxPatternBytes {
		return wrong("$", "%d bytes, at most %d", len(parametersJSON), MaxPatternBytes)
	}
	if !utf8.Valid(parametersJSON) {
		return wrong("$", "not valid UTF-8")
	}
	r := newReader(parametersJSON)
	given := ""
	err := r.object("$", func(name, at string) *Error {
		if !slices.Contains(typ.OneOf, name) {
			if len(typ.OneOf) == 0 {
				return wrong(at, "unknown field; %s has no parameters", actionType)
			}
			return wrong(at, "unknown field; %s has %s", actionType, strings.Join(typ.OneOf, " or "))
		}
		if given != "" {
			return wrong(at, "%s is given already; %s takes one of the two", given, actionType)
		}
		value, err := r.text(at)
		if err != nil {
			return err
		}
		given = name
		if reason := checks[name](value); reason != "" {
			return wrong(at, "%s", reason)
		}
		return nil
	})
	if err == nil {
		err = r.end("$")
	}
	if err == nil && len(typ.OneOf) > 0 && given == "" {
		err = wrong("$."+typ.OneOf[0], "missing; %s needs %s", actionType, strings.Join(typ.OneOf, " or "))
	}
	if err != nil {
		return err
	}
	return nil
}

func checkFolder(name string) string {
	if strings.TrimSpace(name) == "" {
		return "empty; INBOX is the name of the inbox"
	}
	if _, err := maildir.CleanFolder(name); err != nil {
		return strings.TrimPrefix(err.Error(), "maildir: ")
	}
	return ""
}

func checkLabel(label string) string {
	switch {
	case label == "":
		return "empty"
	case len(label) > maxLabelBytes:
		return "longer than 200 bytes"
	case strings.ContainsFunc(label, unicode.IsControl):
		return "holds a control character"
	case strings.TrimSpace(label) != label:
		return "begins or ends with a space"
	}
	return ""
}

func checkUntil(s string) string {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.Year() < 1970 || t.Year() > 9999 {
		return "a time such as 2026-01-31T09:00:00Z (RFC 3339) is needed"
	}
	return ""
}

func checkFor(s string) string {
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return "an amount of time such as 90m or 36h is needed"
	case d < minSnooze || d > maxSnooze:
		return "must be between 1s and ten years (87600h)"
	}
	return ""
}
