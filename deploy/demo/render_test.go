package main

import (
	"strings"
	"testing"
	"time"
)

func TestFit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, in string
		width    int
		want     string
	}{
		{"plain text stays", "Walk on Sunday?", 20, "Walk on Sunday?"},
		{"text of exactly the width stays", "12345", 5, "12345"},
		{"longer text ends in an ellipsis", "123456", 5, "1234…"},
		{"no space before the ellipsis", "1234 6789", 6, "1234…"},
		{"line breaks and tabs become one space", "a\r\n\t b", 10, "a b"},
		{"outer space is dropped", "  a  ", 10, "a"},
		{"escape sequences lose their escape", "\x1b[31mred\x1b]0;title\x07", 40, "\uFFFD[31mred\uFFFD]0;title\uFFFD"},
		{"C1 controls and DEL are replaced", "a\u009bb\x7f", 10, "a\uFFFDb\uFFFD"},
		{"controls of direction are dropped", "invoice\u202egpj.exe\u2069", 20, "invoicegpj.exe"},
		{"invisible characters are dropped", "a\u200b\u00ad\ufeffb", 10, "ab"},
		{"line separators become a space", "a\u2028b", 10, "a b"},
		{"bytes that are not UTF-8 are replaced", "a\xffb", 10, "a\uFFFDb"},
		{"wide letters count twice", "領収書です", 7, "領収書…"},
		{"wide letters that just fit stay", "領収", 4, "領収"},
		{"an accent of its own counts nothing", "e\u0301e\u0301", 2, "e\u0301e\u0301"},
		{"heaps of accents are cut", "e" + strings.Repeat("\u0301", 50), 5, "e" + strings.Repeat("\u0301", 3)},
		{"right-to-left text stays", "مرحبا", 10, "مرحبا"},
		{"no room", "abc", 0, ""},
		{"nothing but what is dropped", " \u200b\t", 5, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := fit(c.in, c.width); got != c.want {
				t.Errorf("fit(%q, %d) = %q, want %q", c.in, c.width, got, c.want)
			}
		})
	}
}

func decided(action, rule, status string) message {
	m := message{FromName: "Jonas Reed", Subject: "Walk on Sunday?", Labels: []string{"Receipts"}}
	m.Decision = &struct {
		ActionType   string `json:"action_type"`
		RuleName     string `json:"rule_name"`
		ActionStatus string `json:"action_status"`
	}{action, rule, status}
	return m
}

func TestOutcome(t *testing.T) {
	t.Parallel()
	moved := decided("move", "Newsletters", "completed")
	moved.Raw.Folder = "Newsletters"
	for _, c := range []struct {
		name      string
		m         message
		did, why  string
		unsettled bool
	}{
		{"no decision yet", message{}, "not decided yet", "", true},
		{"no rule", decided("none", "", ""), "left in the inbox", "no rule matched", false},
		{"a rule that does nothing", decided("none", "Family", ""), "left in the inbox", "rule Family", false},
		{"moved", moved, "moved to Newsletters", "rule Newsletters", false},
		{"labelled", decided("apply_label", "R", "completed"), "labelled Receipts", "rule R", false},
		{"starred", decided("star", "R", "completed"), "starred", "rule R", false},
		{"read", decided("mark_read", "R", "completed"), "marked as read", "rule R", false},
		{"an action this program does not know", decided("snooze", "R", "completed"), "snooze done", "rule R", false},
		{"decided, not done", decided("star", "R", "queued"), "star not done yet", "rule R", true},
		{"under way", decided("star", "R", "executing"), "star not done yet", "rule R", true},
		{"failed", decided("star", "R", "failed"), "star failed", "rule R", false},
		{"waits for a person", decided("delete", "R", "approved_pending"), "delete waits for approval", "rule R", false},
		{"rejected", decided("delete", "R", "rejected"), "delete was rejected", "rule R", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			did, why, settled := outcome(c.m)
			if did != c.did || why != c.why || settled == c.unsettled {
				t.Errorf("got %q, %q, %v; want %q, %q, %v", did, why, settled, c.did, c.why, !c.unsettled)
			}
		})
	}
}

func TestLine(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 3, 9, 41, 7, 0, time.UTC)

	t.Run("tells time, sender, subject and what was done", func(t *testing.T) {
		t.Parallel()
		got := line(at, decided("none", "", ""), "left in the inbox", "no rule matched", 80)
		want := "09:41:07  Jonas Reed    Walk on Sunday?   → left in the inbox  (no rule matched)"
		if got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	})
	t.Run("the address stands in for a name, and words for nothing", func(t *testing.T) {
		t.Parallel()
		got := line(at, message{FromName: "\u200b", FromEmail: "a@b.example"}, "starred", "", 100)
		if !strings.Contains(got, "a@b.example") || !strings.Contains(got, "(no subject)") {
			t.Error(got)
		}
		if got := line(at, message{}, "starred", "", 100); !strings.Contains(got, "(no sender)") {
			t.Error(got)
		}
	})
	t.Run("is never wider than a terminal of 80 or more", func(t *testing.T) {
		t.Parallel()
		m := message{FromName: strings.Repeat("名", 50), Subject: strings.Repeat("a\x1b領", 400)}
		for width := 80; width < 300; width++ {
			got := line(at, m, "moved to "+strings.Repeat("x", 100), "rule "+strings.Repeat("y", 100), width)
			if cells(got) > width || strings.ContainsRune(got, '\x1b') {
				t.Fatalf("at %d: %d cells: %q", width, cells(got), got)
			}
			got = line(at, m, "starred", "rule "+strings.Repeat("y", 100), width)
			if cells(got) > width {
				t.Fatalf("at %d: %d cells: %q", width, cells(got), got)
			}
		}
	})
}

func TestSummary(t *testing.T) {
	t.Parallel()
	got := summary(map[string]int{"starred": 1, "moved to Archive": 3, "labelled Receipts": 3})
	want := "7 messages: 3 labelled Receipts, 3 moved to Archive, 1 starred."
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestQuote(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"data/Maildir/new": "data/Maildir/new",
		"my data":          "'my data'",
		"it's":             `'it'\''s'`,
		"$(rm)":            "'$(rm)'",
	} {
		if got := quote(in); got != want {
			t.Errorf("quote(%q) = %s, want %s", in, got, want)
		}
	}
}
