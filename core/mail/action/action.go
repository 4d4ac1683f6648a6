// Package action holds what an action is: its types with their danger and
// parameters, its statuses and how they follow each other. It is plain data;
// docs/mail.md tells in one table what each type changes and how that is taken
// back, and a test holds the two together.
//
// It imports the standard library only.
package action

import "slices"

// Status is where an action stands. Transitions says who follows whom.
type Status string

// The statuses.
const (
	Queued          Status = "queued"           // wanted; its job waits or is due
	Executing       Status = "executing"        // the intent is recorded, the change may have begun
	Completed       Status = "completed"        // final: the change was made and recorded
	Failed          Status = "failed"           // final: the change could not be made
	Canceled        Status = "canceled"         // final: called off before it was made
	Rejected        Status = "rejected"         // final: a person said no
	ApprovedPending Status = "approved_pending" // waits for a person's approval
)

// Statuses lists them all.
var Statuses = []Status{Queued, Executing, Completed, Failed, Canceled, Rejected, ApprovedPending}

// transitions is the status machine. The database refuses every other change.
var transitions = map[Status][]Status{
	Queued:          {Executing, Canceled, Rejected, ApprovedPending, Failed},
	Executing:       {Completed, Failed, Canceled},
	ApprovedPending: {Queued, Canceled, Rejected},
}

// MayFollow says whether the machine has a step from s to next.
func (s Status) MayFollow(next Status) bool { return slices.Contains(transitions[s], next) }

// Final says that nothing follows.
func (s Status) Final() bool { return len(transitions[s]) == 0 }

// Danger is how much a type can do harm.
type Danger string

// The dangers. A dangerous type waits for approval.
const (
	Safe       Danger = "safe"
	Reversible Danger = "reversible"
	Dangerous  Danger = "dangerous"
)

// Type is one kind of action.
type Type struct {
	Name   string
	Danger Danger
	// OneOf are the parameters of which exactly one must be given; none for a
	// type without parameters.
	OneOf []string
	// Undoable: the change can be taken back.
	Undoable bool
	// CarriedOut: this version does it. The others need something that sends.
	CarriedOut bool
}

// Undo is the type of the action that takes another one back. Nobody asks for
// it by name.
const Undo = "undo"

// Types lists the types that rules and people may ask for.
var Types = []Type{
	{Name: "archive", Danger: Safe, Undoable: true, CarriedOut: true},
	{Name: "move", Danger: Safe, OneOf: []string{"folder"}, Undoable: true, CarriedOut: true},
	{Name: "apply_label", Danger: Safe, OneOf: []string{"label"}, Undoable: true, CarriedOut: true},
	{Name: "remove_label", Danger: Safe, OneOf: []string{"label"}, Undoable: true, CarriedOut: true},
	{Name: "mark_read", Danger: Safe, Undoable: true, CarriedOut: true},
	{Name: "mark_unread", Danger: Safe, Undoable: true, CarriedOut: true},
	{Name: "star", Danger: Reversible, Undoable: true, CarriedOut: true},
	{Name: "unstar", Danger: Reversible, Undoable: true, CarriedOut: true},
	{Name: "trash", Danger: Safe, Undoable: true, CarriedOut: true},
	{Name: "restore", Danger: Safe, Undoable: true, CarriedOut: true},
	{Name: "snooze", Danger: Reversible, OneOf: []string{"until", "for"}, Undoable: true, CarriedOut: true},
	{Name: "none", Danger: Safe, Undoable: true, CarriedOut: true},
	{Name: "delete", Danger: Dangerous, CarriedOut: true},
	{Name: "forward", Danger: Dangerous},
	{Name: "auto_reply", Danger: Dangerous},
	{Name: "escalate", Danger: Dangerous},
}

// Lookup returns a type by its name.
func Lookup(name string) (Type, bool) {
	for _, t := range Types {
		if t.Name == name {
			return t, true
		}
	}
	return Type{}, false
}

// Names lists the types that are carried out, in the order of Types.
func Names() []string {
	var names []string
	for _, t := range Types {
		if t.CarriedOut {
			names = append(names, t.Name)
		}
	}
	return names
}
