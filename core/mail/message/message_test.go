package message

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// check holds what is true of every message whatever its bytes.
func check(t testing.TB, raw []byte, m *Message) {
	t.Helper()
	if m.SHA256 != sha256.Sum256(raw) || m.Size != int64(len(raw)) {
		t.Error("hash or size is wrong")
	}
	clean := func(what, s string) {
		if !utf8.ValidString(s) || strings.Contains(s, "\x00") {
			t.Errorf("%s is not clean text: %q", what, s)
		}
	}
	for name, values := range m.Headers {
		clean("header name", name)
		for _, v := range values {
			clean(name, v)
			if strings.ContainsAny(v, "\r\n") {
				t.Errorf("%s holds a line end: %q", name, v)
			}
		}
	}
	for _, list := range [][]Address{m.To, m.Cc, m.Bcc, {{m.FromName, m.FromEmail}}} {
		for _, a := range list {
			clean("name", a.Name)
			clean("email", a.Email)
		}
	}
	for _, a := range m.Attachments {
		clean("attachment", a.Name)
		clean("attachment type", a.ContentType)
		if a.Size < 0 {
			t.Error("negative size")
		}
	}
	for _, s := range append(append([]string{m.MessageID, m.ListID, m.Snippet, m.FromEmailLower}, m.References...), m.InReplyTo...) {
		clean("field", s)
	}
	for _, s := range m.Notes {
		clean("note", s)
		if strings.Contains(s, "failed inside") {
			t.Errorf("a panic was caught: %s", s)
		}
	}
	if !utf8.ValidString(m.Subject) {
		t.Errorf("subject is not UTF-8: %q", m.Subject)
	}
	if n := utf8.RuneCountInString(m.Snippet); n > snippetRunes {
		t.Errorf("snippet has %d runes", n)
	}
	if !m.Date.IsZero() && (m.Date.Year() < 1970 || m.Date.Year() > 2100) {
		t.Errorf("date is %v", m.Date)
	}
	if _, err := json.Marshal(m.Headers); err != nil {
		t.Error(err)
	}
}

func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

