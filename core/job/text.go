package job

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// What a handler makes is repaired where what a client sends is refused: a
// handler has done its work by then, and refusing its result would lose it.

// RepairText makes text of a handler's fit for the database: valid UTF-8, no
// NUL, at most max bytes.
func RepairText(s string, max int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.ReplaceAll(s, "\x00", "\uFFFD")
	if len(s) > max {
		s = strings.ToValidUTF8(s[:max], "") + " …"
	}
	return s
}

// RepairName writes the bytes of a name that [CheckText] would refuse as Go
// writes them in a string (\xe9), so that names that differ stay different.
func RepairName(s string) string {
	if CheckText("", s, len(s)) == nil {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch _, size := utf8.DecodeRuneInString(s[i:]); {
		case r == utf8.RuneError && size == 1, r < 0x20, r == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// EncodeResult encodes a handler's value as JSON that can be stored. Broken
// UTF-8, which only a value that encodes itself can bring in, is replaced by
// U+FFFD; repaired says that it was.
func EncodeResult(v any) (encoded json.RawMessage, repaired bool, err error) {
	if encoded, err = json.Marshal(v); err != nil {
		return nil, false, err
	}
	if !utf8.Valid(encoded) {
		encoded, repaired = json.RawMessage(strings.ToValidUTF8(string(encoded), "\uFFFD")), true
	}
	return encoded, repaired, CheckJSON("result", encoded)
}
