package cron_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/postroom/postroom/core/cron"
)

func zone(t interface{ Fatal(...any) }, name string) *time.Location {
	z, err := cron.Zone(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func parse(t interface{ Fatal(...any) }, text, tz string) cron.Schedule {
	s, err := cron.Parse(text, zone(t, tz))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func at(t *testing.T, text string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSchedulesNameInstants(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		schedule, zone, from string
		want                 []string // as the zone shows them
	}{
		{"*/15 * * * *", "UTC", "2026-01-01T00:00:00Z", []string{"2026-01-01T00:15:00Z", "2026-01-01T00:30:00Z"}},
		{"0 9 * * MON-fri", "UTC", "2026-01-02T09:00:00Z", []string{"2026-01-05T09:00:00Z", "2026-01-06T09:00:00Z"}},
		{"@weekly", "Asia/Kathmandu", "2026-01-01T00:00:00Z", []string{"2026-01-04T00:00:00+05:45", "2026-01-11T00:00:00+05:45"}},
		{"0 0 1 * 0", "UTC", "2026-01-01T00:00:00Z", []string{"2026-01-04T00:00:00Z", "2026-01-11T00:00:00Z"}}, // the 1st or a Sunday
		{"@every 90s", "Asia/Tokyo", "2026-01-01T00:00:01.7Z", []string{"2026-01-01T09:01:31+09:00", "2026-01-01T09:03:01+09:00"}},
		{"0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", []string{"2104-02-29T00:00:00Z", "2108-02-29T00:00:00Z"}}, // 2100 is no leap year

		// New York, 8 March 2026: 02:00 to 03:00 is left out.
		{"30 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", []string{"2026-03-08T03:00:00-04:00", "2026-03-09T02:30:00-04:00"}},
		{"0,20,40 2,3 * * *", "America/New_York", "2026-03-08T06:00:00Z", []string{"2026-03-08T03:00:00-04:00", "2026-03-08T03:20:00-04:00", "2026-03-08T03:40:00-04:00", "2026-03-09T02:00:00-04:00"}},
		{"*/30 * * * *", "America/New_York", "2026-03-08T06:00:00Z", []string{"2026-03-08T01:30:00-05:00", "2026-03-08T03:00:00-04:00", "2026-03-08T03:30:00-04:00"}},
		// New York, 1 November 2026: 01:00 to 02:00 is shown twice.
		{"30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", []string{"2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"}},
		{"30 1 * * *", "America/New_York", "2026-11-01T06:10:00Z", []string{"2026-11-02T01:30:00-05:00"}}, // asked in the second 01:10
		{"*/30 * * * *", "America/New_York", "2026-11-01T05:00:00Z", []string{"2026-11-01T01:30:00-04:00", "2026-11-01T01:00:00-05:00", "2026-11-01T01:30:00-05:00", "2026-11-01T02:00:00-05:00"}},
		// São Paulo, 4 November 2018: there is no midnight.
		{"@daily", "America/Sao_Paulo", "2018-11-03T12:00:00Z", []string{"2018-11-04T01:00:00-02:00", "2018-11-05T00:00:00-02:00"}},
		{"0 1 4 11 *", "America/Sao_Paulo", "2018-11-03T12:00:00Z", []string{"2018-11-04T01:00:00-02:00", "2019-11-04T01:00:00-03:00"}},
		{"0 * 4 11 *", "America/Sao_Paulo", "2018-11-03T12:00:00Z", []string{"2018-11-04T01:00:00-02:00", "2018-11-04T02:00:00-02:00"}},
		// Lord Howe Island puts its clocks back by half an hour, at 02:00.
		{"45 * * * *", "Australia/Lord_Howe", "2026-04-04T14:00:00Z", []string{"2026-04-05T01:45:00+11:00", "2026-04-05T01:45:00+10:30", "2026-04-05T02:45:00+10:30"}},
		{"45 1 * * *", "Australia/Lord_Howe", "2026-04-04T14:00:00Z", []string{"2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"}},
		// Samoa had no 30 December 2011.
		{"0 12 30 * *", "Pacific/Apia", "2011-12-01T00:00:00Z", []string{"2011-12-31T00:00:00+14:00", "2012-01-30T12:00:00+14:00"}},
	} {
		s := parse(t, c.schedule, c.zone)
		now := at(t, c.from)
		for _, want := range c.want {
			now = s.Next(now)
			if got := now.In(zone(t, c.zone)).Format(time.RFC3339); got != want {
				t.Errorf("%s in %s from %s: %s, want %s", c.schedule, c.zone, c.from, got, want)
			}
		}
	}
}

func TestWhatIsNoScheduleIsRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                              "is required",
		" \t":                           "is required",
		"* * * *":                       "must have five fields, which are minute, hour, day of month, month and day of week, not 4",
		"* * * * * *":                   "day of week, not 6",
		"61 * * * *":                    `has "61" as field 1, the minute: end of range (61) above maximum (59); it takes 0-59`,
		"* 24 * * *":                    "field 2, the hour: end of range (24) above maximum (23)",
		"* * 0 * *":                     "field 3, the day of month: beginning of range (0) below minimum (1)",
		"* * * FOO *":                   "field 4, the month: failed to parse int from FOO; it takes 1-12 or JAN-DEC",
		"* * * * 7":                     "field 5, the day of week: end of range (7) above maximum (6); it takes 0-6 or SUN-SAT, from Sunday",
		"*/90 * * * *":                  "a step of 90 is wider than the field",
		"*/0 * * * *":                   "step of range should be a positive number",
		"1,,2 * * * *":                  "something is missing beside a comma",
		", * * * *":                     "something is missing beside a comma",
		"1-2-3 * * * *":                 "too many hyphens",
		"5-1 * * * *":                   "beginning of range (5) beyond end of range (1)",
		"0 0 30 2 *":                    "never comes",
		"0 0 31 4,6,9,11 *":             "never comes",
		"TZ=UTC 0 0 * * *":              "must not name a time zone: it goes into tz",
		"CRON_TZ=UTC 0 0 * * *":         "must not name a time zone",
		"TZ=":                           "must not name a time zone",
		"0 0 TZ= * *":                   "character 3 has no meaning",
		"0 0 L * *":                     "failed to parse int from L",
		"0 0 \x1b * *":                  "character 1 has no meaning",
		"@sometimes":                    "it must be five fields, @hourly",
		"@daily at noon":                "it must be five fields, @hourly",
		"@every":                        "must give @every a duration in whole seconds",
		"@every soon":                   "must give @every a duration in whole seconds",
		"@every 500ms":                  "must give @every a duration in whole seconds",
		"@every 1.5s":                   "must give @every a duration in whole seconds",
		"@every -1h":                    "must give @every a duration in whole seconds",
		strings.Repeat("1,", 200) + " ": "is longer than 200 bytes",
	} {
		if _, err := cron.Parse(text, time.UTC); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	for _, name := range []string{"", "Local", "localtime", "Europe/Nowhere", "Europe", "../etc/passwd", "/etc/localtime", "Europe/Berlin\x00", "CEST"} {
		if _, err := cron.Zone(name); err == nil {
			t.Errorf("the zone %q is accepted", name)
		}
	}
}

func TestAScheduleIsWrittenWithSingleSpaces(t *testing.T) {
	t.Parallel()
	if got := parse(t, "  0\t2 *  * MON ", "UTC").String(); got != "0 2 * * MON" {
		t.Errorf("%q", got)
	}
}

// expressions makes schedules of numbers, ranges, steps and lists.
func expressions() *rapid.Generator[string] {
	field := func(low, high int, stars int) *rapid.Generator[string] {
		return rapid.Custom(func(t *rapid.T) string {
			part := func() string {
				a := rapid.IntRange(low, high).Draw(t, "a")
				switch rapid.IntRange(0, 4).Draw(t, "kind") {
				case 0:
					return fmt.Sprintf("%d-%d", a, rapid.IntRange(a, high).Draw(t, "b"))
				case 1:
					return fmt.Sprintf("*/%d", rapid.IntRange(2, high-low).Draw(t, "step"))
				case 2:
					return fmt.Sprintf("%d/%d", a, rapid.IntRange(2, high-low).Draw(t, "step"))
				}
				return fmt.Sprint(a)
			}
			if rapid.IntRange(0, 9).Draw(t, "star") < stars {
				return "*"
			}
			return strings.Join(rapid.SliceOfN(rapid.Custom(func(*rapid.T) string { return part() }), 1, 3).Draw(t, "parts"), ",")
		})
	}
	return rapid.Custom(func(t *rapid.T) string {
		return strings.Join([]string{
			field(0, 59, 2).Draw(t, "minute"), field(0, 23, 4).Draw(t, "hour"), field(1, 31, 7).Draw(t, "dom"),
			field(1, 12, 8).Draw(t, "month"), field(0, 6, 7).Draw(t, "dow"),
		}, " ")
	})
}

// Zones of every kind, each with days on which its clocks are changed.
var changes = []struct {
	zone string
	days []string
}{
	{"UTC", []string{"2026-03-08", "2000-02-28"}},
	{"America/New_York", []string{"2026-03-08", "2026-11-01", "2040-03-11"}},
	{"Europe/Berlin", []string{"2026-03-29", "2026-10-25"}},
	{"America/Sao_Paulo", []string{"2018-11-04", "2018-02-18"}},
	{"Africa/Cairo", []string{"2026-04-24", "2026-10-30"}},
	{"Australia/Lord_Howe", []string{"2026-04-05", "2026-10-04"}},
	{"Asia/Kathmandu", []string{"1986-01-01"}},
	{"Pacific/Apia", []string{"2011-12-30", "2011-09-24"}},
	{"America/St_Johns", []string{"2006-04-02", "2006-10-29"}}, // one minute past midnight
}

// The reference looks at every single minute.
func TestInstantsAreThoseOfASearchMinuteByMinute(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := rapid.SampledFrom(changes).Draw(t, "zone")
		z := zone(t, c.zone)
		day, err := time.ParseInLocation(time.DateOnly, rapid.SampledFrom(c.days).Draw(t, "day"), time.UTC)
		if err != nil {
			t.Fatal(err)
		}
		from := day.Add(time.Duration(rapid.IntRange(-36*3600, 36*3600).Draw(t, "second")) * time.Second)
		text := expressions().Draw(t, "schedule")
		s, err := cron.Parse(text, z)
		if err != nil {
			t.Skip(err) // 30 February
		}
		const days = 3
		want := reference(text, z, from, from.Add(days*24*time.Hour))
		got := from
		for i, w := range want {
			if got = s.Next(got); !got.Equal(w) {
				t.Fatalf("%s in %s from %s: instant %d is %s, want %s", text, c.zone, from, i+1, got.In(z), w.In(z))
			}
			// Last finds the newest from any before.
			if n := rapid.IntRange(0, i).Draw(t, "first"); i < 20 {
				if last := s.Last(want[n], w.Add(30*time.Second)); !last.Equal(w) {
					t.Fatalf("%s in %s: the last from %s to %s is %s", text, c.zone, want[n].In(z), w.In(z), last.In(z))
				}
			}
		}
		if got = s.Next(got); !got.After(from.Add(days * 24 * time.Hour)) {
			t.Fatalf("%s in %s from %s: %s is one too many", text, c.zone, from, got.In(z))
		}
	})
}

