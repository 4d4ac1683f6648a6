package message

import (
	"bytes"
	"strings"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
	"golang.org/x/text/encoding/unicode"
)

func transferEncoding(v string) string {
	v = strings.ToLower(strings.TrimSpace(v))
	v, _, _ = strings.Cut(v, ";")
	v, _, _ = strings.Cut(v, " ")
	return strings.Trim(v, `"'`)
}

// decodeTransfer never fails: bytes that do not belong into an encoding are
// left out or kept as they are, and ok is false.
func decodeTransfer(encoding string, b []byte) (out []byte, ok bool) {
	switch encoding {
	case "base64":
		return decodeBase64(b)
	case "quoted-printable":
		return decodeQuoted(b)
	case "", "7bit", "8bit", "binary":
		return b, true
	}
	return b, false
}

// base64Values holds six bits for each letter, skip for white space, pad for
// "=", and bad for the rest.
var base64Values = func() (table [256]byte) {
	for i := range table {
		table[i] = base64Bad
	}
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		table[c] = byte(i)
	}
	for _, c := range []byte(" \t\r\n") {
		table[c] = base64Skip
	}
	table['='] = base64Pad
	return table
}()

const (
	base64Bad  = 0xff
	base64Skip = 0xfe
	base64Pad  = 0xfd
)

// decodeBase64 goes on after padding in the middle, where senders joined two
// encoded texts.
func decodeBase64(b []byte) (out []byte, ok bool) {
	out = make([]byte, 0, len(b)/4*3+3)
	ok = true
	var bits uint32
	n := 0
	for _, c := range b {
		v := base64Values[c]
		switch v {
		case base64Skip:
			continue
		case base64Bad:
			ok = false
			continue
		case base64Pad:
			out = flushBase64(out, bits, n)
			bits, n = 0, 0
			continue
		}
		bits = bits<<6 | uint32(v)
		if n++; n == 4 {
			out = append(out, byte(bits>>16), byte(bits>>8), byte(bits))
			bits, n = 0, 0
		}
	}
	return flushBase64(out, bits, n), ok
}

func flushBase64(out []byte, bits uint32, n int) []byte {
	switch n {
	case 2:
		return append(out, byte(bits>>4))
	case 3:
		return append(out, byte(bits>>10), byte(bits>>2))
	}
	return out
}

func decodeQuoted(b []byte) (out []byte, ok bool) {
	if bytes.IndexByte(b, '=') < 0 {
		return b, true
	}
	out = make([]byte, 0, len(b))
	ok = true
	for i := 0; i < len(b); i++ {
		if b[i] != '=' {
			out = append(out, b[i])
			continue
		}
		if i+2 < len(b) {
			hi, okHi := unhex(b[i+1])
			lo, okLo := unhex(b[i+2])
			if okHi && okLo {
				out = append(out, hi<<4|lo)
				i += 2
				continue
			}
		}
		if end, soft := softBreak(b, i+1); soft {
			i = end - 1
			continue
		}
		ok = false
		out = append(out, '=')
	}
	return out, ok
}

// softBreak says whether only blanks stand between i and the line's end, and
// where the next line begins.
func softBreak(b []byte, i int) (end int, soft bool) {
	// No more than a line's worth, or many "=" before blanks cost a square.
	for limit := i + 100; i < len(b) && i < limit; i++ {
		switch b[i] {
		case '\n':
			return i + 1, true
		case ' ', '\t', '\r':
		default:
			return 0, false
		}
	}
	return len(b), i >= len(b)
}

func unhex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}

// decodedSize is the size a part has when decoded, without decoding it.
func decodedSize(encoding string, b []byte) int64 {
	switch encoding {
	case "base64":
		letters := int64(0)
		for _, c := range b {
			if base64Values[c] < 64 {
				letters++
			}
		}
		return letters * 3 / 4
	case "quoted-printable":
		size := int64(len(b))
		for i := 0; i < len(b); i++ {
			if b[i] != '=' || i+1 >= len(b) {
				continue
			}
			switch b[i+1] {
			case '\n':
				size -= 2
			case '\r':
				size -= 3
			default:
				size -= 2
			}
		}
		return max(size, 0)
	}
	return int64(len(b))
}

func charsetName(charset string) string {
	charset = strings.ToLower(strings.Trim(charset, " \t\"'"))
	return strings.TrimPrefix(charset, "charset=")
}

// keepsBytes are character sets in which bytes are kept as they are: what is
// UTF-8 already, and what says nothing about bytes over 127.
func keepsBytes(name string) bool {
	switch name {
	case "", "utf-8", "utf8", "us-ascii", "ascii", "ansi_x3.4-1968", "iso-646-us", "utf8mb4", "binary":
		return true
	}
	return false
}

func lookup(name string) encoding.Encoding {
	if len(name) > 60 {
		return nil
	}
	if enc, err := htmlindex.Get(name); err == nil {
		if canonical, err := htmlindex.Name(enc); err == nil && canonical == "replacement" {
			return nil // it would make one character of everything
		}
		return enc
	}
	if enc, err := ianaindex.MIME.Encoding(name); err == nil && enc != nil {
		return enc
	}
	return nil
}

func knownCharset(charset string) bool {
	name := charsetName(charset)
	return keepsBytes(name) || lookup(name) != nil
}

// decodeCharset returns b in UTF-8, or unchanged with ok false when the
// character set is not known.
func decodeCharset(charset string, b []byte) (out []byte, ok bool) {
	name := charsetName(charset)
	if keepsBytes(name) {
		return b, true
	}
	enc := lookup(name)
	if name == "utf-16" {
		enc = unicode.UTF16(utf16Order(b), unicode.UseBOM)
	}
	if enc == nil {
		return b, false
	}
	out, err := enc.NewDecoder().Bytes(b)
	if err != nil {
		return b, false
	}
	return out, true
}

// utf16Order guesses for text without a byte order mark: the zero of an ASCII
// letter tells; big-endian is what the standard says.
func utf16Order(b []byte) unicode.Endianness {
	if len(b) >= 2 && b[0] != 0 && b[1] == 0 {
		return unicode.LittleEndian
	}
	return unicode.BigEndian
}
