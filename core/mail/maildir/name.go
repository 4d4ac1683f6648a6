package maildir

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// info is the part of a file name after the unique name.
type info struct {
	flags string
	// rest is what some programs put after the flags, from its comma on; it
	// is carried along unchanged.
	rest string
}

// splitName cuts a file name at its first ":", always, so that a message
// keeps its identity when another client adds or changes what follows.
func splitName(name string) (unique string, inf info) {
	unique, tail, _ := strings.Cut(name, ":")
	if i := strings.LastIndex(":"+tail, ":2,"); i >= 0 {
		flags, rest, found := strings.Cut((":" + tail)[i+len(":2,"):], ",")
		inf.flags = flags
		if found {
			inf.rest = "," + rest
		}
	}
	return unique, inf
}

func (i info) join(unique string) string { return unique + ":2," + i.flags + i.rest }

// ValidName reports whether a file name found in a Maildir can be used: it is
// valid UTF-8 and its unique part is not empty. The error wraps ErrInvalidName
// and does not repeat the bytes.
func ValidName(name string) error {
	unique, _ := splitName(name)
	switch {
	case unique == "":
		return fmt.Errorf("%w: the unique part is empty", ErrInvalidName)
	case !utf8.ValidString(name):
		return fmt.Errorf("%w: not UTF-8", ErrInvalidName)
	}
	return nil
}

// validUnique is for a name that this package is asked to create.
func validUnique(unique string) error {
	switch {
	case unique == "" || unique[0] == '.' || strings.ContainsAny(unique, ":/"):
		return fmt.Errorf("%w: empty, begins with a dot, or holds a colon or slash", ErrInvalidName)
	case len(unique) > maxUniqueBytes:
		return fmt.Errorf("%w: %d bytes, at most %d", ErrInvalidName, len(unique), maxUniqueBytes)
	}
	if reason := badText(unique); reason != "" {
		return fmt.Errorf("%w: %s", ErrInvalidName, reason)
	}
	return nil
}

func badText(s string) string {
	if !utf8.ValidString(s) {
		return "not UTF-8"
	}
	if strings.ContainsFunc(s, unicode.IsControl) {
		return "holds a control character"
	}
	return ""
}

// changeFlags returns flags with add added and remove removed, sorted as the
// Maildir specification asks; flags it does not know stay. What is not ASCII is
// no flag: it comes last, as it was, because sorting its bytes would break
// characters apart and make the name unusable.
func changeFlags(flags, add, remove string) (string, error) {
	for _, r := range add + remove {
		if letter := 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z'; !letter {
			return "", fmt.Errorf("%w %q: only ASCII letters", ErrInvalidFlags, r)
		}
	}
	if i := strings.IndexAny(add, remove); remove != "" && i >= 0 {
		return "", fmt.Errorf("%w %q: both added and removed", ErrInvalidFlags, add[i])
	}
	var set, other []byte
	for _, b := range []byte(flags + add) {
		switch {
		case b >= utf8.RuneSelf:
			other = append(other, b)
		case strings.IndexByte(remove, b) < 0:
			set = append(set, b)
		}
	}
	slices.Sort(set)
	return string(slices.Compact(set)) + string(other), nil
}

// Entry describes the file of a name in one directory, whether it is there or
// not.
func (d *Dir) Entry(s Sub, name string) Entry { return d.entry(s.Folder, s.name(), name) }

func (d *Dir) entry(folder, sub, name string) Entry {
	unique, inf := splitName(name)
	return Entry{
		Unique: unique,
		Folder: folder,
		New:    sub == "new",
		Flags:  inf.flags,
		Path:   filepath.Join(d.folderPath(folder), sub, name),
		Size:   -1,
	}
}
