package message

import (
	"net/mail"
	"strings"
	"time"

	"github.com/jhillyerd/enmime/v2"
)

// maxStrictList is the longest list given to the strict parser, whose time is
// not linear on hostile input.
const maxStrictList = 16 << 10

func (m *Message) addresses(head header, name string) []Address {
	var out []Address
	for _, v := range head.values[name] {
		v = strings.TrimSpace(head.utf8(v))
		if v == "" {
			continue
		}
		if len(v) <= maxStrictList {
			list, err := enmime.ParseAddressList(v)
			if err == nil {
				for _, a := range list {
					out = append(out, address(a.Name, a.Address))
				}
				continue
			}
		}
		lenient := lenientList(v)
		if len(lenient) == 0 {
			m.note(name + " could not be read")
		}
		out = append(out, lenient...)
	}
	return out
}

func address(name, email string) Address {
	clean := func(s string) string {
		s = strings.ToValidUTF8(cleanNUL(s), "\uFFFD")
		return strings.Join(strings.Fields(s), " ")
	}
	return Address{Name: clean(decodeWords(name)), Email: clean(email)}
}

// lenientList takes a list apart where the grammar fails, in one pass.
func lenientList(v string) []Address {
	var out []Address
	quoted, depth, angle, start := false, 0, false, 0
	add := func(part string) {
		if a, ok := lenientAddress(part); ok {
			out = append(out, a)
		}
	}
	for i := 0; i < len(v); i++ {
		c := v[i]
		switch {
		case c == '\\' && (quoted || depth > 0):
			i++
		case c == '"' && depth == 0:
			quoted = !quoted
		case quoted:
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case depth > 0:
		case c == '<':
			angle = true
		case c == '>':
			angle = false
		case (c == ',' || c == ';') && !angle:
			add(v[start:i])
			start = i + 1
		}
	}
	add(v[start:])
	return out
}

func lenientAddress(part string) (Address, bool) {
	part = strings.TrimSpace(part)
	if part == "" {
		return Address{}, false
	}
	if open := strings.LastIndexByte(part, '<'); open >= 0 {
		email := part[open+1:]
		if end := strings.IndexByte(email, '>'); end >= 0 {
			email = email[:end]
		}
		return address(unquote(part[:open]), strings.TrimSpace(email)), true
	}
	fields := strings.Fields(part)
	for i, f := range fields {
		if !strings.Contains(f, "@") {
			continue
		}
		name := strings.Join(append(append([]string{}, fields[:i]...), fields[i+1:]...), " ")
		return address(unquote(strings.Trim(name, "()")), strings.Trim(f, `"'()`)), true
	}
	// A word alone is a mailbox of the sender's own system, as reports have.
	if len(fields) == 1 {
		return address("", strings.Trim(fields[0], `"'`)), true
	}
	return address(unquote(part), ""), true
}

func unquote(s string) string {
	s = strings.TrimSpace(s)
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = s[1 : len(s)-1]
	}
	if !strings.Contains(s, `\`) {
		return s
	}
	return strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(s)
}

// looseDates are forms that mail has and the standard does not.
var looseDates = []string{
	"2 Jan 2006 15:04:05 -0700", "2 Jan 2006 15:04:05", "2 Jan 2006 15:04 -0700", "2 Jan 2006 15:04",
	"2 Jan 06 15:04:05 -0700", "2 Jan 06 15:04:05", "2-Jan-2006 15:04:05 -0700", "2-Jan-2006 15:04:05",
	"2 January 2006 15:04:05 -0700", "2 January 2006 15:04:05", "2 Jan 2006",
	"Jan 2 15:04:05 2006 -0700", "Jan 2 15:04:05 2006", "Jan 2 15:04:05 -0700 2006", "Jan 2, 2006 15:04:05 -0700",
	"Jan 2, 2006 15:04:05", "2006-01-02T15:04:05Z07:00", "2006-01-02 15:04:05 -0700", "2006-01-02 15:04:05", "2006-01-02",
}

// zones are the names RFC 5322 gives a meaning; any other name means UTC.
var zones = map[string]string{
	"EST": "-0500", "EDT": "-0400", "CST": "-0600", "CDT": "-0500",
	"MST": "-0700", "MDT": "-0600", "PST": "-0800", "PDT": "-0700",
}

// parseDate reads a date in UTC; ok is false when it cannot be read or lies
// outside 1970 to 2100.
func parseDate(v string) (time.Time, bool) {
	if len(v) > 200 {
		return time.Time{}, false
	}
	// What most mail has first: the standard library tries many layouts before
	// this one, and makes an error for each.
	t, err := time.Parse("Mon, 2 Jan 2006 15:04:05 -0700", v)
	if err != nil {
		t, err = mail.ParseDate(v)
	}
	if err != nil || namedZone(v) {
		if loose, ok := parseLoose(v); ok {
			t, err = loose, nil
		}
	}
	if err != nil {
		return time.Time{}, false
	}
	t = t.UTC()
	if t.Year() < 1970 || t.Year() > 2100 {
		return time.Time{}, false
	}
	return t, true
}

// namedZone says that the date ends in a zone's name, for which the standard
// library invents an offset of zero.
func namedZone(v string) bool {
	fields := strings.Fields(v)
	return len(fields) > 0 && zones[strings.ToUpper(fields[len(fields)-1])] != ""
}

func parseLoose(v string) (time.Time, bool) {
	if i := strings.IndexByte(v, '('); i >= 0 {
		v = v[:i]
	}
	fields := strings.Fields(v)
	if len(fields) == 0 {
		return time.Time{}, false
	}
	if isWeekday(fields[0]) {
		fields = fields[1:]
	}
	kept := fields[:0]
	for _, f := range fields {
		upper := strings.ToUpper(f)
		switch {
		case zones[upper] != "":
			f = zones[upper]
		case len(kept) >= 2 && isLetters(upper) && !isMonth(upper):
			continue // a zone without a meaning
		}
		kept = append(kept, f)
	}
	v = strings.Join(kept, " ")
	for _, layout := range looseDates {
		if t, err := time.Parse(layout, v); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

func isWeekday(f string) bool {
	f = strings.TrimRight(f, ",.")
	if len(f) < 3 {
		return false
	}
	switch strings.ToLower(f[:3]) {
	case "mon", "tue", "wed", "thu", "fri", "sat", "sun":
		return isLetters(strings.ToUpper(f))
	}
	return false
}

func isMonth(upper string) bool {
	const months = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC"
	return len(upper) >= 3 && strings.Contains(months, upper[:3])
}

func isLetters(upper string) bool {
	return upper != "" && strings.Trim(upper, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}
