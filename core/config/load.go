package config

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// PathVariable names the file when Options.Path does not.
const PathVariable = "CONFIG_PATH"

// maxFile bounds what is read as a configuration file, so that naming the
// wrong file is an error and not an exhausted memory.
const maxFile = 1 << 20

// Options says where the configuration comes from.
type Options struct {
	// Path of the TOML file; empty means what CONFIG_PATH names, or no file.
	Path string
	// Lookup reads the environment; nil means an empty one.
	Lookup func(name string) (string, bool)
	// Flags are applied last, in order.
	Flags []Setting
}

// Setting is one key that was set on the command line. The value is read as
// an environment variable's would be.
type Setting struct {
	Flag  string // as the user typed it, "-set"
	Key   string
	Value string
}

// Register adds -config FILE and -set KEY=VALUE to flags. Several flag sets
// may fill the same Options: that is how both work before and after a
// subcommand.
func (o *Options) Register(flags *flag.FlagSet) {
	flags.StringVar(&o.Path, "config", o.Path, "configuration `FILE` (default: what "+PathVariable+" names, or none)")
	flags.Var((*settings)(&o.Flags), "set", "set one configuration `KEY=VALUE`; may be repeated")
}

// settings is the value of -set. It takes anything, because package flag
// repeats a value it refuses, and that may be a secret; Load judges it.
type settings []Setting

func (s *settings) String() string { return "" }

func (s *settings) Set(text string) error {
	key, value, found := strings.Cut(text, "=")
	if !found {
		key = ""
	}
	*s = append(*s, Setting{Flag: "-set", Key: key, Value: value})
	return nil
}

// Loaded is the merged configuration and where each value came from.
type Loaded struct {
	Config
	File string // what was read; empty when no file was named
	schema
	origins map[string]source
	entries []field // keys inside limit tables, in the order they were set
}

// Load merges file, environment and flags over the defaults. Its error is
// *Problems, with everything that is wrong.
func Load(o Options) (*Loaded, error) {
	l := &loader{
		out:    &Loaded{Config: Default(), schema: newSchema(), origins: map[string]source{}},
		lookup: o.Lookup,
		bad:    map[string]bool{},
		whole:  true,
	}
	if l.lookup == nil {
		l.lookup = func(string) (string, bool) { return "", false }
	}
	l.schema = l.out.schema
	l.file(o.Path)
	l.environment()
	l.flags(o.Flags)
	l.check()
	if len(l.problems) > 0 {
		p := &Problems{l.problems}
		p.sort()
		return nil, p
	}
	return l.out, nil
}

// loader is one call of Load.
type loader struct {
	schema
	out      *Loaded
	lookup   references
	problems []Problem
	bad      map[string]bool // keys whose last value was not taken
	whole    bool            // the file was read to its end
}

func (l *loader) report(at source, key, what, want string) {
	l.problems = append(l.problems, Problem{Where: at.where(), Key: key, What: what, Want: want, at: at})
}

// unknown reports a key that nobody knows.
func (l *loader) unknown(at source, key string) {
	want := "a key of the annotated example"
	if near := l.suggest(key); near != "" {
		want = "perhaps " + near
	}
	const longest = 100
	if short := []rune(key); len(short) > longest {
		key = string(short[:longest]) + "…"
	}
	l.report(at, key, "unknown key", want)
}

// took notes that f was set at a source, or reports why it was not.
func (l *loader) took(f field, at, faultAt source, bad fault) {
	l.bad[f.key] = !bad.none()
	if f.isEntry {
		if _, known := l.out.origins[f.key]; !known {
			l.out.entries = append(l.out.entries, f)
		}
	}
	l.out.origins[f.key] = at
	if !bad.none() {
		l.report(faultAt, f.key, bad.what, bad.want)
	}
}

func (l *loader) file(path string) {
	named := "-config"
	if path == "" {
		path, _ = l.lookup(PathVariable)
		named = PathVariable
	}
	if path == "" {
		return
	}
	l.out.File = path
	name := onOneLine(path)
	doc, err := readBounded(path)
	if err != nil {
		l.whole = false
		// The path is in Where already.
		var inner *fs.PathError
		if errors.As(err, &inner) {
			err = inner.Err
		}
		l.report(source{layer: inFile, name: name}, "",
			"the file named by "+named+" cannot be read: "+err.Error(), "a readable TOML file")
		return
	}
	l.readFile(name, doc)
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	doc, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(doc) > maxFile {
		err = fmt.Errorf("larger than %d bytes", maxFile)
	}
	return doc, err
}

func (l *loader) environment() {
	for i, f := range l.fields {
		at := source{layer: inEnv, order: i}
		var text, rival string
		for _, name := range f.names {
			value, ok := l.lookup(name)
			switch {
			case !ok:
			case at.name == "":
				at.name, text = name, value
			case value != text:
				rival = name
			}
		}
		switch {
		case at.name == "":
		case rival != "":
			l.took(f, at, at, fault{"differs from " + rival + ", which sets the same key", "one of the two, or one value in both"})
		default:
			l.took(f, at, at, f.setText(&l.out.Config, text, l.lookup))
		}
	}
}

func (l *loader) flags(flags []Setting) {
	for i, s := range flags {
		at := source{layer: inFlag, name: onOneLine(s.Flag), order: i}
		if s.Key == "" {
			l.report(at, "", "no key", "KEY=VALUE, for example app.port=17800")
			continue
		}
		path := l.flagPath(s.Key)
		f, ok := l.find(path)
		switch {
		case ok && !f.table():
			l.took(f, at, at, f.setText(&l.out.Config, s.Value, l.lookup))
		case l.tables[joinKey(path)]:
			l.report(at, joinKey(path), "a table, not a key", "a key in it")
		default:
			l.unknown(at, joinKey(path))
		}
	}
}

// layer orders the sources: the later wins.
type layer int

const (
	inDefault layer = iota
	inFile
	inEnv
	inFlag
)

// source is where a value came from.
type source struct {
	layer     layer
	name      string // of the file, variable or flag
	line, col int
	order     int // among variables or flags
}

func (s source) known() bool { return s.layer != inDefault }

// origin is what config print shows.
func (s source) origin() string {
	switch s.layer {
	case inFile:
		if s.line == 0 {
			return s.name
		}
		return s.name + ":" + strconv.Itoa(s.line)
	case inEnv:
		return "env " + s.name
	case inFlag:
		return "flag " + s.name
	default:
		return "default"
	}
}

// where is origin with the column.
func (s source) where() string {
	if s.layer == inFile && s.line > 0 {
		return s.origin() + ":" + strconv.Itoa(s.col)
	}
	return s.origin()
}

// onOneLine keeps a name from breaking a report apart.
func onOneLine(s string) string {
	for _, c := range s {
		if !strconv.IsPrint(c) {
			return quoted(s)
		}
	}
	return s
}
