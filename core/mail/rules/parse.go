package rules

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// Compile reads conditions. The error is always an *Error.
func Compile(conditionsJSON []byte) (*Compiled, error) {
	if len(conditionsJSON) > MaxConditionsBytes {
		return nil, wrong("$", "%d bytes, at most %d", len(conditionsJSON), MaxConditionsBytes)
	}
	if !utf8.Valid(conditionsJSON) {
		return nil, wrong("$", "not valid UTF-8")
	}
	c := compiler{reader: newReader(conditionsJSON)}
	root, err := c.node("$", 1)
	if err == nil {
		err = c.end("$")
	}
	if err != nil {
		return nil, err
	}
	return &Compiled{root: root}, nil
}

// reader takes JSON apart token by token, because only then are fields seen
// that come twice, and every error knows its place.
type reader struct{ dec *json.Decoder }

func newReader(b []byte) reader {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	return reader{dec}
}

func (r reader) token(path string) (json.Token, *Error) {
	tok, err := r.dec.Token()
	if err == nil {
		return tok, nil
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, wrong(path, "the JSON ends too early")
	}
	return nil, wrong(path, "not valid JSON at byte %d", r.dec.InputOffset())
}

func (r reader) end(path string) *Error {
	if _, err := r.dec.Token(); !errors.Is(err, io.EOF) {
		return wrong(path, "there is more after the value")
	}
	return nil
}

func (r reader) open(path string, delim json.Delim, want string) *Error {
	tok, err := r.token(path)
	if err != nil {
		return err
	}
	if tok != delim {
		return wrong(path, "%s is needed, not %s", want, kindOf(tok))
	}
	return nil
}

// object calls field for each field, the field's value being next to read.
func (r reader) object(path string, field func(name, path string) *Error) *Error {
	if err := r.open(path, '{', "an object"); err != nil {
		return err
	}
	seen := map[string]bool{}
	for r.dec.More() {
		tok, err := r.token(path)
		if err != nil {
			return err
		}
		name, ok := tok.(string)
		if !ok {
			return wrong(path, "a field name is needed")
		}
		at := path + member(name)
		if seen[name] {
			return wrong(at, "the field comes twice")
		}
		seen[name] = true
		if err := field(name, at); err != nil {
			return err
		}
	}
	_, err := r.token(path)
	return err
}

// member shows unusual names quoted and cut, so that a path stays one line.
func member(name string) string {
	plain := name != "" && len(name) <= 40
	for _, c := range name {
		plain = plain && (c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9')
	}
	if plain {
		return "." + name
	}
	if len(name) > 40 {
		cut := 40
		for !utf8.RuneStart(name[cut]) {
			cut--
		}
		name = name[:cut] + "…"
	}
	return fmt.Sprintf("[%q]", name)
}

func (r reader) text(path string) (string, *Error) {
	tok, err := r.token(path)
	if err != nil {
		return "", err
	}
	s, ok := tok.(string)
	if !ok {
		return "", wrong(path, "a string is needed, not %s", kindOf(tok))
	}
	return s, nil
}

func kindOf(tok json.Token) string {
	switch t := tok.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case json.Number:
		return "a number"
	case string:
		return "a string"
	case json.Delim:
		if t == '[' {
			return "a list"
		}
		return "an object"
	}
	return "something else"
}

type compiler struct {
	reader
	nodes   int
	program int
}

// fields are the texts of a leaf that were given, with their paths.
type fields map[string]string

func (c *compiler) node(path string, depth int) (node, *Error) {
	// The recursion below ends here whatever the input.
	if depth > MaxDepth {
		return nil, wrong(path, "nested too deeply, at most %d levels", MaxDepth)
	}
	if c.nodes++; c.nodes > MaxNodes {
		return nil, wrong(path, "too many nodes, at most %d", MaxNodes)
	}
	var op string
	var children []node
	hasOp, hasChildren := false, false
	given := fields{}
	err := c.object(path, func(name, at string) *Error {
		var err *Error
		switch name {
		case "op":
			hasOp = true
			op, err = c.text(at)
		case "children":
			hasChildren = true
			children, err = c.children(at, depth)
		case "value", "header", "pattern":
			var s string
			if s, err = c.text(at); err == nil {
				given[name] = s
			}
		default:
			err = wrong(at, "unknown field; a node has op and children, value, or header and pattern")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if !hasOp {
		return nil, wrong(path+".op", "missing; %s", ops)
	}
	switch op {
	case "and", "or", "not":
		for _, name := range []string{"value", "header", "pattern"} {
			if _, ok := given[name]; ok {
				return nil, wrong(path+"."+name, "%s takes children and nothing else", op)
			}
		}
		return combine(path+".children", op, hasChildren, children)
	}
	if hasChildren {
		if leafFields(op) == nil {
			return nil, wrong(path+".op", "unknown; %s", ops)
		}
		return nil, wrong(path+".children", "only and, or and not have children")
	}
	return c.leaf(path, op, given)
}

func (c *compiler) children(path string, depth int) ([]node, *Error) {
	if err := c.open(path, '[', "a list"); err != nil {
		return nil, err
	}
	var out []node
	for i := 0; c.dec.More(); i++ {
		child, err := c.node(fmt.Sprintf("%s[%d]", path, i), depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, child)
	}
	_, err := c.token(path)
	return out, err
}

func combine(path, op string, has bool, children []node) (node, *Error) {
	switch {
	case !has:
		return nil, wrong(path, "missing; %s takes a list of conditions", op)
	case op == "not" && len(children) != 1:
		return nil, wrong(path, "not takes exactly one condition, here are %d", len(children))
	case len(children) == 0:
		return nil, wrong(path, "empty; %s takes at least one condition", op)
	}
	switch op {
	case "and":
		return all(children), nil
	case "or":
		return some(children), nil
	}
	return not{children[0]}, nil
}
