package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"

	"github.com/postroom/postroom/core/httpd"
	"github.com/postroom/postroom/core/job"
)

// maxItems is how many jobs one request may store.
const maxItems = 10_000

// decodeObject reads data, one JSON object, into the struct that v points to.
// It is stricter than encoding/json: a field has exactly its own name and
// comes once, nothing is unknown, and an error names the field with its
// place. null is the same as leaving a field out.
func decodeObject(data []byte, v any) error {
	if err := checkUTF8(data); err != nil {
		return err
	}
	// Asked first, so that what follows may trust the syntax. It bounds the
	// depth, too.
	if !json.Valid(data) {
		return malformed(data)
	}
	d := decoder{json.NewDecoder(bytes.NewReader(data))}
	return d.object("", reflect.ValueOf(v).Elem())
}

// malformed says where data stops being JSON.
func malformed(data []byte) error {
	reason := "is not one JSON value"
	var syntax *json.SyntaxError
	var ignored json.RawMessage
	if err := json.Unmarshal(data, &ignored); errors.As(err, &syntax) {
		reason = fmt.Sprintf("is not JSON: byte %d: %s", syntax.Offset, syntax.Error())
	}
	return httpd.NewProblem(http.StatusBadRequest, "malformed_json", "body: "+reason, httpd.FieldError{Field: "body", Message: reason})
}

// decoder walks valid JSON.
type decoder struct{ *json.Decoder }

// object reads an object into v, a struct. path is what the names of its
// fields follow in errors.
func (d decoder) object(path string, v reflect.Value) error {
	where := strings.TrimSuffix(path, ".")
	if where == "" {
		where = "body"
	}
	if d.next() != json.Delim('{') {
		return invalid(where, "must be an object")
	}
	fields := fieldsOf(v.Type())
	seen := make(map[string]bool, len(fields))
	for d.More() {
		name, _ := d.next().(string)
		n, known := fields[name]
		switch {
		case !known:
			return invalid(path+short(name), "is not a field of this request")
		case seen[name]:
			return invalid(path+name, "is given twice")
		}
		seen[name] = true
		if err := d.field(path+name, v.Field(n)); err != nil {
			return err
		}
	}
	d.next() // the closing brace
	return nil
}

func (d decoder) field(path string, v reflect.Value) error {
	if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct {
		return d.list(path, v)
	}
	var wrong *json.UnmarshalTypeError
	err := d.Decode(v.Addr().Interface())
	switch {
	case errors.As(err, &wrong):
		return invalid(path, "must be "+kindName(wrong.Type))
	case err != nil:
		return invalid(path, "cannot be read: "+err.Error())
	}
	if raw, is := v.Addr().Interface().(*json.RawMessage); is && string(*raw) == "null" {
		*raw = nil
	}
	return nil
}

func (d decoder) list(path string, v reflect.Value) error {
	if d.next() != json.Delim('[') {
		return invalid(path, "must be a list")
	}
	v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	for n := 0; d.More(); n++ {
		if n == maxItems {
			reason := fmt.Sprintf("has more than %d items", maxItems)
			return httpd.NewProblem(http.StatusRequestEntityTooLarge, "too_large", path+": "+reason, httpd.FieldError{Field: path, Message: reason})
		}
		item := reflect.New(v.Type().Elem()).Elem()
		if err := d.object(fmt.Sprintf("%s[%d].", path, n), item); err != nil {
			return err
		}
		v.Set(reflect.Append(v, item))
	}
	d.next() // the closing bracket
	return nil
}

// next is the next token; the syntax was checked, so there is one.
func (d decoder) next() json.Token {
	token, err := d.Token()
	if err != nil && !errors.Is(err, io.EOF) {
		return nil
	}
	return token
}

// fieldsOf maps the JSON names of a struct's fields to their places.
func fieldsOf(t reflect.Type) map[string]int {
	fields := make(map[string]int, t.NumField())
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		fields[name] = i
	}
	return fields
}

// kindName is what JSON calls a value that fits t.
func kindName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "an integer"
	case reflect.Float64:
		return "a number"
	case reflect.Slice:
		return "a list"
	}
	return "of another type"
}

// short keeps a name that a client made up from filling the answer.
func short(name string) string {
	const longest = 100
	if len(name) <= longest {
		return name
	}
	return strings.ToValidUTF8(name[:longest], "") + "…"
}

func invalid(field, reason string) error {
	return &job.Invalid{Field: field, Code: "invalid", Reason: reason}
}
