package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unsafe"
)

// console is where the demo talks to a person.
type console struct {
	w      io.Writer
	width  func() int  // in cells
	broken func(error) // told when nobody reads any more
}

func (c *console) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(c.w, format, args...); err != nil {
		c.broken(fmt.Errorf("write the output: %w", err))
	}
}

// columns is the width of the terminal, or a width for what is not one.
func columns(w io.Writer, lookup func(string) (string, bool)) int {
	if f, ok := w.(*os.File); ok {
		var size struct{ rows, cols, x, y uint16 }
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size)))
		if errno == 0 && size.cols > 0 {
			return int(size.cols)
		}
	}
	if text, ok := lookup("COLUMNS"); ok {
		if n, err := strconv.Atoi(text); err == nil && n > 0 {
			return n
		}
	}
	return 140
}

// line is what is printed about a message: when, from whom, its subject and
// what was done. It is about width cells wide; a terminal narrower than the
// fixed parts wraps it.
func line(at time.Time, m message, did, why string, width int) string {
	sender, subject := m.FromName, m.Subject
	if blank(sender) {
		sender = m.FromEmail
	}
	if blank(sender) {
		sender = "(no sender)"
	}
	if blank(subject) {
		subject = "(no subject)"
	}
	// What was done comes first: in a narrow terminal it still has room for its
	// commonest text, in a wide one for the longest; the subject has the rest.
	const clock, gaps, least, most, shortSubject = 8, 6, 38, 62, 30
	senderWide := min(max(width/7, 12), 22)
	doneWide := min(max(width-clock-gaps-senderWide-shortSubject, least), most)
	subjectWide := min(max(width-clock-gaps-senderWide-doneWide, 12), 60)
	return fmt.Sprintf("%s  %s  %s  %s", at.Format(time.TimeOnly),
		pad(fit(sender, senderWide), senderWide), pad(fit(subject, subjectWide), subjectWide),
		fit("→ "+did, doneWide)+aside(why, doneWide-cells("→ "+did)))
}

// aside is the reason behind what was done, as far as it fits.
func aside(why string, room int) string {
	if why == "" || room < 8 {
		return ""
	}
	return "  (" + fit(why, room-4) + ")"
}

func blank(s string) bool { return fit(s, 1) == "" }

// outcome is what was done with a message and why. settled is false while
// that is not known yet.
func outcome(m message) (did, why string, settled bool) {
	d := m.Decision
	if d == nil {
		return "not decided yet", "", false
	}
	why = "no rule matched"
	if d.RuleName != "" {
		why = "rule " + d.RuleName
	}
	if d.ActionType == "none" {
		return "left in the inbox", why, true
	}
	switch d.ActionStatus {
	case "completed":
		return done(m), why, true
	case "failed":
		if len(m.Actions) > 0 {
			why = m.Actions[len(m.Actions)-1].ErrorMessage
		}
		return d.ActionType + " failed", why, true
	case "canceled", "rejected":
		return d.ActionType + " was " + d.ActionStatus, why, true
	case "approved_pending":
		return d.ActionType + " waits for approval", why, true
	}
	return d.ActionType + " not done yet", why, false
}

// done says what a completed action did.
func done(m message) string {
	switch m.Decision.ActionType {
	case "move", "archive", "trash":
		if m.Raw.Folder == "" {
			return "moved to the inbox"
		}
		return "moved to " + m.Raw.Folder
	case "apply_label":
		return "labelled " + strings.Join(m.Labels, ", ")
	case "star":
		return "starred"
	case "mark_read":
		return "marked as read"
	}
	return m.Decision.ActionType + " done"
}

// fit makes text from outside safe to print on one line of a terminal and cuts
// it to so many cells: no control characters, nothing invisible or that turns
// the direction of writing, no heaps of accents.
func fit(s string, width int) string {
	const heap = 3
	var b strings.Builder
	used, marks, space := 0, 0, false
	for _, r := range s {
		switch {
		case unicode.IsSpace(r):
			space = b.Len() > 0
			continue
		case unicode.Is(unicode.Cf, r):
			continue
		case unicode.In(r, unicode.Mn, unicode.Me):
			if marks++; marks > heap || b.Len() == 0 || space {
				continue
			}
			b.WriteRune(r)
			continue
		case !unicode.IsPrint(r):
			r = unicode.ReplacementChar
		}
		marks = 0
		need := runeCells(r)
		if space {
			need++
		}
		if used+need > width {
			return cut(b.String(), width)
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		b.WriteRune(r)
		used += need
	}
	return b.String()
}

// cut ends a text, of which more was to come, with an ellipsis.
func cut(s string, width int) string {
	for s != "" && cells(s) > width-1 {
		runes := []rune(s)
		s = string(runes[:len(runes)-1])
	}
	if width < 1 {
		return ""
	}
	return strings.TrimRight(s, " ") + "…"
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-cells(s)))
}

func cells(s string) int {
	n := 0
	for _, r := range s {
		n += runeCells(r)
	}
	return n
}

// isWide tells the letters that take two cells, roughly: East Asian scripts,
// their full-width forms, and emoji.
func isWide(r rune) bool {
	for _, span := range [][2]rune{
		{0x1100, 0x115F}, {0x231A, 0x231B}, {0x23E9, 0x23EC}, {0x23F0, 0x23F0}, {0x23F3, 0x23F3}, {0x2614, 0x2615},
		{0x2648, 0x2653}, {0x26A1, 0x26A1}, {0x26BD, 0x26BE}, {0x26C4, 0x26C5}, {0x26D4, 0x26D4}, {0x2705, 0x2705},
		{0x2728, 0x2728}, {0x274C, 0x274C}, {0x2753, 0x2757}, {0x2B50, 0x2B50}, {0x2B55, 0x2B55}, {0x2E80, 0xA4CF},
		{0xAC00, 0xD7A3}, {0xF900, 0xFAFF}, {0xFE30, 0xFE6F}, {0xFF00, 0xFF60}, {0xFFE0, 0xFFE6},
		{0x1F300, 0x1F64F}, {0x1F680, 0x1F6FF}, {0x1F900, 0x1FAFF}, {0x20000, 0x3FFFD},
	} {
		if span[0] <= r && r <= span[1] {
			return true
		}
	}
	return false
}

func runeCells(r rune) int {
	switch {
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case isWide(r):
		return 2
	}
	return 1
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// summary adds up what was done, the commonest first.
func summary(counts map[string]int) string {
	total := 0
	var parts []string
	for _, did := range slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		if counts[a] != counts[b] {
			return counts[b] - counts[a]
		}
		return strings.Compare(a, b)
	}) {
		total += counts[did]
		parts = append(parts, fmt.Sprintf("%d %s", counts[did], did))
	}
	return plural(total, "message") + ": " + strings.Join(parts, ", ") + "."
}