func TestParse(t *testing.T) {
	t.Parallel()
	const head = "From: Ann <ann@Example.com>\nSubject: hi\n"
	utf16le := "h\x00\xe9\x00l\x00\n\x00"
	for _, tc := range []struct {
		name, raw                     string
		from, subject, plain, snippet string
		html                          string
		note                          string // part of a note, "" for no notes at all
	}{
		{"an ordinary message", head + "\nhello\nworld\n", "ann@Example.com", "hi", "hello\nworld\n", "hello world", "", ""},
		{"CRLF stays as it is", crlf(head + "\nhello\nworld\n"), "ann@Example.com", "hi", "hello\r\nworld\r\n", "hello world", "", ""},
		{"CR line ends", strings.ReplaceAll(head+"\nhello\nworld\n", "\n", "\r"), "ann@Example.com", "hi", "hello\nworld\n", "hello world", "", "CR alone"},
		{"a leading mbox line", "From ann@x Mon Jan  1 00:00:00 2002\n" + head + "\nFrom here\n", "ann@Example.com", "hi", "From here\n", "From here", "", ""},
		{"a leading mbox line with CRLF", "From ann@x\r\n" + crlf(head) + "\r\nx", "ann@Example.com", "hi", "x", "x", "", ""},
		{"only an mbox line", "From ann", "", "", "", "", "", "no header"},
		{"remains of another format before the header", ">From x\n\tfoo\n" + head + "\nx", "ann@Example.com", "hi", "x", "x", "", "skipped"},
		{"one byte", "x", "", "", "x", "x", "", "no header"},
		{"one line end", "\n", "", "", "", "", "", "no header"},
		{"no headers at all", "Hello Bob,\nsee you\n\nsoon", "", "", "Hello Bob,\nsee you\n\nsoon", "Hello Bob, see you soon", "", "no header"},
		{"only headers", head, "ann@Example.com", "hi", "", "", "", ""},
		{"only headers without a last line end", "From: a@b", "a@b", "", "", "", "", ""},
		{"a subject that is a date", "From: a@b\nSubject: 2024-01-02\n\nx", "a@b", "2024-01-02", "x", "x", "", ""},
		{"a NUL in subject and body", "From: a\x00 <a@b>\nSubject: a\x00b\n\nx\x00y", "a@b", "a\x00b", "x\x00y", "x y", "", ""},
		{"Latin-1 without a character set", "From: J\xfcrgen <j@b>\nSubject: caf\xe9\n\nna\xefve\xff", "j@b", "café", "na\xefve\xff", "naïveÿ", "", ""},
		{"undeclared UTF-8", "From: Jürgen <j@b>\nSubject: café\n\nnaïve", "j@b", "café", "naïve", "naïve", "", ""},
		{"declared Latin-1", "From: a@b\nSubject: caf\xe9\nContent-Type: text/plain; charset=iso-8859-1\n\nna\xefve", "a@b", "café", "naïve", "naïve", "", ""},
		{"declared KOI8-R in the header too", "From: a@b\nSubject: \xf0\xd2\xc9\nContent-Type: text/plain; charset=koi8-r\n\n\xf0", "a@b", "При", "П", "П", "", ""},
		{"broken UTF-8 that is declared stays", "From: a@b\nContent-Type: text/plain; charset=utf-8\n\nx\xff\xfe\x00", "a@b", "", "x\xff\xfe\x00", "xÿþ", "", ""},
		{"UTF-16", "From: a@b\nContent-Type: text/plain; charset=utf-16le\n\n" + utf16le, "a@b", "", "hél\n", "hél", "", ""},
		{"UTF-16 with a mark", "From: a@b\nContent-Type: text/plain; charset=\"UTF-16\"\nContent-Transfer-Encoding: base64\n\n" + base64.StdEncoding.EncodeToString([]byte("\xff\xfe"+utf16le)), "a@b", "", "hél\n", "hél", "", ""},
		{"an unknown character set", "From: a@b\nContent-Type: text/plain; charset=klingon\n\nq\xff", "a@b", "", "q\xff", "qÿ", "", "character set"},
		{"base64", "From: a@b\nContent-Transfer-Encoding: BASE64\n\naGVs\nbG8=\n", "a@b", "", "hello", "hello", "", ""},
		{"base64 with dirt, without padding", "From: a@b\nContent-Transfer-Encoding: base64\n\naG!Vs\x80bG8", "a@b", "", "hello", "hello", "", "transfer encoding"},
		{"base64 joined", "From: a@b\nContent-Transfer-Encoding: base64\n\naGVsbG8=aGVsbG8=", "a@b", "", "hellohello", "hellohello", "", ""},
		{"quoted-printable", "From: a@b\nContent-Transfer-Encoding: quoted-printable\n\na=3Db=\nc=  \r\nd=C3=A9", "a@b", "", "a=bcd\xc3\xa9", "a=bcdé", "", ""},
		{"broken quoted-printable", "From: a@b\nContent-Transfer-Encoding: quoted-printable\n\na=ZZ b==", "a@b", "", "a=ZZ b=", "a=ZZ b=", "", "transfer encoding"},
		{"an unknown transfer encoding", "From: a@b\nContent-Transfer-Encoding: x-foo\n\nabc", "a@b", "", "abc", "abc", "", "transfer encoding"},
		{"encoded words", "From: =?utf-8?q?J=C3=BCrgen?= <j@b>\nSubject: =?iso-8859-1?Q?caf=E9_?= =?utf-8?B?w6k=?= x\n\n", "j@b", "café é x", "", "", "", ""},
		{"a character cut in two between words", "From: a@b\nSubject: =?utf-8?Q?=C3?=\n =?utf-8?Q?=A9?=\n\n", "a@b", "é", "", "", "", ""},
		{"words of two character sets", "From: a@b\nSubject: =?koi8-r?Q?=F0?= =?utf-8?Q?=C3=A9?=\n\n", "a@b", "Пé", "", "", "", ""},
		{"words that are none", "From: a@b\nSubject: =?x =? ?= =?klingon?Q?x?= =?utf-8?Z?x?=\n\n", "a@b", "=?x =? ?= =?klingon?Q?x?= =?utf-8?Z?x?=", "", "", "", ""},
		{"a folded subject", "From: a@b\nSubject: one\n two\n\tthree\n\nx", "a@b", "one two three", "x", "x", "", ""},
		{"html only", "From: a@b\nContent-Type: text/html\n\n<style>p{}</style><p>Hi <b>th</b>ere</p><script>x</script>&amp; you", "a@b", "", "", "Hi there & you", "<style>p{}</style><p>Hi <b>th</b>ere</p><script>x</script>&amp; you", ""},
		{"alternative", crlf("From: a@b\nContent-Type: multipart/alternative; boundary=\"x y\"\n\npreamble\n--x y\n\nplain\n--x y\nContent-Type: text/html\n\n<i>h</i>\n--x y--\nepilogue"), "a@b", "", "plain", "plain", "<i>h</i>", ""},
		{"an inner boundary that begins like the outer", "From: a@b\nContent-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: multipart/mixed; boundary=xy\n\n--xy\n\none\n--xy--\n--x\n\ntwo\n--x--", "a@b", "", "one\ntwo", "one two", "", ""},
		{"not closed", "From: a@b\nContent-Type: multipart/mixed; boundary=x\n\n--x\n\none\n", "a@b", "", "one\n", "one", "", "not closed"},
		{"inner one not closed", "From: a@b\nContent-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: multipart/mixed; boundary=y\n\n--y\n\none\n--x\n\ntwo\n--x--\n", "a@b", "", "one\ntwo", "one two", "", "not closed"},
		{"no boundary", "From: a@b\nContent-Type: multipart/mixed\n\n--x\n\none\n", "a@b", "", "--x\n\none\n", "--x one", "", "no boundary"},
		{"a boundary that does not occur", "From: a@b\nContent-Type: multipart/mixed; boundary=x\n\none", "a@b", "", "one", "one", "", "does not occur"},
		{"empty parts", "From: a@b\nContent-Type: multipart/mixed; boundary=x\n\n--x\n--x\n\n--x\nContent-Type: text/html\n--x--", "a@b", "", "", "", "", ""},
		{"a part without a header or an empty line", "From: a@b\nContent-Type: multipart/mixed; boundary=x\n\n--x\nhello there\n--x--", "a@b", "", "hello there", "hello there", "", ""},
		{"a broken content type", "From: a@b\nContent-Type: ;;=\x00/\n\nx", "a@b", "", "x", "x", "", ""},
		{"text without a subtype", "From: a@b\nContent-Type: text\n\nx", "a@b", "", "x", "x", "", ""},
		{"a sender without a domain", "From: MAILER-DAEMON\nSubject: x\n\n", "MAILER-DAEMON", "x", "", "", "", ""},
		{"a sender in broken syntax", "From: \"Foo, Bar <foo@bar.com>\n\n", "foo@bar.com", "", "", "", "", ""},
		{"no sender", "Subject: x\n\ny", "", "x", "y", "y", "", "no sender"},
		{"a space before the colon", "From : a@b\nSubject : x\n\ny", "a@b", "x", "y", "y", "", ""},
		{"header names of any case", "FROM: a@b\nsubject: x\n\ny", "a@b", "x", "y", "y", "", ""},
		{"a line without a colon", "From: a@b\nSubject: x\nfoo bar\n\ny", "a@b", "x foo bar", "y", "y", "", "lines that could not"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m := Parse([]byte(tc.raw))
			check(t, []byte(tc.raw), m)
			if m.FromEmail != tc.from || m.Subject != tc.subject || string(m.BodyPlain) != tc.plain || m.Snippet != tc.snippet || string(m.BodyHTML) != tc.html {
				t.Errorf("from %q, subject %q, plain %q, snippet %q, html %q", m.FromEmail, m.Subject, m.BodyPlain, m.Snippet, m.BodyHTML)
			}
			if noted := strings.Join(m.Notes, "; "); tc.note == "" && noted != "" || !strings.Contains(noted, tc.note) {
				t.Errorf("notes %q, want %q", noted, tc.note)
			}
		})
	}
}

