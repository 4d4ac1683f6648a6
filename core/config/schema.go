package config

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
)

var (
	secretType   = reflect.TypeFor[Secret]()
	durationType = reflect.TypeFor[Duration]()
)

// field is one key of the configuration and where its value lives in Config.
type field struct {
	key      string
	names    []string // of the environment, the full one first; none in a limit table
	index    []int
	typ      reflect.Type
	isEntry  bool // of a limit table, as the name entry
	entry    string
	reserved bool
}

// text tells a value that TOML writes as a string.
func (f field) text() bool {
	return f.typ == secretType || f.typ == durationType || f.typ.Kind() == reflect.String
}

func (f field) list() bool { return f.typ.Kind() == reflect.Slice }

// table tells a key whose names are the user's own, such as queue.limits.queues.
func (f field) table() bool { return f.typ.Kind() == reflect.Map }

// in returns the field's place in c; for an entry of a table, the table's.
func (f field) in(c *Config) reflect.Value {
	return reflect.ValueOf(c).Elem().FieldByIndex(f.index)
}

// entryOf returns the key of one name in a table.
func (f field) entryOf(name string) field {
	f.key += "." + bareOrQuoted(name)
	f.isEntry, f.entry, f.typ = true, name, f.typ.Elem()
	return f
}

// want says what a value of the field's type looks like.
func (f field) want() string {
	switch {
	case f.typ == durationType:
		return `a duration such as "3s" or "1m30s"`
	case f.list():
		return "a list of strings"
	}
	switch f.typ.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Map:
		return "a table [" + f.key + "]"
	}
	return "a string"
}

// schema is every key, in the order of the struct.
type schema struct {
	fields []field
	leaf   map[string]field
	tables map[string]bool // sections and what lies between them and their keys
	known  []string        // the keys of both
}

func newSchema() schema {
	s := schema{leaf: map[string]field{}, tables: map[string]bool{"": true}}
	s.add(reflect.TypeFor[Config](), "", nil, false)
	return s
}

func (s *schema) add(t reflect.Type, prefix string, index []int, reserved bool) {
	for i := range t.NumField() {
		sf := t.Field(i)
		f := field{
			key:      prefix + sf.Tag.Get("toml"),
			index:    append(append([]int{}, index...), i),
			typ:      sf.Type,
			reserved: reserved || sf.Tag.Get("reserved") == "true",
		}
		if sf.Type.Kind() == reflect.Struct && sf.Type != secretType && sf.Type != durationType {
			s.tables[f.key] = true
			s.known = append(s.known, f.key)
			s.add(sf.Type, f.key+".", f.index, f.reserved)
			continue
		}
		if f.table() {
			s.tables[f.key] = true
		} else {
			f.names = []string{strings.ToUpper(strings.ReplaceAll(f.key, ".", "_"))}
			if alias := sf.Tag.Get("alias"); alias != "" {
				f.names = append(f.names, alias)
			}
		}
		s.fields = append(s.fields, f)
		s.leaf[f.key] = f
		s.known = append(s.known, f.key)
	}
}

// find returns the field of a path, which may be an entry of a table.
func (s schema) find(path []string) (field, bool) {
	if f, ok := s.leaf[joinKey(path)]; ok {
		return f, true
	}
	if n := len(path) - 1; n > 0 {
		if f, ok := s.leaf[joinKey(path[:n])]; ok && f.table() {
			return f.entryOf(path[n]), true
		}
	}
	return field{}, false
}

// flagPath splits the key of a flag. What follows the name of a table is one
// name, dots and all.
func (s schema) flagPath(key string) []string {
	for _, f := range s.fields {
		if name, ok := strings.CutPrefix(key, f.key+"."); ok && f.table() {
			if unquoted, err := strconv.Unquote(name); err == nil {
				name = unquoted
			}
			return append(strings.Split(f.key, "."), name)
		}
	}
	return strings.Split(key, ".")
}

// suggest returns the key that an unknown one was probably meant to be, or "".
func (s schema) suggest(key string) string {
	const longest = 64 // beyond that nothing is close, and comparing costs
	if len(key) > longest {
		return ""
	}
	best, least := "", 1+max(1, min(3, len(key)/4))
	for _, candidate := range s.known {
		if abs(len(key)-len(candidate)) >= least {
			continue // at least that many edits
		}
		if d := distance(key, candidate); d < least {
			best, least = candidate, d
		}
	}
	if best != "" {
		return best
	}
	// The right name in no section or the wrong one.
	last := key[strings.LastIndexByte(key, '.')+1:]
	for _, f := range s.fields {
		if strings.HasSuffix(f.key, "."+last) {
			return f.key
		}
	}
	return ""
}

func abs(n int) int { return max(n, -n) }

// distance is the number of single-letter edits between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// joinKey writes a path as TOML does, quoting what is no bare key, so that
// two paths never look alike and a key stays on one line.
func joinKey(path []string) string {
	parts := make([]string, len(path))
	for i, p := range path {
		parts[i] = bareOrQuoted(p)
	}
	return strings.Join(parts, ".")
}

func bareOrQuoted(s string) string {
	const bare = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	if s != "" && strings.Trim(s, bare) == "" {
		return s
	}
	return quoted(s)
}

// quoted writes s as a string that is both TOML and JSON.
func quoted(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always encodes
	// JSON leaves DEL as it is, TOML does not allow it.
	return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\n"), "\x7f", `\u007f`)
}
