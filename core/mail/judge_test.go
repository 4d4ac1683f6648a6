package mail

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/mail/message"
	"github.com/postroom/postroom/core/mail/rules"
)

// manyRules are n rules of every kind of condition, of which none matches.
func manyRules(n int) []Rule {
	kinds := []func(i int) any{
		func(i int) any {
			return map[string]any{"op": "sender_email", "value": fmt.Sprintf("nobody%d@example.com", i)}
		},
		func(i int) any {
			return map[string]any{"op": "sender_domain", "value": fmt.Sprintf("n%d.example.net", i)}
		},
		func(i int) any {
			return map[string]any{"op": "subject_contains", "value": fmt.Sprintf("never %d said", i)}
		},
		func(i int) any {
			return map[string]any{"op": "subject_regex", "value": fmt.Sprintf(`(?i)^\[x%d\] (re|fwd): .*%d$`, i, i)}
		},
		func(i int) any {
			return map[string]any{"op": "header_match", "header": "X-Mailer", "pattern": fmt.Sprintf(`^never-%d\.`, i)}
		},
		func(i int) any { return map[string]any{"op": "label_present", "value": fmt.Sprint("label", i)} },
		func(i int) any {
			return map[string]any{"op": "body_contains", "value": fmt.Sprintf("sentence that nobody %d wrote", i)}
		},
		func(i int) any {
			return map[string]any{"op": "list_id", "value": fmt.Sprintf("list%d.example.com", i)}
		},
		func(i int) any {
			return map[string]any{"op": "and", "children": []any{
				map[string]any{"op": "has_attachment"}, map[string]any{"op": "sender_email", "value": fmt.Sprintf("*@d%d.example", i)},
			}}
		},
	}
	list := make([]Rule, n)
	for i := range list {
		list[i] = Rule{ID: fmt.Sprint(i), Scope: "global", ActionType: "star", ActionParameters: json.RawMessage("{}"), Conditions: job.Payload(kinds[i%len(kinds)](i))}
	}
	return list
}

// prose is text of n words, the same for a seed.
func prose(seed uint64, n int) string {
	r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // text
	var b strings.Builder
	for range n {
		for range 2 + r.IntN(8) {
			b.WriteByte(byte('a' + r.IntN(26)))
		}
		b.WriteByte(" \n"[r.IntN(10)/9])
	}
	return b.String()
}

func TestABookOfManyRulesFindsTheOneThatMatches(t *testing.T) {
	t.Parallel()
	list := manyRules(1000)
	last := Rule{ID: "last", Scope: "account", ScopeRef: optional("a"), ActionType: "star", ActionParameters: json.RawMessage("{}"), Conditions: json.RawMessage(`{"op":"body_contains","value":"needle"}`)}
	book := CompileBook(1, append(list, last))
	if len(book.Broken) > 0 {
		t.Fatalf("%v", book.Broken)
	}
	in := func() *rules.Input { return &rules.Input{BodyPlain: []byte("hay needle hay")} }
	if r := book.Match("a", in()); r == nil || r.ID != "last" {
		t.Errorf("%+v", r)
	}
	if r := book.Match("b", in()); r != nil {
		t.Errorf("%+v", r)
	}
}

// A thousand rules against messages of some four kilobytes of text, of which
// none matches: the worst case of ordinary mail.
//
//	go test -run '^$' -bench ThousandRules -benchtime 10000x .
func BenchmarkThousandRules(b *testing.B) {
	book := CompileBook(1, manyRules(1000))
	var messages []*message.Message
	for i := range min(b.N, 10_000) {
		raw := fmt.Sprintf("From: Ann <ann%d@example.org>\nTo: me@example.org\nSubject: %s\nX-Mailer: some mailer %d\nList-Id: <x%d.example.org>\n\n%s",
			i, strings.ReplaceAll(prose(uint64(i), 6), "\n", " "), i, i, prose(uint64(1000+i), 600)) //nolint:gosec // small
		messages = append(messages, message.Parse([]byte(raw)))
	}
	b.ResetTimer()
	begin := cpuTime(b)
	for i := range b.N {
		m := messages[i%len(messages)]
		in := rules.Input{FromEmail: m.FromEmailLower, Subject: m.Subject, Headers: m.Headers, BodyPlain: m.BodyPlain, ListID: m.ListID}
		if book.Match("account", &in) != nil {
			b.Fatal("a rule matched")
		}
	}
	b.ReportMetric(float64((cpuTime(b)-begin).Microseconds())/float64(b.N), "cpu-µs/msg")
}

// cpuTime is what the process has used, so that a busy machine does not count.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A pattern that makes backtracking engines run for years, on the longest text
// that a pattern is run over: time per byte stays the same.
func BenchmarkPathologicalRegex(b *testing.B) {
	book := CompileBook(1, []Rule{{
		ID: "x", Scope: "global", ActionType: "star", ActionParameters: json.RawMessage("{}"),
		Conditions: json.RawMessage(`{"op":"subject_regex","value":"^(a+)+$"}`),
	}})
	for _, kb := range []int{1, 4, 16} {
		subject := strings.Repeat("a", kb<<10-1) + "!"
		b.Run(fmt.Sprintf("%dKiB", kb), func(b *testing.B) {
			b.SetBytes(int64(len(subject)))
			for range b.N {
				if book.Match("account", &rules.Input{Subject: subject}) != nil {
					b.Fatal("matched")
				}
			}
		})
	}
}
