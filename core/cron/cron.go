// Package cron is the calendar of schedules: it reads a schedule and tells the
// instants it names. It knows nothing of jobs, databases or the time now. It
// may import the standard library and robfig/cron, which parses the fields and
// searches a calendar; what daylight saving does to it is decided here.
//
// The time zone database is part of the program, so that a zone is known in a
// container that has none. Where the machine has one, that one is asked first.
package cron

import (
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // see above

	robfig "github.com/robfig/cron/v3"
)

// maxLength is the longest text of a schedule, in bytes.
const maxLength = 200

// Schedule is a set of instants, all on a whole second.
type Schedule struct {
	text    string
	zone    *time.Location
	every   time.Duration        // the time from one instant to the next, or
	fields  *robfig.SpecSchedule // the readings of a clock, in UTC so that none is missing or twice
	elapsed bool                 // every hour is named: time that has passed counts, not the clock's reading
}

// String is the schedule as it was given, with single spaces.
func (s Schedule) String() string { return s.text }

// Zone returns the time zone of a name from the IANA database.
func Zone(name string) (*time.Location, error) {
	zone, err := time.LoadLocation(name)
	if err != nil || name == "" || strings.HasPrefix(strings.ToLower(name), "local") { // another one on each machine
		return nil, errors.New("is no time zone: it must be a name such as Europe/Berlin or UTC")
	}
	return zone, nil
}

// field is one of the five.
type field struct {
	name     string
	takes    string
	min, max int
	parser   robfig.Parser
}

var fields = []field{
	{"minute", "0-59", 0, 59, robfig.NewParser(robfig.Minute)},
	{"hour", "0-23", 0, 23, robfig.NewParser(robfig.Hour)},
	{"day of month", "1-31", 1, 31, robfig.NewParser(robfig.Dom)},
	{"month", "1-12 or JAN-DEC", 1, 12, robfig.NewParser(robfig.Month)},
	{"day of week", "0-6 or SUN-SAT, from Sunday", 0, 6, robfig.NewParser(robfig.Dow)},
}

var allFields = robfig.NewParser(robfig.Minute | robfig.Hour | robfig.Dom | robfig.Month | robfig.Dow | robfig.Descriptor)

// Parse reads a schedule: five fields, a name such as @daily, or @every with a
// duration. Its error continues the name of what was parsed.
func Parse(text string, zone *time.Location) (Schedule, error) {
	words := strings.Fields(text)
	s := Schedule{text: strings.Join(words, " "), zone: zone}
	var err error
	switch {
	case len(words) == 0:
		return s, errors.New("is required, such as \"30 2 * * *\"")
	case len(s.text) > maxLength:
		return s, fmt.Errorf("is longer than %d bytes", maxLength)
	case strings.Contains(words[0], "TZ="):
		return s, errors.New("must not name a time zone: it goes into tz")
	case words[0] == "@every":
		s.every, err = parseEvery(words[1:])
		return s, err
	case !strings.HasPrefix(words[0], "@"):
		if err := checkFields(words); err != nil {
			return s, err
		}
	}
	parsed, err := allFields.Parse(s.text)
	if err != nil {
		return s, fmt.Errorf("is %q: it must be five fields, @hourly, @daily, @weekly, @monthly, @yearly or @every", s.text)
	}
	s.fields = parsed.(*robfig.SpecSchedule) // @every is the only other kind
	s.fields.Location = time.UTC
	const allHours = 1<<24 - 1
	s.elapsed = s.fields.Hour&allHours == allHours
	if s.Next(time.Unix(0, 0)).IsZero() {
		return s, errors.New("never comes: there is no such day")
	}
	return s, nil
}

func parseEvery(words []string) (time.Duration, error) {
	d, err := time.ParseDuration(strings.Join(words, " "))
	if err != nil || d < time.Second || d%time.Second != 0 {
		return 0, errors.New("must give @every a duration in whole seconds, such as @every 90s or @every 1h30m")
	}
	return d, nil
}

// checkFields finds the field that is wrong. It also refuses what the parser
// would take for something else than was meant.
func checkFields(words []string) error {
	if len(words) != len(fields) {
		return fmt.Errorf("must have five fields, which are minute, hour, day of month, month and day of week, not %d", len(words))
	}
	for i, f := range fields {
		if err := f.check(words[i]); err != nil {
			return fmt.Errorf("has %q as field %d, the %s: %w; it takes %s", words[i], i+1, f.name, err, f.takes)
		}
	}
	return nil
}

