// Package source reads mail that is to be imported: a Maildir, an mbox file or
// a folder of .eml files, in an order that stays the same, so that reading can
// go on after any message. It changes nothing there.
//
// It may import the standard library and core/mail/maildir.
package source

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/postroom/postroom/core/mail/maildir"
)

// ErrUnknown: the path is nothing that can be imported.
var ErrUnknown = errors.New("neither a Maildir, an mbox file nor a folder of .eml files")

// Item is one message of a source.
type Item struct {
	Unique   string // its name in the account's Maildir
	Folder   string
	Flags    string
	New      bool
	Raw      []byte
	Path     string // of a file that lies in the account's Maildir already
	Position []byte // where to go on after it
	Problem  error  // it cannot be read; the rest is missing
}

// Source is mail to be imported.
type Source interface {
	// Total is how many messages there are, or nearly so.
	Total(ctx context.Context) (int64, error)
	// Read calls fn for each message after a position. An error of fn ends it.
	Read(ctx context.Context, after []byte, fn func(Item) error) error
}

// Open looks what there is at path. own is the account's Maildir: read as a
// source, its files are taken in where they lie. Messages larger than max bytes
// are problems.
func Open(path, format, own string, max int64) (Source, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	if format == "" {
		format = look(path, info)
	}
	switch {
	case format == "maildir" && info.IsDir():
		dir, err := maildir.Open(path)
		if err != nil {
			return nil, fmt.Errorf("import: %w: %w", err, ErrUnknown)
		}
		return folders{dir: dir, inPlace: same(path, own), max: max}, nil
	case format == "eml" && info.IsDir():
		root, err := filepath.EvalSymlinks(path) // a walk does not follow a link, not even its root
		if err != nil {
			return nil, fmt.Errorf("import: %w", err)
		}
		return emls{root, max}, nil
	case format == "mbox" && info.Mode().IsRegular():
		return openMbox(path, max)
	}
	return nil, fmt.Errorf("import %q: %w", path, ErrUnknown)
}

func look(path string, info fs.FileInfo) string {
	switch {
	case info.Mode().IsRegular():
		return "mbox"
	case !info.IsDir():
		return ""
	}
	if _, err := maildir.Open(path); err == nil {
		return "maildir"
	}
	if holdsEml(path) {
		return "eml"
	}
	return ""
}

// holdsEml says whether there is anything to be read in a folder.
func holdsEml(path string) bool {
	root, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false
	}
	err = emls{path: root}.walk(context.Background(), func(string, string, error) error { return errAny })
	return err != nil
}

var errAny = errors.New("there is something")

func same(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// byContent names a message after its bytes, as one that is posted.
func byContent(raw []byte) string {
	sum := sha256.Sum256(raw)
	return "sha256-" + hex.EncodeToString(sum[:])
}

// folders is a Maildir.
type folders struct {
	dir     *maildir.Dir
	inPlace bool
	max     int64
}

func (s folders) Total(ctx context.Context) (int64, error) {
	var n int64
	err := s.dir.Scan(ctx, func(maildir.Entry) error { n++; return nil })
	var some *maildir.ScanError
	if errors.As(err, &some) {
		return n + int64(some.Count), nil
	}
	return n, err
}

// Read has no position: names that were taken in are skipped quickly.
func (s folders) Read(ctx context.Context, _ []byte, fn func(Item) error) error {
	err := s.dir.Scan(ctx, func(e maildir.Entry) error {
		it := Item{Unique: e.Unique, Folder: e.Folder, Flags: letters(e.Flags), New: e.New}
		raw, at, err := s.dir.Read(e, s.max)
		switch {
		case errors.Is(err, maildir.ErrGone):
			return nil
		case err != nil:
			it.Problem = err
			return fn(it)
		}
		it.Raw, it.Folder, it.Flags, it.New = raw, at.Folder, letters(at.Flags), at.New
		if s.inPlace {
			it.Path, it.Flags = at.Path, at.Flags
		}
		return fn(it)
	})
	var some *maildir.ScanError
	if errors.As(err, &some) {
		return fn(Item{Problem: some})
	}
	return err
}

// letters drops what is no flag.
func letters(flags string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' {
			return r
		}
		return -1
	}, flags)
}

// emls is a folder of .eml files, and the folders in it.
type emls struct {
	path string
	max  int64
}

// walk calls fn for each .eml file, and with a problem for each folder that
// cannot be listed.
func (s emls) walk(ctx context.Context, fn func(rel, path string, problem error) error) error {
	return filepath.WalkDir(s.path, func(path string, d fs.DirEntry, problem error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case problem != nil && path == s.path:
			return problem
		case problem == nil && (!d.Type().IsRegular() || !strings.EqualFold(filepath.Ext(path), ".eml")):
			return nil
		}
		rel, err := filepath.Rel(s.path, path)
		if err != nil {
			return err
		}
		return fn(rel, path, problem)
	})
}

func (s emls) Total(ctx context.Context) (int64, error) {
	var n int64
	return n, s.walk(ctx, func(string, string, error) error { n++; return nil })
}

func (s emls) Read(ctx context.Context, after []byte, fn func(Item) error) error {
	return s.walk(ctx, func(rel, path string, problem error) error {
		if len(after) > 0 && order(rel) <= order(string(after)) {
			return nil
		}
		it := Item{Position: []byte(rel), Problem: problem}
		if it.Problem == nil {
			it.Raw, it.Problem = readFile(path, s.max)
		}
		if it.Problem == nil {
			it.Unique = byContent(it.Raw)
		}
		return fn(it)
	})
}

// order makes paths compare as they are walked: folder by folder.
func order(rel string) string { return strings.ReplaceAll(rel, string(filepath.Separator), "\x00") }

func readFile(path string, max int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, max+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(raw)) > max:
		return nil, fmt.Errorf("%s is larger than %d bytes", filepath.Base(path), max)
	case len(raw) == 0:
		return nil, fmt.Errorf("%s is empty", filepath.Base(path))
	}
	return raw, nil
}