func TestHeaderFields(t *testing.T) {
	t.Parallel()
	raw := "Message-ID: <one@x>\nReferences: <a@x> <b\n @x> junk\nIn-Reply-To: Your message <b@x>\n" +
		"From: \"Ann, A.\" <Ann@Example.COM>\nTo: b@x, =?utf-8?q?C=C3=A9?= <c@x>\nTo: d@x\nCc: team: e@x, f@x;\nBcc: undisclosed-recipients:;\n" +
		"List-Id: The list <list.example.com>\nReceived: one\nReceived: two\nDate: Tue, 02 Jan 2024 03:04:05 -0500 (EST)\n\nx"
	m := Parse([]byte(raw))
	check(t, []byte(raw), m)
	if m.MessageID != "<one@x>" || !slices.Equal(m.References, []string{"<a@x>", "<b@x>"}) || !slices.Equal(m.InReplyTo, []string{"<b@x>"}) {
		t.Errorf("ids %q %q %q", m.MessageID, m.References, m.InReplyTo)
	}
	if m.FromName != "Ann, A." || m.FromEmail != "Ann@Example.COM" || m.FromEmailLower != "ann@example.com" {
		t.Errorf("from %q %q %q", m.FromName, m.FromEmail, m.FromEmailLower)
	}
	if !slices.Equal(m.To, []Address{{"", "b@x"}, {"Cé", "c@x"}, {"", "d@x"}}) || !slices.Equal(m.Cc, []Address{{"", "e@x"}, {"", "f@x"}}) {
		t.Errorf("to %q, cc %q, bcc %q", m.To, m.Cc, m.Bcc)
	}
	if m.ListID != "list.example.com" || !slices.Equal(m.Headers["Received"], []string{"one", "two"}) {
		t.Errorf("list %q, received %q", m.ListID, m.Headers["Received"])
	}
	if want := time.Date(2024, 1, 2, 8, 4, 5, 0, time.UTC); !m.Date.Equal(want) || m.Date.Location() != time.UTC {
		t.Errorf("date %v", m.Date)
	}
}