func (f field) check(word string) error {
	if i := strings.IndexFunc(word, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && !strings.ContainsRune("*?,-/", r)
	}); i >= 0 {
		return fmt.Errorf("character %d has no meaning", i+1)
	}
	for part := range strings.SplitSeq(word, ",") {
		if part == "" {
			return errors.New("something is missing beside a comma")
		}
		if _, step, has := strings.Cut(part, "/"); has {
			if n, err := strconv.Atoi(step); err == nil && n > f.max-f.min {
				return fmt.Errorf("a step of %d is wider than the field", n) // */90 is no hour and a half
			}
		}
	}
	if _, err := f.parser.Parse(word); err != nil {
		reason, _, _ := strings.Cut(err.Error(), ": ") // the rest repeats the word
		return errors.New(reason)
	}
	return nil
}

// Next is the first instant after t; the zero time if there is none within ten
// years, which cannot happen to a schedule that was parsed.
func (s Schedule) Next(t time.Time) time.Time {
	switch {
	case s.every > 0:
		return t.Truncate(time.Second).Add(s.every).UTC()
	case s.elapsed:
		return s.nextElapsed(t.In(s.zone))
	}
	return s.nextReading(t.In(s.zone))
}

// Last is the last instant that is not after now. first must be an instant of
// the schedule that is not after now either.
func (s Schedule) Last(first, now time.Time) time.Time {
	if s.every > 0 {
		return first.Add(now.Sub(first).Truncate(s.every)).UTC()
	}
	// It is the first second that is followed by nothing.
	n := sort.Search(int(now.Sub(first)/time.Second), func(n int) bool {
		next := s.Next(first.Add(time.Duration(n) * time.Second))
		return next.IsZero() || next.After(now)
	})
	return first.Add(time.Duration(n) * time.Second).UTC()
}

// nextElapsed is for schedules that name every hour: their minutes count in
// every hour that passes, so the hour that comes twice has them twice.
func (s Schedule) nextElapsed(t time.Time) time.Time {
	from := reading(t)
	for {
		_, offset := t.Zone()
		_, change := t.ZoneBounds()
		read := s.nextAfter(from)
		if read.IsZero() {
			return read
		}
		at := read.Add(-time.Duration(offset) * time.Second)
		if change.IsZero() || at.Before(change) {
			return at
		}
		// The clocks are changed before; go on at that very moment.
		t = change
		from = reading(t).Add(-time.Second)
	}
}

// nextReading is for schedules that name hours: each reading of the clock
// counts once a day, the first time it is shown; those that are left out when
// the clocks are put forward come at that moment.
func (s Schedule) nextReading(t time.Time) time.Time {
	for read := s.nextAfter(reading(t)); !read.IsZero(); read = s.nextAfter(read) {
		if at := s.shown(read); at.After(t) {
			return at.UTC()
		}
	}
	return time.Time{}
}

// nextAfter searches the calendar. The parser's own search ends after five
// years, which is less than from one leap year to the next around 2100.
func (s Schedule) nextAfter(read time.Time) time.Time {
	next := s.fields.Next(read)
	if next.IsZero() {
		next = s.fields.Next(read.AddDate(5, 0, 0))
	}
	return next
}

// reading is what a clock in t's zone shows at t, written in UTC.
func reading(t time.Time) time.Time {
	_, offset := t.Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second)
}

// shown is when a clock in the zone shows a reading for the first time, or the
// moment at which it is put forward past it.
func (s Schedule) shown(read time.Time) time.Time {
	y, m, d := read.Date()
	t := time.Date(y, m, d, read.Hour(), read.Minute(), read.Second(), 0, s.zone)
	start, end := t.ZoneBounds()
	switch shows := reading(t); {
	case shows.After(read):
		return start
	case shows.Before(read):
		return end
	case start.IsZero():
		return t
	}
	_, before := start.Add(-time.Nanosecond).Zone()
	if earlier := read.Add(-time.Duration(before) * time.Second); earlier.Before(start) {
		return earlier
	}
	return t
}
