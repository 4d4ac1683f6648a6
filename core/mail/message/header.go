package message

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/jhillyerd/enmime/v2"
	"github.com/jhillyerd/enmime/v2/mediatype"
)

// header is a block of header fields, values still encoded.
type header struct {
	values map[string][]string
	// mtype and params are the block's Content-Type; mtype is "" when there is
	// none or it cannot be read. Bytes over 127 in other fields are read in its
	// character set when they are not UTF-8.
	mtype  string
	params map[string]string
}

func (h header) get(name string) string {
	if v := h.values[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// decode makes one line of valid UTF-8 of a value, encoded words decoded.
func (h header) decode(v string) string {
	v = decodeWords(h.utf8(v))
	if strings.ContainsAny(v, "\r\n") {
		v = strings.Map(func(r rune) rune {
			if r == '\r' || r == '\n' {
				return ' '
			}
			return r
		}, v)
	}
	return v
}

func (h header) utf8(v string) string {
	if utf8.ValidString(v) {
		return v
	}
	if text, ok := decodeCharset(h.params["charset"], []byte(v)); ok && utf8.Valid(text) {
		return string(text)
	}
	return Readable([]byte(v))
}

func cleanNUL(s string) string { return strings.ReplaceAll(s, "\x00", "\uFFFD") }

// looksLikeHeader says whether b begins with a field name and a colon.
func looksLikeHeader(b []byte) bool {
	for i, c := range b {
		switch {
		case c == ':':
			return i > 0
		case c == ' ' || c == '\t':
			// Some programs put a space before the colon.
			rest := bytes.TrimLeft(b[i:min(len(b), i+8)], " \t")
			return i > 0 && len(rest) > 0 && rest[0] == ':'
		case c < '!' || c > '~' || i > 200:
			return false
		}
	}
	return false
}

// splitHeader cuts at the first empty line. Bytes that do not begin like a
// header have none.
func splitHeader(b []byte) (block, body []byte) {
	switch {
	case bytes.HasPrefix(b, []byte("\n")):
		return nil, b[1:]
	case bytes.HasPrefix(b, []byte("\r\n")):
		return nil, b[2:]
	case !looksLikeHeader(b):
		return nil, b
	}
	for i := 0; ; {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			return b, nil
		}
		i += n + 1
		switch {
		case bytes.HasPrefix(b[i:], []byte("\n")):
			return b[:i], b[i+1:]
		case bytes.HasPrefix(b[i:], []byte("\r\n")):
			return b[:i], b[i+2:]
		}
	}
}

// problems counts what enmime says about a header, never its words: they
// quote the message.
type problems struct{ n int }

func (p *problems) AddError(string, string, ...any)   { p.n++ }
func (p *problems) AddWarning(string, string, ...any) { p.n++ }

func (m *Message) readHeader(block []byte, limit int) header {
	if len(block) == 0 {
		return header{}
	}
	if len(block) > limit {
		m.note("a header is too long and was cut")
		block = block[:limit]
		if i := bytes.LastIndexByte(block, '\n'); i >= 0 {
			block = block[:i+1]
		}
	}
	var found problems
	all := io.MultiReader(bytes.NewReader(block), strings.NewReader("\r\n\r\n"))
	values, err := enmime.ReadHeader(bufio.NewReaderSize(all, min(len(block)+4, 4<<10)), &found)
	if err != nil || found.n > 0 {
		m.note("a header has lines that could not be read")
	}
	h := header{values: values}
	h.mtype, h.params = mediaType(h.get("Content-Type"))
	return h
}

// mediaType is lenient and bounded; an empty type means that none could be
// read.
func mediaType(v string) (mtype string, params map[string]string) {
	const max = 4 << 10
	if v == "" {
		return "", nil
	}
	if len(v) > max {
		v = v[:max]
	}
	mtype, params, _, err := mediatype.Parse(v)
	if err != nil {
		// What comes before the parameters is often fine.
		mtype, _, _ = strings.Cut(v, ";")
		params = nil
	}
	mtype = strings.ToLower(strings.TrimSpace(mtype))
	if !strings.Contains(mtype, "/") || strings.ContainsAny(mtype, " \t") || !utf8.ValidString(mtype) || strings.Contains(mtype, "\x00") {
		return "", params
	}
	return mtype, params
}

// decodeWords decodes RFC 2047 encoded words. It is more lenient than the
// standard library in two ways that real mail needs: words of one character
// set are joined before they are decoded, since senders cut characters in two,
// and a word may stand anywhere in the text.
func decodeWords(s string) string {
	if !strings.Contains(s, "=?") {
		return s
	}
	var out strings.Builder
	var pending []byte // decoded bytes, waiting for more of their character set
	charset := ""
	flush := func() {
		text, ok := decodeCharset(charset, pending)
		if !ok || !utf8.Valid(text) {
			out.WriteString(Readable(text))
		} else {
			out.Write(text)
		}
		pending, charset = nil, ""
	}
	for s != "" {
		start := strings.Index(s, "=?")
		if start < 0 {
			break
		}
		word, ok := cutWord(s[start:])
		if !ok {
			if pending != nil {
				flush()
			}
			out.WriteString(s[:start+2])
			s = s[start+2:]
			continue
		}
		between := s[:start]
		if pending != nil && strings.TrimSpace(between) != "" {
			flush()
			out.WriteString(between)
		} else if pending == nil {
			out.WriteString(between)
		} else if word.charset != charset {
			flush()
		}
		charset = word.charset
		pending = append(pending, word.decoded...)
		if pending == nil {
			pending = []byte{}
		}
		s = s[start+word.length:]
	}
	if pending != nil {
		flush()
	}
	out.WriteString(s)
	return out.String()
}

type encodedWord struct {
	charset string
	decoded []byte
	length  int
}

// cutWord reads the encoded word s begins with. It looks at no more than
// maxWord bytes, so that a value full of beginnings costs linear time.
func cutWord(s string) (encodedWord, bool) {
	const maxWord = 1000
	if len(s) > maxWord {
		s = s[:maxWord]
	}
	rest := s[2:]
	charset, rest, ok := strings.Cut(rest, "?")
	if !ok || charset == "" || len(charset) > 60 || strings.ContainsAny(charset, " \t") || len(rest) < 2 || rest[1] != '?' {
		return encodedWord{}, false
	}
	encoding := rest[0]
	text, after, ok := strings.Cut(rest[2:], "?=")
	if !ok {
		return encodedWord{}, false
	}
	// RFC 2231 allows a language after the character set.
	charset, _, _ = strings.Cut(charset, "*")
	w := encodedWord{charset: strings.ToLower(charset), length: len(s) - len(after)}
	if !knownCharset(w.charset) {
		return encodedWord{}, false
	}
	switch encoding {
	case 'B', 'b':
		w.decoded, _ = decodeBase64([]byte(text))
	case 'Q', 'q':
		w.decoded, _ = decodeQuoted([]byte(strings.ReplaceAll(text, "_", " ")))
	default:
		return encodedWord{}, false
	}
	return w, true
}
