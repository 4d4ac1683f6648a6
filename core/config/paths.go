package config

import (
	"errors"
	"net/url"
	"path/filepath"
	"strings"
)

// IsRemote tells whether the database is a libsql server rather than a file.
func (p Paths) IsRemote() bool {
	switch scheme(p.Database) {
	case "libsql", "http", "https":
		return true
	}
	return false
}

// Location returns the URL of the database's server, or else its LocalPath.
func (p Paths) Location(home string) (string, error) {
	if p.IsRemote() {
		return p.Database, nil
	}
	return p.LocalPath(home)
}

// LocalPath returns the database's file: the path as given, without a file:
// prefix, and with a leading ~ replaced by home. An error never repeats the
// path.
func (p Paths) LocalPath(home string) (string, error) {
	path := p.Database
	switch s := scheme(path); {
	case s == "file":
		var err error
		if path, err = stripFile(path); err != nil {
			return "", err
		}
	case s != "":
		return "", errors.New("a URL, not a local path")
	}
	switch {
	case path == "":
		return "", errors.New("an empty path")
	case path == ":memory:":
		return "", errors.New("an in-memory database, which no other connection would see")
	case strings.ContainsAny(path, "?#"):
		// The driver reads both as the start of options and opens another
		// file than the one that was named.
		return "", errors.New("options after ? or #, which have no effect; use the keys of the database section")
	case strings.ContainsRune(path, 0):
		return "", errors.New("a path with a NUL byte")
	case strings.HasSuffix(path, "/"):
		return "", errors.New("a folder, not a file")
	}
	if !strings.HasPrefix(path, "~") {
		return path, nil
	}
	rest := path[1:]
	switch {
	case rest == "":
		return "", errors.New("a folder, not a file")
	case !strings.HasPrefix(rest, "/"):
		return "", errors.New("~ followed by a user's name; only ~/ is understood")
	case home == "":
		return "", errors.New("~ without a home folder to put in its place")
	}
	return filepath.Join(home, rest), nil
}

// scheme returns the lower-case scheme of a URL, "file" for file: with or
// without slashes, and "" for a path.
func scheme(s string) string {
	if len(s) >= 5 && strings.EqualFold(s[:5], "file:") {
		return "file"
	}
	before, _, found := strings.Cut(s, "://")
	if !found || before == "" || strings.ContainsAny(before, "/.~ ") {
		return ""
	}
	return strings.ToLower(before)
}

func stripFile(s string) (string, error) {
	path := s[len("file:"):]
	if rest, ok := strings.CutPrefix(path, "//"); ok {
		host, _, _ := strings.Cut(rest, "/")
		if host != "" && !strings.EqualFold(host, "localhost") {
			return "", errors.New("a file: URL of another host; write file:/path or a plain path")
		}
		path = rest[len(host):]
	}
	path, err := url.PathUnescape(path)
	if err != nil {
		return "", errors.New("a file: URL with a broken % escape")
	}
	return path, nil
}

// databaseFault says what is wrong with the database's path or URL, or "".
func (p Paths) databaseFault() string {
	s := scheme(p.Database)
	if s == "" || s == "file" {
		if _, err := p.LocalPath("/"); err != nil {
			return err.Error()
		}
		return ""
	}
	if !p.IsRemote() {
		return "a URL of an unsupported kind"
	}
	u, err := url.Parse(p.Database)
	switch {
	case err != nil:
		return "not a valid URL"
	case u.User != nil:
		return "a URL with credentials in it, which belong in database.auth_token"
	case u.Hostname() == "":
		return "a URL without a host"
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil || u.Fragment != "" {
		return "a URL with a broken query or a fragment"
	}
	for name := range query {
		// Only tls is known to be harmless; anything else may be a credential,
		// and this URL is shown by config print.
		if name != "tls" {
			return "a URL with options such as authToken; a token belongs in database.auth_token"
		}
	}
	return ""
}

// baseURLFault says what is wrong with a URL to which paths are appended.
func baseURLFault(s, secretKey string) string {
	if s == "" {
		return ""
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Hostname() == "" || (u.Scheme != "http" && u.Scheme != "https"):
		return "not an http:// or https:// URL"
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "a URL with credentials, a query or a fragment; secrets belong in " + secretKey
	}
	return ""
}
