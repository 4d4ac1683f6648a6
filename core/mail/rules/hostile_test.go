package rules

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/mail/message"
)

// inputOf is what the mail path shows to rules of a message.
func inputOf(raw []byte) *Input {
	m := message.Parse(raw)
	return &Input{
		FromEmail: m.FromEmail, Subject: m.Subject, Headers: m.Headers, BodyPlain: m.BodyPlain, BodyHTML: m.BodyHTML,
		ListID: m.ListID, HasAttachment: m.HasAttachment, Labels: []string{"a"},
	}
}

// many is a rule with as many nodes of one kind as fit, none of which matches.
func many(leaf string) string {
	n := min(MaxNodes-1, (MaxConditionsBytes-100)/(len(leaf)+1))
	return `{"op":"or","children":[` + strings.Repeat(leaf+",", n-1) + leaf + `]}`
}

// hostileRules are the largest rules of each kind.
func hostileRules() map[string]string {
	return map[string]string{
		"headers that are missing": many(`{"op":"header_match","header":"x","pattern":"y"}`),
		"headers in another case":  many(`{"op":"header_match","header":"a1","pattern":"y"}`),
		"senders":                  many(leaf("sender_email", "x@y.z")),
		"domains":                  many(leaf("sender_domain", "y.zz")),
		"subjects":                 many(leaf("subject_contains", "ß")),
		"subject expressions":      many(leaf("subject_regex", "z$")),
		"bodies":                   many(leaf("body_contains", "ß")),
		"lists":                    many(leaf("list_id", "y.z")),
		"labels":                   many(leaf("label_present", "y")),
	}
}

// hostileMail is n bytes that are dear to look at.
func hostileMail(n int) map[string]string {
	headers := func(name string) string {
		var b strings.Builder
		for i := 0; b.Len() < n; i++ {
			fmt.Fprintf(&b, name+"%d: x\n", i)
		}
		return b.String()
	}
	return map[string]string{
		"many headers":   headers("A"),
		"a long subject": "Subject: " + strings.Repeat("É", n/2) + "\n\nx",
		"a long sender":  "From: " + strings.Repeat("É", n/2) + "@y.z\n\nx",
		"a long list":    "List-Id: " + strings.Repeat("É", n/2) + "\n\nx",
		"a long body":    "From: a@b\n\n" + strings.Repeat("é", n/2),
		"a long page":    "Content-Type: text/html\n\n" + strings.Repeat("<b>é", n/5),
	}
}

// Not parallel: it measures what the whole process allocates. What a rule
// costs must not be its nodes times the message.
func TestHostileRulesOnHostileMail(t *testing.T) {
	const size = 400 << 10
	for mail, raw := range hostileMail(size) {
		in := inputOf([]byte(raw))
		for name, conditions := range hostileRules() {
			t.Run(name+" on "+mail, func(t *testing.T) {
				c, err := Compile([]byte(conditions))
				if err != nil {
					t.Fatal(err)
				}
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				if c.Match(in) {
					t.Error("it matches")
				}
				runtime.ReadMemStats(&after)
				if used := after.TotalAlloc - before.TotalAlloc; used > 40*size {
					t.Errorf("allocated %d MiB for a message of %d KiB", used>>20, len(raw)>>10)
				}
			})
		}
	}
}
