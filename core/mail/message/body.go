package message

import (
	"bytes"
	"strings"
)

// walk is one pass over the tree of parts.
type walk struct {
	m     *Message
	parts int
	plain [][]byte
	html  [][]byte
}

func (m *Message) readBody(head header, body []byte) {
	w := walk{m: m}
	// What was collected before a panic is worth keeping.
	defer func() {
		plain, html := join(w.plain), join(w.html)
		m.BodyPlain = beginning(plain, maxBodies)
		m.BodyHTML = beginning(html, maxBodies-len(m.BodyPlain))
		if len(m.BodyPlain)+len(m.BodyHTML) < len(plain)+len(html) {
			m.note("only the first 3 MiB of the text are kept here")
		}
	}()
	w.part(head, body, 0, "")
}

// join copies nothing when there is one part.
func join(parts [][]byte) []byte {
	switch len(parts) {
	case 0:
		return nil
	case 1:
		return parts[0]
	}
	total := 0
	for _, p := range parts {
		total += len(p) + 1
	}
	out := make([]byte, 0, total)
	for i, p := range parts {
		if i > 0 && len(out) > 0 && out[len(out)-1] != '\n' {
			out = append(out, '\n')
		}
		out = append(out, p...)
	}
	return out
}

func (w *walk) part(head header, body []byte, depth int, parent string) {
	mtype, params := head.mtype, head.params
	if mtype == "" {
		if head.get("Content-Type") != "" && depth > 0 {
			w.m.note("a part's Content-Type could not be read")
		}
		mtype = "text/plain"
		if parent == "multipart/digest" {
			mtype = "message/rfc822"
		}
	}
	if strings.HasPrefix(mtype, "multipart/") {
		if w.multipart(mtype, strings.TrimRight(params["boundary"], " \t\r\n"), body, depth) {
			return
		}
		// Its text is better shown as it is than not at all.
		mtype = "text/plain"
		params = nil
	}
	w.leaf(head, mtype, params, body, parent)
}

// multipart walks the parts and says false when there are none to be found.
func (w *walk) multipart(mtype, boundary string, body []byte, depth int) bool {
	switch {
	case boundary == "":
		w.m.note("a multipart has no boundary")
		return false
	case depth >= maxDepth:
		w.m.note("parts are nested too deeply")
		return true
	}
	found := false
	next, ok := afterDelimiter(body, boundary, true)
	for ok {
		found = true
		if w.parts >= maxParts {
			w.m.note("too many parts")
			return true
		}
		w.parts++
		var content []byte
		content, next, ok = cutPart(next, boundary, w.m)
		block, partBody := splitHeader(content)
		w.part(w.m.readHeader(block, maxPartHeaderBytes), partBody, depth+1, mtype)
	}
	if !found {
		w.m.note("a multipart's boundary does not occur")
	}
	return found
}

// afterDelimiter finds the first delimiter line and returns what follows it.
func afterDelimiter(b []byte, boundary string, atStart bool) ([]byte, bool) {
	_, next, final, ok := findDelimiter(b, boundary, atStart)
	return next, ok && !final
}

// cutPart returns the part b begins with and, if another one follows, what
// comes after the delimiter between them.
func cutPart(b []byte, boundary string, m *Message) (content, next []byte, more bool) {
	content, next, final, ok := findDelimiter(b, boundary, true)
	if !ok {
		m.note("a multipart is not closed")
		return b, nil, false
	}
	return content, next, !final
}

// findDelimiter looks for a line "--boundary" or "--boundary--". The line end
// before it belongs to it.
func findDelimiter(b []byte, boundary string, atStart bool) (before, after []byte, final, ok bool) {
	mark := []byte("--" + boundary)
	for from := 0; ; {
		i := bytes.Index(b[from:], mark)
		if i < 0 {
			return nil, nil, false, false
		}
		i += from
		from = i + 1
		if i > 0 && b[i-1] != '\n' || i == 0 && !atStart {
			continue
		}
		rest := b[i+len(mark):]
		if bytes.HasPrefix(rest, []byte("--")) {
			final = true
		} else {
			// The boundary may be the beginning of an inner one.
			line := rest
			if n := bytes.IndexByte(rest, '\n'); n >= 0 {
				line, after = rest[:n], rest[n+1:]
			} else {
				after = nil
			}
			if len(bytes.TrimSpace(line)) > 0 {
				continue
			}
		}
		before = b[:i]
		before = bytes.TrimSuffix(before, []byte("\n"))
		before = bytes.TrimSuffix(before, []byte("\r"))
		return before, after, final, true
	}
}

func (w *walk) leaf(head header, mtype string, params map[string]string, body []byte, parent string) {
	disposition, dparams := mediaTypeOfDisposition(head.get("Content-Disposition"))
	name := dparams["filename"]
	if name == "" {
		name = params["name"]
	}
	name = strings.TrimSpace(cleanNUL(head.decode(name)))
	encoding := transferEncoding(head.get("Content-Transfer-Encoding"))

	isText := mtype == "text/plain" || mtype == "text/html" || mtype == "text/enriched" || mtype == "text/richtext"
	if isText && disposition != "attachment" {
		text := w.text(encoding, params["charset"], body)
		if mtype == "text/html" {
			w.html = append(w.html, text)
		} else {
			w.plain = append(w.plain, text)
		}
		return
	}
	if len(body) == 0 && parent == "" && disposition == "" {
		return // only a header
	}
	w.m.Attachments = append(w.m.Attachments, Attachment{
		Name: name, ContentType: cleanNUL(mtype), Size: decodedSize(encoding, body),
	})
	inline := disposition == "inline" || disposition == "" && parent == "multipart/related" || head.get("Content-Id") != "" && disposition != "attachment"
	switch {
	case disposition == "attachment":
		w.m.HasAttachment = true
	case mtype == "application/pgp-signature", mtype == "application/pkcs7-signature", mtype == "application/x-pkcs7-signature",
		mtype == "application/pgp-encrypted", parent == "multipart/report":
	case inline && strings.HasPrefix(mtype, "image/"):
	default:
		w.m.HasAttachment = true
	}
}

func mediaTypeOfDisposition(v string) (string, map[string]string) {
	if v == "" {
		return "", nil
	}
	// A disposition has parameters like a media type, and no slash.
	kind, _, _ := strings.Cut(v, ";")
	kind = strings.ToLower(strings.TrimSpace(kind))
	_, params := mediaType("x-disposition/" + v)
	return kind, params
}

func (w *walk) text(encoding, charset string, body []byte) []byte {
	decoded, ok := decodeTransfer(encoding, body)
	if !ok {
		w.m.note("a part's transfer encoding could not be read")
	}
	text, ok := decodeCharset(charset, decoded)
	if !ok {
		w.m.note("a part's character set is not known")
	}
	return text
}
