package config

import (
	"errors"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

// fault says why a value was not taken and what would be right; the zero fault
// is none. It never holds the value.
type fault struct{ what, want string }

func (f fault) none() bool { return f == fault{} }

// references resolves env:NAME.
type references func(name string) (string, bool)

func (lookup references) resolve(text string) (string, fault) {
	name, ok := strings.CutPrefix(text, "env:")
	if !ok {
		return text, fault{}
	}
	if name == "" {
		return "", fault{"env: names no variable", "env:NAME"}
	}
	value, ok := lookup(name)
	if !ok {
		return "", fault{"the variable " + bareOrQuoted(name) + " is not set", "it set, or another value for the key"}
	}
	return value, fault{}
}

// setText gives the field the value that text spells, as the environment and
// flags do: a list is separated by commas, and an empty one is empty.
func (f field) setText(c *Config, text string, lookup references) fault {
	if f.list() {
		var items []string
		if text != "" {
			items = strings.Split(text, ",")
		}
		for i, item := range items {
			var bad fault
			if items[i], bad = lookup.resolve(strings.TrimSpace(item)); !bad.none() {
				return bad
			}
		}
		return f.setList(c, items)
	}
	text, bad := lookup.resolve(text)
	if !bad.none() {
		return bad
	}
	if f.isEntry {
		entry := reflect.New(f.typ).Elem()
		if bad := f.setScalar(entry, text); !bad.none() {
			return bad
		}
		f.in(c).SetMapIndex(reflect.ValueOf(f.entry), entry)
		return fault{}
	}
	return f.setScalar(f.in(c), text)
}

func (f field) setScalar(v reflect.Value, text string) fault {
	if !utf8.ValidString(text) {
		return fault{"not valid UTF-8", f.want()}
	}
	var err error
	switch p := v.Addr().Interface().(type) {
	case *string:
		*p = text
	case *Secret:
		*p = NewSecret(text)
	case *Duration:
		err = p.UnmarshalText([]byte(text))
	case *bool:
		*p, err = strconv.ParseBool(text)
	case *int, *int64:
		var n int64
		n, err = strconv.ParseInt(text, 10, v.Type().Bits())
		v.SetInt(n)
	case *float64:
		*p, err = strconv.ParseFloat(text, 64)
	default:
		panic("config: " + f.key + " has a type that nothing decodes")
	}
	switch {
	case errors.Is(err, strconv.ErrRange):
		// The nearest number was taken, which is out of the range of every
		// key: the check of the range says what would be right.
		return fault{}
	case err != nil && text == "":
		return fault{"empty", f.want()}
	case err != nil:
		return fault{"not understood", f.want()}
	}
	return fault{}
}

func (f field) setList(c *Config, items []string) fault {
	v := f.in(c)
	list := reflect.MakeSlice(f.typ, len(items), len(items))
	for i, item := range items {
		if bad := f.setScalar(list.Index(i), item); !bad.none() {
			return bad
		}
	}
	v.Set(list)
	return fault{}
}
