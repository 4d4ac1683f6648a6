// Package message turns the bytes of a mail message into the fields that are
// stored and that rules look at. It never refuses a message and never panics:
// whatever cannot be read is left out and said in Notes.
//
// Header blocks, media types and address lists are read by enmime. The tree of
// parts is walked and decoded here, on slices of the message, because enmime's
// own walk has no bound: a few hundred kilobytes of empty parts, or a few
// megabytes of broken base64, keep it busy for minutes or take gigabytes.
// Here time is linear in the size and memory a small multiple of what the
// bodies need: at most 32 levels of parts, 1,000 parts and 512 KiB of header;
// what lies beyond is noted.
//
// It may import the standard library, enmime, golang.org/x/net/html and
// golang.org/x/text.
package message

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	maxHeaderBytes     = 512 << 10
	maxPartHeaderBytes = 64 << 10
	maxDepth           = 32
	maxParts           = 1000
	// What is kept of both bodies together. A libsql server takes rows of
	// 5,000,000 bytes, and the headers stand in the same one.
	maxBodies     = 3 << 20
	maxNotes      = 20
	maxReferences = 1000
	snippetRunes  = 200
)

// Message is what could be read. All strings are valid UTF-8 without NUL, but
// for Subject, which may hold a NUL.
type Message struct {
	// SHA256 and Size are of the bytes given to Parse, all of them.
	SHA256 [32]byte
	Size   int64

	// MessageID is as in the header, with its angle brackets. Mail repeats
	// it and lacks it: it identifies nothing.
	MessageID  string
	References []string
	InReplyTo  []string

	// FromEmail is as given; FromEmailLower is for comparing.
	FromEmail      string
	FromEmailLower string
	FromName       string
	To, Cc, Bcc    []Address

	Subject string
	// Snippet is at most 200 characters of the text, white space folded.
	Snippet string
	// Date is the Date header in UTC, zero when there is none that makes
	// sense.
	Date time.Time
	// ListID is what stands in the angle brackets of List-Id.
	ListID string
	// Automatic is Bounce, AutoReply, List or Bulk, and "" for mail that a
	// person may have written.
	Automatic string
	// Headers has canonical names and decoded values, in order.
	Headers map[string][]string

	// BodyPlain and BodyHTML are the bytes that transfer decoding and the
	// declared character set gave; without a declared one, or with UTF-8 or
	// ASCII, they are unchanged, whatever they hold. They may share memory
	// with the bytes given to Parse. Several text parts are joined by a line
	// end.
	BodyPlain, BodyHTML []byte

	// HasAttachment leaves out inline pictures, signatures and the parts of
	// a delivery report; Attachments lists them all.
	HasAttachment bool
	Attachments   []Attachment

	// Notes say what could not be read, without any text of the message.
	Notes []string
}

// Address is one mailbox. Email may lack a domain, or be empty where only a
// name could be made out.
type Address struct {
	Name  string `json:"name"`
	Email string `json:"email"`
}

// Attachment describes a part that is not the message's text.
type Attachment struct {
	Name        string `json:"name"`
	ContentType string `json:"content_type"`
	// Size is that of the decoded bytes.
	Size int64 `json:"size"`
}

// Parse reads a message of any content. The bytes must not change while the
// result is in use.
func Parse(raw []byte) *Message {
	m := &Message{
		SHA256:  sha256.Sum256(raw),
		Size:    int64(len(raw)),
		Headers: map[string][]string{},
	}
	var head header
	var body []byte
	m.guard("header", func() {
		b := m.lineEnds(stripMbox(raw))
		b = m.skipLeadingJunk(b)
		var block []byte
		block, body = splitHeader(b)
		if len(block) == 0 {
			m.note("no header")
		}
		head = m.readHeader(block, maxHeaderBytes)
		m.setHeader(head)
	})
	m.guard("body", func() { m.readBody(head, body) })
	m.guard("snippet", func() { m.Snippet = snippet(m.BodyPlain, m.BodyHTML) })
	return m
}

// guard keeps a panic in code that reads hostile bytes from losing the
// message: what was read before it stays.
func (m *Message) guard(what string, fn func()) {
	defer func() {
		if r := recover(); r != nil {
			// The value may quote the message; its type does not.
			m.note(fmt.Sprintf("reading the %s failed inside (%T)", what, r))
		}
	}()
	fn()
}

func (m *Message) note(text string) {
	if len(m.Notes) < maxNotes && !slices.Contains(m.Notes, text) {
		m.Notes = append(m.Notes, text)
	}
}