func TestDates(t *testing.T) {
	t.Parallel()
	want := time.Date(2002, 8, 22, 11, 26, 25, 0, time.UTC)
	for _, v := range []string{
		"Thu, 22 Aug 2002 18:26:25 +0700", "22 Aug 2002 11:26:25 GMT", "Thu, 22 Aug 2002 07:26:25 EDT", "Thu, 22 Aug 2002 07:26:25 -0400 (EDT)",
		"Thu Aug 22 11:26:25 2002", "Thu Aug 22 11:26:25 GMT 2002", "Thursday, 22 August 2002 11:26:25 +0000", "Thu,  22 Aug 2002  11:26:25  XYZ",
		"22 Aug 02 11:26:25 +0000", "2002-08-22T11:26:25Z", "Thu, 22-Aug-2002 11:26:25", "=?utf-8?q?Thu,_22_Aug_2002_11:26:25_+0000?=",
	} {
		raw := []byte("Date: " + v + "\n\n")
		if m := Parse(raw); !m.Date.Equal(want) {
			t.Errorf("%q: %v %q", v, m.Date, m.Notes)
		}
	}
	for _, v := range []string{"yesterday", "Thu, 99 Aug 2002 11:26:25 +0000", "1 Jan 0001 00:00:00 +0000", "1 Jan 9999 00:00:00 +0000", "\x00", strings.Repeat("1 ", 5000)} {
		if m := Parse([]byte("Date: " + v + "\n\n")); !m.Date.IsZero() {
			t.Errorf("%q: %v", v, m.Date)
		}
	}
}

