package config

import (
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"
)

// SetKey is a key that was set, and where.
type SetKey struct {
	Key    string `json:"key"`
	Origin string `json:"origin"`
}

// Reserved lists the keys that were set although nothing acts on them yet, in
// the order of Config.
func (l *Loaded) Reserved() []SetKey {
	var set []SetKey
	for _, f := range l.shown() {
		if at := l.origins[f.key]; f.reserved && at.known() {
			set = append(set, SetKey{f.key, at.origin()})
		}
	}
	return set
}

// Rehearsing lists the keys in force that make a service misbehave on purpose.
func (l *Loaded) Rehearsing() []SetKey {
	var on []SetKey
	if key := "queue.fault_seed"; l.Queue.FaultSeed != 0 {
		on = append(on, SetKey{key, l.Origin(key)})
	}
	if key := "queue.clock_offset"; l.Queue.ClockOffset.Duration != 0 {
		on = append(on, SetKey{key, l.Origin(key)})
	}
	return on
}

// Origin says where the value of a key came from: "default", "file:line",
// "env NAME" or "flag -x"; "" for a key that does not exist. A name in a limit
// table is a key only when it was set.
func (l *Loaded) Origin(key string) string {
	at, set := l.origins[key]
	if _, ok := l.leaf[key]; !ok && !set {
		return ""
	}
	return at.origin()
}

// LogFormat is log.format, except that a developer at a terminal who did not
// choose gets "pretty".
func (l *Loaded) LogFormat(stderrIsTerminal bool) string {
	if stderrIsTerminal && l.App.Env == "dev" && l.Origin("log.format") == "default" {
		return "pretty"
	}
	return l.Log.Format
}

// Print writes every key with its value and, as a comment, its origin. What it
// writes is TOML.
func (l *Loaded) Print(w io.Writer) error {
	columns := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range l.shown() {
		note := l.origins[f.key].origin()
		if f.reserved {
			note += ", reserved"
		}
		if f.key == "database.synchronous" && l.Undurable() {
			note += ", but the server decides: database.admin_url is not set"
		}
		text, err := l.text(f)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(columns, "%s = %s\t# %s\n", f.key, text, note); err != nil {
			return fmt.Errorf("config: print: %w", err)
		}
	}
	if err := columns.Flush(); err != nil {
		return fmt.Errorf("config: print: %w", err)
	}
	return nil
}

// Settings is every key, for programs.
type Settings struct {
	Settings []Shown `json:"settings" nullable:"false"`
}

// Shown is a key with its value, a secret's as ***.
type Shown struct {
	Key      string          `json:"key"`
	Value    json.RawMessage `json:"value"`
	Origin   string          `json:"origin" doc:"default, file:line, env NAME or flag."`
	Reserved bool            `json:"reserved" doc:"Nothing acts on it yet."`
}

// Settings returns what Print writes.
func (l *Loaded) Settings() (Settings, error) {
	var all Settings
	for _, f := range l.shown() {
		text, err := l.text(f)
		if err != nil {
			return Settings{}, err
		}
		all.Settings = append(all.Settings, Shown{f.key, json.RawMessage(text), l.origins[f.key].origin(), f.reserved})
	}
	return all, nil
}

// PrintJSON writes the settings: {"settings":[{"key","value","origin","reserved"}]}.
func (l *Loaded) PrintJSON(w io.Writer) error {
	all, err := l.Settings()
	if err != nil {
		return err
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	if err := e.Encode(all); err != nil {
		return fmt.Errorf("config: print: %w", err)
	}
	return nil
}

// shown is every key, with the entries of a limit table in the table's place.
func (l *Loaded) shown() []field {
	var all []field
	for _, f := range l.fields {
		before := len(all)
		for _, e := range l.entries {
			if f.table() && slices.Equal(e.index, f.index) {
				all = append(all, e)
			}
		}
		if len(all) == before {
			all = append(all, f)
		}
	}
	return all
}

// text writes the field's value in the notation that TOML and JSON share.
func (l *Loaded) text(f field) (string, error) {
	v := f.in(&l.Config)
	if f.isEntry {
		v = v.MapIndex(reflect.ValueOf(f.entry))
	}
	text, err := valueText(v)
	if err != nil {
		return "", fmt.Errorf("config: print %s: %w", f.key, err)
	}
	return text, nil
}

func valueText(v reflect.Value) (string, error) {
	switch value := v.Interface().(type) {
	case string:
		return quoted(value), nil
	case float64:
		text := fmt.Sprintf("%g", value)
		if !strings.ContainsAny(text, ".e") {
			text += ".0" // an integer to TOML otherwise
		}
		return text, nil
	}
	if v.Kind() == reflect.Slice {
		items := make([]string, v.Len())
		for i := range items {
			var err error
			if items[i], err = valueText(v.Index(i)); err != nil {
				return "", err
			}
		}
		return "[" + strings.Join(items, ", ") + "]", nil
	}
	text, err := json.Marshal(v.Interface())
	return string(text), err
}