// stripMbox drops the "From " line an mbox file puts before each message, but
// not a From field with a space before its colon.
func stripMbox(b []byte) []byte {
	if !bytes.HasPrefix(b, []byte("From ")) || looksLikeHeader(b) {
		return b
	}
	i := bytes.IndexAny(b, "\r\n")
	if i < 0 {
		return nil
	}
	if b[i] == '\r' && i+1 < len(b) && b[i+1] == '\n' {
		i++
	}
	return b[i+1:]
}

// lineEnds copies a message whose lines end in CR alone into one with LF. All
// other messages stay as they are.
func (m *Message) lineEnds(b []byte) []byte {
	cr := bytes.IndexByte(b, '\r')
	if cr < 0 {
		return b
	}
	if lf := bytes.IndexByte(b, '\n'); lf >= 0 {
		// With line feeds about, only a header that ends in two CR, none of
		// them doubled before, is proof.
		end := bytes.Index(b[:lf], []byte("\r\r"))
		if end <= cr {
			return b
		}
	}
	m.note("lines end in CR alone")
	out := bytes.Clone(b)
	for i, c := range out {
		if c == '\r' && (i+1 == len(out) || out[i+1] != '\n') {
			out[i] = '\n'
		}
	}
	return out
}

// skipLeadingJunk drops lines before the first header that are remains of
// other formats: a quoted mbox line, a continuation of nothing.
func (m *Message) skipLeadingJunk(b []byte) []byte {
	rest := b
	for range 10 {
		if looksLikeHeader(rest) {
			if len(rest) < len(b) {
				m.note("lines before the header were skipped")
			}
			return rest
		}
		if len(rest) == 0 || rest[0] != ' ' && rest[0] != '\t' && !bytes.HasPrefix(rest, []byte(">From ")) {
			return b
		}
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			return b
		}
		rest = rest[i+1:]
	}
	return b
}

func (m *Message) setHeader(head header) {
	for name, values := range head.values {
		out := make([]string, len(values))
		for i, v := range values {
			out[i] = cleanNUL(head.decode(v))
		}
		m.Headers[cleanNUL(strings.ToValidUTF8(name, "\uFFFD"))] = out
	}
	m.Subject = strings.TrimSpace(head.decode(head.get("Subject")))
	m.MessageID = firstID(cleanNUL(head.decode(head.get("Message-Id"))))
	m.References = m.ids(head, "References")
	m.InReplyTo = m.ids(head, "In-Reply-To")
	m.ListID = listID(cleanNUL(head.decode(head.get("List-Id"))))

	from := m.addresses(head, "From")
	if len(from) == 0 {
		from = m.addresses(head, "Sender")
	}
	if len(from) > 0 {
		m.FromEmail, m.FromName = from[0].Email, from[0].Name
		m.FromEmailLower = strings.ToLower(m.FromEmail)
	} else {
		m.note("no sender")
	}
	m.To = m.addresses(head, "To")
	m.Cc = m.addresses(head, "Cc")
	m.Bcc = m.addresses(head, "Bcc")

	m.Automatic = m.automatic(head)

	if v := head.get("Date"); v != "" {
		date, ok := parseDate(head.decode(v))
		if !ok {
			m.note("Date could not be read")
		}
		m.Date = date
	}
}

// firstID is the first id in angle brackets, or the whole value.
func firstID(v string) string {
	if ids := angled(v, 1); len(ids) > 0 {
		return ids[0]
	}
	return strings.TrimSpace(v)
}

func (m *Message) ids(head header, name string) []string {
	var out []string
	for _, v := range head.values[name] {
		ids := angled(cleanNUL(head.decode(v)), maxReferences-len(out)+1)
		out = append(out, ids...)
		if len(out) > maxReferences {
			m.note(name + " has too many ids")
			return out[:maxReferences]
		}
	}
	return out
}

// angled lists what stands in angle brackets, brackets included.
func angled(v string, max int) []string {
	var out []string
	for len(out) < max {
		start := strings.IndexByte(v, '<')
		if start < 0 {
			break
		}
		v = v[start:]
		end := strings.IndexByte(v, '>')
		if end < 0 {
			break
		}
		// A bracket that was opened twice began anew.
		id := v[strings.LastIndexByte(v[:end], '<') : end+1]
		v = v[end+1:]
		// A fold in the middle of an id leaves white space behind.
		if id = strings.Join(strings.Fields(id), ""); id != "<>" {
			out = append(out, id)
		}
	}
	return out
}

func listID(v string) string {
	v = strings.TrimSpace(v)
	if ids := angled(v, 1); len(ids) > 0 {
		return strings.Trim(ids[0], "<>")
	}
	return v
}