func TestAttachments(t *testing.T) {
	t.Parallel()
	part := func(header, body string) string { return "--x\n" + header + "\n\n" + body + "\n" }
	mail := func(kind string, parts ...string) *Message {
		return Parse([]byte("From: a@b\nContent-Type: multipart/" + kind + "; boundary=x\n\n" + strings.Join(parts, "") + "--x--\n"))
	}
	pdf := part("Content-Type: application/pdf; name=\"=?utf-8?q?=C3=A9.pdf?=\"\nContent-Transfer-Encoding: base64", "aGVs\nbG8=")
	picture := part("Content-Type: image/png\nContent-ID: <1>\nContent-Disposition: inline; filename=p.png", "12345")
	for _, tc := range []struct {
		name string
		m    *Message
		has  bool
		want []Attachment
	}{
		{"a file", mail("mixed", part("Content-Type: text/plain", "hi"), pdf), true, []Attachment{{"é.pdf", "application/pdf", 5}}},
		{"an inline picture", mail("related", part("Content-Type: text/html", "hi"), picture), false, []Attachment{{"p.png", "image/png", 5}}},
		{"text that says attachment", mail("mixed", part("Content-Disposition: attachment; filename*=utf-8''%C3%A9.txt", "hi=")), true, []Attachment{{"é.txt", "text/plain", 3}}},
		{"a signature", mail("signed", part("Content-Type: text/plain", "hi"), part("Content-Type: application/pgp-signature", "abc")), false, []Attachment{{"", "application/pgp-signature", 3}}},
		{"a delivery report", mail("report", part("", "hi"), part("Content-Type: message/delivery-status", "x"), part("Content-Type: message/rfc822", "Subject: y\n\nz")), false,
			[]Attachment{{"", "message/delivery-status", 1}, {"", "message/rfc822", 13}}},
		{"a forwarded message", mail("mixed", part("Content-Type: message/rfc822", "Subject: y\n\nz")), true, []Attachment{{"", "message/rfc822", 13}}},
		{"a file as the whole message", Parse([]byte("Content-Type: application/pdf\n\n12")), true, []Attachment{{"", "application/pdf", 2}}},
		{"none", mail("mixed", part("", "hi")), false, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if tc.m.HasAttachment != tc.has || !slices.Equal(tc.m.Attachments, tc.want) {
				t.Errorf("%v %+v, notes %q", tc.m.HasAttachment, tc.m.Attachments, tc.m.Notes)
			}
		})
	}
}

func TestBodySharesMemory(t *testing.T) {
	t.Parallel()
	raw := []byte("From: a@b\n\n" + strings.Repeat("0123456789", 300_000))
	m := Parse(raw)
	if len(m.BodyPlain) != 3_000_000 || &m.BodyPlain[0] != &raw[11] {
		t.Error("a plain body is copied")
	}
}

