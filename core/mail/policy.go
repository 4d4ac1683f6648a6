package mail

import (
	"slices"
	"time"

	"github.com/postroom/postroom/core/mail/action"
)

// Policy says which actions wait for a person's approval, and for how long.
type Policy struct {
	ApprovalAlways []string      // action types
	Confidence     float64       // decisions below wait
	ApprovalExpiry time.Duration // how long they wait
}

// Asks says whether an action needs approval: it is dangerous, its type is
// listed, or its decider was not sure enough; unless the rule's safe mode says
// that it was thought about.
func (p Policy) Asks(actionType string, confidence float64, safeMode string) bool {
	if safeMode == "always_safe" || safeMode == "dangerous_override" {
		return false
	}
	typ, known := action.Lookup(actionType)
	return known && typ.Danger == action.Dangerous || confidence < p.Confidence || slices.Contains(p.ApprovalAlways, actionType)
}
