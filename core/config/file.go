package config

import (
	"bytes"
	"errors"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// fileReader walks the syntax tree of a TOML document. Decoding into the
// struct would stop at the first wrong type; walking finds them all, and knows
// where each value stands.
type fileReader struct {
	*loader
	name   string
	parser unstable.Parser
	lines  []int // offset at which each line begins
	seen   map[string]int
}

// readFile takes the values of doc, whose name is for messages only.
func (l *loader) readFile(name string, doc []byte) {
	doc = bytes.TrimPrefix(doc, []byte("\xef\xbb\xbf"))
	r := &fileReader{loader: l, name: name, lines: []int{0}, seen: map[string]int{}}
	for i, b := range doc {
		if b == '\n' {
			r.lines = append(r.lines, i+1)
		}
	}
	r.parser.Reset(doc)
	var table []string
	known := true // keys below an unknown table are not reported one by one
	for r.parser.NextExpression() {
		switch node := r.parser.Expression(); node.Kind {
		case unstable.Table, unstable.ArrayTable:
			var at source
			table, at = r.path(node.Key())
			known = r.header(table, at, node.Kind)
		case unstable.KeyValue:
			if known {
				r.keyValue(table, node)
			}
		}
	}
	r.syntax(doc)
}

// syntax reports what makes doc no TOML. The tree holds no trace of a key or
// table that is defined twice, so the whole document is decoded once more.
func (r *fileReader) syntax(doc []byte) {
	var whole map[string]any
	err := toml.Unmarshal(doc, &whole)
	if err == nil {
		err = r.parser.Error()
	}
	if err == nil {
		return
	}
	r.whole = false
	at := source{layer: inFile, name: r.name}
	var positioned *toml.DecodeError
	if errors.As(err, &positioned) {
		at.line, at.col = positioned.Position()
		onThatLine := func(p Problem) bool { return p.at.layer == inFile && p.at.line == at.line }
		if slices.ContainsFunc(r.problems, onThatLine) {
			return
		}
	}
	r.report(at, "", "not valid TOML: "+cleanMessage(err.Error()), "")
}

// shownCharacter is the part of a parser's message that repeats a character of
// the document, which may be the beginning of a secret without its quotes.
var shownCharacter = regexp.MustCompile(`(?s)(:| but got|) U\+[0-9A-F]+( '.{1,4}?')?`)

func cleanMessage(s string) string {
	s = shownCharacter.ReplaceAllString(strings.TrimPrefix(s, "toml: "), "")
	return strings.Map(func(c rune) rune {
		if !strconv.IsPrint(c) {
			return '?'
		}
		return c
	}, s)
}

// header judges [table]; it returns false when the keys below it mean nothing.
func (r *fileReader) header(path []string, at source, kind unstable.Kind) bool {
	key := joinKey(path)
	switch {
	case r.tables[key] && kind == unstable.Table:
		return true
	case r.tables[key]:
		r.report(at, key, "wrong type (a list of tables)", "a table ["+key+"]")
	default:
		r.misplaced(path, at)
	}
	return false
}

// misplaced reports a path that goes on below a key, or that nobody knows.
func (r *fileReader) misplaced(path []string, at source) {
	for n := len(path); n > 0; n-- {
		if f, ok := r.find(path[:n]); ok {
			r.report(at, f.key, "wrong type (a table)", f.want())
			return
		}
	}
	r.unknown(at, joinKey(path))
}

func (r *fileReader) keyValue(table []string, node *unstable.Node) {
	keys, at := r.path(node.Key())
	path := slices.Concat(table, keys)
	key := joinKey(path)
	value := node.Value()
	f, ok := r.find(path)
	switch {
	case r.tables[key] && value.Kind == unstable.InlineTable:
		for it := value.Children(); it.Next(); {
			r.keyValue(path, it.Node())
		}
	case r.tables[key]:
		r.report(r.valueAt(node), key, "wrong type ("+kindName(value.Kind)+")", "a table ["+key+"]")
	case !ok:
		r.misplaced(path, at)
	case r.seen[key] > 0:
		r.report(at, key, "set twice", "it once; it was set in line "+strconv.Itoa(r.seen[key]))
	default:
		r.seen[key] = at.line
		at = r.valueAt(node)
		what, where := r.value(f, value, at)
		if !where.known() {
			where = at
		}
		r.took(f, at, where, what)
	}
}

// value gives f the node's value. The source is set when the fault is at an
// element of a list.
func (r *fileReader) value(f field, node *unstable.Node, at source) (fault, source) {
	wrong := func(n *unstable.Node) fault {
		return fault{"wrong type (" + kindName(n.Kind) + ")", f.want()}
	}
	if f.list() {
		if node.Kind != unstable.Array {
			return wrong(node), source{}
		}
		var items []string
		for it := node.Children(); it.Next(); {
			element := it.Node()
			where := at
			if element.Raw.Length > 0 {
				where = r.position(int(element.Raw.Offset))
			}
			if element.Kind != unstable.String {
				return fault{"wrong type (a list with " + kindName(element.Kind) + ")", f.want()}, where
			}
			text, bad := r.lookup.resolve(string(element.Data))
			if !bad.none() {
				return bad, where
			}
			items = append(items, text)
		}
		return f.setList(&r.out.Config, items), source{}
	}

	text := string(node.Data)
	kind := f.typ.Kind()
	switch {
	case node.Kind == unstable.String && (f.text() || strings.HasPrefix(text, "env:")):
	case node.Kind == unstable.Bool && kind == reflect.Bool:
	case node.Kind == unstable.Float && kind == reflect.Float64:
		text = strings.ReplaceAll(text, "_", "")
	case node.Kind == unstable.Integer && (kind == reflect.Int || kind == reflect.Int64 || kind == reflect.Float64):
		// TOML also writes integers in base 2, 8 and 16. A number too large
		// comes back as the nearest, which no range contains.
		n, err := strconv.ParseInt(text, 0, 64)
		if err != nil && !errors.Is(err, strconv.ErrRange) {
			return wrong(node), source{}
		}
		text = strconv.FormatInt(n, 10)
	default:
		return wrong(node), source{}
	}
	return f.setText(&r.out.Config, text, r.lookup), source{}
}

// path copies a dotted key and says where it begins.
func (r *fileReader) path(it unstable.Iterator) ([]string, source) {
	var path []string
	var at source
	for it.Next() {
		if path == nil {
			at = r.position(int(it.Node().Raw.Offset))
		}
		path = append(path, string(it.Node().Data))
	}
	return path, at
}

// valueAt finds the value of a key: the parser keeps no position for a list.
func (r *fileReader) valueAt(node *unstable.Node) source {
	var end int
	for it := node.Key(); it.Next(); {
		end = int(it.Node().Raw.Offset + it.Node().Raw.Length)
	}
	rest := r.parser.Data()[end:]
	return r.position(end + len(rest) - len(bytes.TrimLeft(rest, " \t=")))
}

func (r *fileReader) position(offset int) source {
	line, exact := slices.BinarySearch(r.lines, offset)
	if !exact {
		line--
	}
	return source{layer: inFile, name: r.name, line: line + 1, col: offset - r.lines[line] + 1}
}

func kindName(k unstable.Kind) string {
	switch k {
	case unstable.Array:
		return "a list"
	case unstable.InlineTable:
		return "a table"
	case unstable.String:
		return "a string"
	case unstable.Bool:
		return "a boolean"
	case unstable.Integer:
		return "a whole number"
	case unstable.Float:
		return "a number with a fraction"
	default:
		return "a date or time"
	}
}
