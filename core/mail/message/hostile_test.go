package message

import (
	"encoding/base64"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// hostile are messages of n bytes made to cost time or memory. The strings
// below are repeated, so a step that looks at the rest of the message for each
// of them shows as a square.
func hostile(n int) map[string]func() string {
	const from = "From: a@b\n"
	fill := func(head, piece string) func() string {
		return func() string { return head + strings.Repeat(piece, (n-len(head))/len(piece)) }
	}
	multi := from + "Content-Type: multipart/mixed; boundary=a\n\n"
	return map[string]func() string{
		"empty parts":              fill(multi, "--a\n\n"),
		"almost boundaries":        fill(multi, "--ab\n"),
		"dashes":                   fill(multi, "-"),
		"line ends in a multipart": fill(multi, "\n"),
		"parts with long types":    fill(multi, "--a\nContent-Type: x/y;"+strings.Repeat("a1=2;b=\"(", 450)+"\n\n"),
		"nested parts": func() string {
			var b strings.Builder
			for i := 0; b.Len() < n; i++ {
				fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n", i, i)
			}
			return b.String()
		},
		"nested parts of one boundary": fill("", "Content-Type: multipart/mixed; boundary=b\n\n--b\n"),
		"broken base64":                fill(from+"Content-Transfer-Encoding: base64\n\n", "!"),
		"padding":                      fill(from+"Content-Transfer-Encoding: base64\n\n", "="),
		"broken quoted-printable":      fill(from+"Content-Transfer-Encoding: quoted-printable\n\n", "="),
		"blanks in quoted-printable":   fill(from+"Content-Transfer-Encoding: quoted-printable\n\n", "=                "),
		"long quoted-printable line":   fill(from+"Content-Transfer-Encoding: quoted-printable\n\n", "=C3=A9"),
		"one long header":              fill("Subject: ", "x"),
		"many headers":                 fill("", "a: b\n"),
		"header lines without colon":   fill("Subject: x\n", "x\n"),
		"open encoded words":           fill("Subject: ", "=?u?q?"),
		"encoded words":                fill("Subject: ", "=?utf-8?q?=41?= "),
		"addresses":                    fill("To: ", "a@b,"),
		"addresses without commas":     fill("To: ", "a b <c@d> "),
		"open comments":                fill("To: ", "("),
		"open quotes":                  fill("To: ", `"a\`),
		"open brackets":                fill("To: ", "<"),
		"groups":                       fill("To: ", "a:"),
		"lists of open comments":       fill("", "To: "+strings.Repeat("(", 15000)+"\n"),
		"lists of groups":              fill("", "To: "+strings.Repeat("a:", 7500)+"\n"),
		"lists of quotes":              fill("", "To: "+strings.Repeat(`"a\`, 5000)+"\n"),
		"lists of words":               fill("", "To: "+strings.Repeat("=?u?q?", 2500)+"\n"),
		"lists of atoms":               fill("", "To: "+strings.Repeat("a ", 7500)+"\n"),
		"words":                        fill("To: ", "=?utf-8?q?a?="),
		"references":                   fill("References: ", "<a>"),
		"open references":              fill("References: ", "<"),
		"html tags":                    fill(from+"Content-Type: text/html\n\n", "<a b=c "),
		"html comments":                fill(from+"Content-Type: text/html\n\n", "<!--"),
		"html nesting":                 fill(from+"Content-Type: text/html\n\n", "<div>"),
		"html entities":                fill(from+"Content-Type: text/html\n\n", "&amp"),
		"html scripts":                 fill(from+"Content-Type: text/html\n\n", "<script><!--"),
		"zeros":                        fill("", "\x00"),
		"CR alone":                     fill("", "a:b\r"),
		"Latin-1":                      fill(from+"Content-Type: text/plain; charset=iso-8859-1\n\n", "\xe9"),
		"not text":                     fill("", "\xff\xfe\n\n"),
		"large base64 text": func() string {
			return from + "Content-Transfer-Encoding: base64\n\n" + base64.StdEncoding.EncodeToString(make([]byte, n*3/4))
		},
	}
}

// Not parallel: it measures what the whole process allocates. The limit is
// 25 MiB outside; a square shows at 4 as well.
func TestHostileMail(t *testing.T) {
	const size = 4 << 20
	for name, build := range hostile(size) {
		t.Run(name, func(t *testing.T) {
			raw := []byte(build())
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			m := Parse(raw)
			runtime.ReadMemStats(&after)
			// A panic or a hang shows by itself; this shows a bomb.
			if used := after.TotalAlloc - before.TotalAlloc; used > uint64(8*size)+64<<20 {
				t.Errorf("allocated %d MiB for %d MiB", used>>20, len(raw)>>20)
			}
			if len(m.Attachments) > maxParts || len(m.References) > maxReferences || len(m.Notes) > maxNotes {
				t.Error("a list is not bounded")
			}
			for _, note := range m.Notes {
				if strings.Contains(note, "failed inside") {
					t.Error(note)
				}
			}
		})
	}
}