// reference lists the instants in (from, to]: of a schedule that names every
// hour those minutes at which the clock's reading matches; of any other the
// first minutes at which a matching reading is shown or skipped.
func reference(text string, z *time.Location, from, to time.Time) []time.Time {
	words := strings.Fields(text)
	minute, hour, dom, month, dow := set(words[0], 0, 59), set(words[1], 0, 23), set(words[2], 1, 31), set(words[3], 1, 12), set(words[4], 0, 6)
	elapsed := hour == set("*", 0, 23)
	fits := func(r time.Time) bool {
		day := dom[r.Day()] && dow[int(r.Weekday())]
		if words[2] != "*" && words[4] != "*" {
			day = dom[r.Day()] || dow[int(r.Weekday())]
		}
		return minute[r.Minute()] && hour[r.Hour()] && month[int(r.Month())] && day
	}
	show := func(m time.Time) time.Time {
		_, offset := m.In(z).Zone()
		return m.UTC().Add(time.Duration(offset) * time.Second)
	}
	var out []time.Time
	seen := map[int64]bool{} // readings
	start := from.Truncate(time.Minute).Add(-4 * time.Hour)
	last := show(start)
	for m := start; !m.After(to); m = m.Add(time.Minute) {
		r := show(m)
		hit := fits(r)
		if !elapsed {
			hit = hit && !seen[r.Unix()]
			for skipped := last.Add(time.Minute); skipped.Before(r); skipped = skipped.Add(time.Minute) {
				hit = hit || fits(skipped)
			}
			seen[r.Unix()], last = true, r
		}
		if hit && m.After(from) {
			out = append(out, m)
		}
	}
	return out
}

