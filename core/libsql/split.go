package libsql

import "strings"

// splitStatements splits SQL as sqlite3_complete does: a trigger ends only at
// "; END ;", and nothing inside quotes or comments counts.
func splitStatements(text string) []string {
	var out []string
	var words []string // of the statement so far, for telling triggers
	start := 0
	flush := func(end int) {
		if len(words) > 0 {
			out = append(out, strings.Trim(text[start:end], whitespace))
		}
		start, words = end, nil
	}
	for i := 0; i < len(text); {
		c := text[i]
		switch end := skip(text, i); {
		case end > i:
			if c != '-' && c != '/' {
				words = append(words, text[i:i+1]) // something quoted
			}
			i = end
		case c == ';':
			i++
			if isTrigger(words) && !endsTrigger(words) {
				words = append(words, ";")
				continue
			}
			flush(i)
		case isWord(c):
			j := i
			for j < len(text) && isWord(text[j]) {
				j++
			}
			words = append(words, strings.ToUpper(text[i:j]))
			i = j
		default:
			if !strings.ContainsRune(whitespace, rune(c)) {
				words = append(words, text[i:i+1])
			}
			i++
		}
	}
	flush(len(text))
	return out
}

// whitespace is what SQLite takes for it.
const whitespace = " \t\r\n\f"

// skip returns the end of the quoted text or comment that begins at i, or i
// when none does.
func skip(text string, i int) int {
	end := func(from int, mark string) int {
		if n := strings.Index(text[from:], mark); n >= 0 {
			return from + n + len(mark)
		}
		return len(text)
	}
	switch rest := text[i:]; {
	case rest[0] == '\'' || rest[0] == '"' || rest[0] == '`':
		return end(i+1, rest[:1])
	case rest[0] == '[':
		return end(i+1, "]")
	case strings.HasPrefix(rest, "--"):
		return end(i+2, "\n")
	case strings.HasPrefix(rest, "/*"):
		return end(i+2, "*/")
	}
	return i
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

func isTrigger(words []string) bool {
	if len(words) > 1 && (words[1] == "TEMP" || words[1] == "TEMPORARY") {
		return len(words) > 2 && words[0] == "CREATE" && words[2] == "TRIGGER"
	}
	return len(words) > 1 && words[0] == "CREATE" && words[1] == "TRIGGER"
}

// endsTrigger says whether the words end in "; END": any other END is that of
// a CASE.
func endsTrigger(words []string) bool {
	return words[len(words)-1] == "END" && words[len(words)-2] == ";"
}