func TestOfLongBodiesTheBeginningIsKept(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", maxBodies/4) // half of what is kept
	both := func(plain, html string) *Message {
		return Parse([]byte("From: a@b\nDate: Thu, 01 Jan 2026 00:00:00 +0000\nContent-Type: multipart/alternative; boundary=b\n\n--b\n\n" + plain + "\n--b\nContent-Type: text/html\n\n" + html + "\n--b--\n"))
	}
	for name, c := range map[string]struct {
		m           *Message
		plain, html int
		noted       bool
	}{
		"all of what fits":              {both(long, long), maxBodies / 2, maxBodies / 2, false},
		"first the plain text":          {both(long+"é", long), maxBodies/2 + 2, maxBodies/2 - 2, true},
		"not half a character":          {both(long+"x", long), maxBodies/2 + 1, maxBodies/2 - 2, true},
		"and of the rest what there is": {both(long+long+long, long), maxBodies, 0, true},
	} {
		if len(c.m.BodyPlain) != c.plain || len(c.m.BodyHTML) != c.html || (len(c.m.Notes) > 0) != c.noted {
			t.Errorf("%s: %d and %d bytes, notes %q; want %d and %d", name, len(c.m.BodyPlain), len(c.m.BodyHTML), c.m.Notes, c.plain, c.html)
		}
	}
	if m := both(long+long, "\x80\x80\x80\x80\x80"); len(m.BodyHTML) != 0 {
		t.Errorf("%d bytes are kept where there was no room", len(m.BodyHTML))
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	nested := ""
	for i := range maxDepth + 1 {
		nested += strings.ReplaceAll("Content-Type: multipart/mixed; boundary=N\n\n--N\n", "N", strconv.Itoa(i))
	}
	for _, tc := range []struct{ name, raw, note string }{
		{"depth", nested, "nested too deeply"},
		{"parts", "Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat("--b\n\nx\n", maxParts+1), "too many parts"},
		{"header", "Subject: x\nX: " + strings.Repeat("x", maxHeaderBytes) + "\n\nbody", "too long"},
		{"references", "References: " + strings.Repeat("<a>", maxReferences+1) + "\n\n", "too many ids"},
	} {
		m := Parse([]byte(tc.raw))
		if noted := strings.Join(m.Notes, "; "); !strings.Contains(noted, tc.note) {
			t.Errorf("%s: notes %q", tc.name, noted)
		}
		if tc.name == "header" && (m.Subject != "x" || string(m.BodyPlain) != "body") {
			t.Errorf("what stands around the long header is lost: %q %q", m.Subject, m.BodyPlain)
		}
	}
}

func TestSnippetEnds(t *testing.T) {
	t.Parallel()
	m := Parse([]byte("From: a@b\n\n" + strings.Repeat("é ", 40_000)))
	if want := strings.TrimSpace(strings.Repeat("é ", 100)); m.Snippet != want {
		t.Errorf("snippet %q", m.Snippet)
	}
}

func TestRealMail(t *testing.T) {
	t.Parallel()
	const folder = "../../../../shared/mail"
	if _, err := os.Stat(folder); err != nil {
		t.Skip("the folder shared/mail with real mail is not here")
	}
	files, err := filepath.Glob(folder + "/*/*")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	var n, from, subject, date, text, attached, noted int
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m := Parse(raw)
		check(t, raw, m)
		if t.Failed() {
			t.Fatal(file)
		}
		count := func(c *int, yes bool) {
			if yes {
				*c++
			}
		}
		n++
		count(&from, m.FromEmail != "")
		count(&subject, m.Subject != "")
		count(&date, !m.Date.IsZero())
		count(&text, len(m.BodyPlain)+len(m.BodyHTML) > 0)
		count(&attached, m.HasAttachment)
		count(&noted, len(m.Notes) > 0)
		if testing.Verbose() && (len(m.Notes) > 0 || m.FromEmail == "" || len(m.BodyPlain)+len(m.BodyHTML) == 0) {
			t.Log(filepath.Base(file), m.Notes, m.FromEmail, m.Headers["Date"])
		}
	}
	t.Logf("%d messages: %d with sender, %d subject, %d date, %d text, %d attachment, %d with notes", n, from, subject, date, text, attached, noted)
	if from < n*98/100 || subject < n*95/100 || date < n*95/100 || text < n*98/100 {
		t.Error("too many could not be read")
	}
}

func FuzzParse(f *testing.F) {
	for _, build := range hostile(1 << 10) {
		f.Add([]byte(build()))
	}
	f.Add([]byte("From: =?utf-8?q?a?= <a@b>\nContent-Type: multipart/mixed; boundary=x\n\n--x\nContent-Transfer-Encoding: base64\n\naGVsbG8=\n--x\nContent-Type: text/html; charset=utf-16\n\n<p>\n--x--"))
	f.Add([]byte("From x\r\rSubject: \xff\x00\r\r=41=\r"))
	f.Add([]byte("Date: Thu, 22 Aug 2002 07:26:25 EDT\nTo: \"a <b@c>, (d), e:f;\nReferences: <<a>\nContent-Disposition: attachment; filename*=x''%\n\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := bytes.Clone(raw)
		check(t, raw, Parse(raw))
		if !bytes.Equal(before, raw) {
			t.Error("the message was changed")
		}
	})
}

// A small message, as most mail is.
func BenchmarkParse(b *testing.B) {
	raw := []byte("Received: from mx.example.com by mail.example.org with ESMTP id 7; Thu, 1 Jan 2026 00:00:00 +0000\nFrom: Person <p7@example.com>\n" +
		"To: me@example.org\nSubject: number 7\nMessage-ID: <7@example.com>\nReferences: <6@example.com>\nDate: Thu, 1 Jan 2026 00:00:00 +0000\n" +
		"MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n" + strings.Repeat("some words of text\n", 30))
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		Parse(raw)
	}
}
