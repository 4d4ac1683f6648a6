package message

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/html"
	"golang.org/x/text/encoding/charmap"
)

// Readable returns b as valid UTF-8 for people and for matching: a byte that
// is not part of a UTF-8 character is read as Windows-1252, which is what mail
// without a declared character set most often is.
func Readable(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	var out strings.Builder
	out.Grow(len(b) + len(b)/8)
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		if r == utf8.RuneError && size == 1 {
			r = charmap.Windows1252.DecodeByte(b[0])
		}
		out.WriteRune(r)
		b = b[size:]
	}
	return out.String()
}

// HTMLText returns the text of an HTML document, white space folded, looking
// at no more than its first limit bytes. It needs linear time whatever the
// markup.
func HTMLText(b []byte, limit int) string {
	if len(b) > limit {
		b = b[:limit]
	}
	var out strings.Builder
	z := html.NewTokenizer(strings.NewReader(Readable(b)))
	hidden := ""
	for {
		kind := z.Next()
		switch kind {
		case html.ErrorToken:
			return fold(out.String())
		case html.TextToken:
			if hidden == "" {
				out.Write(z.Text())
			}
		case html.StartTagToken, html.EndTagToken, html.SelfClosingTagToken:
			raw, _ := z.TagName()
			name := string(raw)
			switch name {
			case "script", "style", "title":
				if kind == html.StartTagToken && hidden == "" {
					hidden = name
				} else if kind == html.EndTagToken && hidden == name {
					hidden = ""
				}
			case "a", "abbr", "b", "big", "code", "em", "font", "i", "ins", "mark", "s", "small", "span", "strong", "sub", "sup", "tt", "u":
				// These stand inside words.
			default:
				out.WriteByte(' ')
			}
		}
	}
}

func fold(s string) string { return strings.Join(strings.Fields(s), " ") }

// Text is the message's text for matching words: the plain one, or else that
// of the HTML, looking at no more than limit bytes.
func (m *Message) Text(limit int) string {
	if len(m.BodyPlain) == 0 {
		return HTMLText(m.BodyHTML, limit)
	}
	return Readable(beginning(m.BodyPlain, limit))
}

// snippet reads only the beginnings: a line of text is not worth a pass over
// megabytes.
func snippet(plain, htmlBody []byte) string {
	const plainBytes, htmlBytes = 16 << 10, 256 << 10
	text := Readable(bytes.TrimLeft(beginning(plain, plainBytes), " \t\r\n"))
	if out := shorten(text); out != "" {
		return out
	}
	if len(htmlBody) == 0 {
		return ""
	}
	return shorten(HTMLText(htmlBody, htmlBytes))
}

// beginning cuts at a character's end, so that the cut is not taken for a
// broken character.
func beginning(b []byte, limit int) []byte {
	if len(b) <= limit {
		return b
	}
	cut := limit
	for cut > max(0, limit-utf8.UTFMax) && !utf8.RuneStart(b[cut]) {
		cut--
	}
	return b[:cut]
}

func shorten(text string) string {
	var out strings.Builder
	n, space := 0, false
	for _, r := range text {
		switch {
		case unicode.IsSpace(r) || unicode.IsControl(r):
			space = true
			continue
		case !unicode.IsGraphic(r):
			continue // joiners and marks that newsletters pad with
		}
		if space && n > 0 {
			if n+2 > snippetRunes {
				break
			}
			out.WriteByte(' ')
			n++
		}
		space = false
		out.WriteRune(r)
		if n++; n >= snippetRunes {
			break
		}
	}
	return out.String()
}