// set is what one field names.
func set(field string, low, high int) (out [60]bool) {
	for part := range strings.SplitSeq(field, ",") {
		span, by, stepped := strings.Cut(part, "/")
		from, to, step := low, high, 1
		if stepped {
			fmt.Sscan(by, &step)
		}
		if span != "*" {
			a, b, isRange := strings.Cut(span, "-")
			fmt.Sscan(a, &from)
			switch {
			case isRange:
				fmt.Sscan(b, &to)
			case !stepped:
				to = from
			}
		}
		for v := from; v <= to; v += step {
			out[v] = true
		}
	}
	return out
}

func TestTheLastOfALongBacklogIsFoundAtOnce(t *testing.T) {
	t.Parallel()
	first, now := at(t, "2020-01-01T00:00:00Z"), at(t, "2026-06-01T12:34:56.7Z")
	for text, want := range map[string]string{
		"* * * * *":   "2026-06-01T12:34:00Z",
		"* * * 1 *":   "2026-01-31T23:59:00Z",
		"0 0 1 1 *":   "2026-01-01T00:00:00Z",
		"@every 1s":   "2026-06-01T12:34:56Z",
		"@every 168h": "2026-05-27T00:00:00Z",
	} {
		if got := parse(t, text, "UTC").Last(first, now); !got.Equal(at(t, want)) {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"*/5 1-3 * JAN,2 sun", "@every 90s", "@daily", "TZ=", "0 0 30 2 *", "? ? ? ? ?"} {
		f.Add(s, "Europe/Berlin")
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		z, err := cron.Zone(name)
		if err != nil {
			z = time.UTC
		}
		s, err := cron.Parse(text, z)
		if err != nil {
			return
		}
		now := time.Unix(1_800_000_000, 0)
		next := s.Next(now)
		if !next.After(now) {
			t.Fatalf("%q in %s: %s is not after %s", text, z, next, now)
		}
		again, err := cron.Parse(s.String(), z)
		if err != nil || !again.Next(now).Equal(next) {
			t.Fatalf("%q is written as %q: %v", text, s, err)
		}
	})
}
