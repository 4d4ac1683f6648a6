package rules

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/postroom/postroom/core/mail/maildir"
)

const maxLabelBytes = 200

// ValidateAction checks an action type and its parameters: {"folder": …} for
// move, {"label": …} for apply_label, and {} for archive, mark_read, star,
// trash and none (no JSON at all means {}). The error is an *Error; for a type
// that is known but not carried out yet it wraps ErrNotSupported. Its path is
// action_type, or begins with $ inside the parameters.
func ValidateAction(actionType string, parametersJSON []byte) error {
	field := ""
	check := func(string) string { return "" }
	switch actionType {
	case "archive", "mark_read", "star", "trash", "none":
	case "move":
		field, check = "folder", checkFolder
	case "apply_label":
		field, check = "label", checkLabel
	case "remove_label", "mark_unread", "restore", "unstar", "snooze", "delete", "forward", "auto_reply", "escalate":
		return &Error{Path: "action_type", Reason: actionType + " is " + ErrNotSupported.Error(), kind: ErrNotSupported}
	default:
		return wrong("action_type", "unknown; one of archive, move, apply_label, mark_read, star, trash, none")
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
	given := false
	err := r.object("$", func(name, at string) *Error {
		if name != field || field == "" {
			if field == "" {
				return wrong(at, "unknown field; %s has no parameters", actionType)
			}
			return wrong(at, "unknown field; %s has %s", actionType, field)
		}
		value, err := r.text(at)
		if err != nil {
			return err
		}
		given = true
		if reason := check(value); reason != "" {
			return wrong(at, "%s", reason)
		}
		return nil
	})
	if err == nil {
		err = r.end("$")
	}
	if err == nil && field != "" && !given {
		err = wrong("$."+field, "missing; %s needs it", actionType)
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
