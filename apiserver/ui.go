package main

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
)

// The web pages: static files that ask this API, from the reader's browser,
// and nobody else. ui/vendor is other people's work as it was published:
// scripts/vendor-web says which and checks it.
//
//go:embed ui
var uiFiles embed.FS

// uiPath is where the pages are; they have no secrets and need no token.
const uiPath = "/ui/"

// uiPolicy lets the pages load what this binary serves, and nothing else. The
// style sheet has its small pictures in itself.
const uiPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// uiFile is a file of the pages.
type uiFile struct {
	body []byte
	mime string
	tag  string
}

// serveUI answers with the pages' files.
func serveUI() (http.Handler, error) {
	files := map[string]uiFile{}
	err := fs.WalkDir(uiFiles, "ui", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := uiFiles.ReadFile(name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(body)
		f := uiFile{body, mime.TypeByExtension(path.Ext(name)), `"` + hex.EncodeToString(sum[:8]) + `"`}
		files[strings.TrimPrefix(name, "ui/")] = f
		return nil
	})
	if err != nil {
		return nil, err
	}
	files[""] = files["index.html"]
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, there := files[r.PathValue("file")]
		if !there {
			http.Redirect(w, r, uiPath, http.StatusSeeOther)
			return
		}
		h := w.Header()
		h.Set("Content-Type", f.mime)
		h.Set("Content-Security-Policy", uiPolicy)
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", f.tag)
		if r.Header.Get("If-None-Match") == f.tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write(f.body) // that the caller is gone can be told to nobody
	}), nil
}

// serveIndex sends people to the pages and tells programs where to look.
func serveIndex(about index) http.HandlerFunc {
	programs := serveJSON(about)
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Accept")
		if strings.Contains(r.Header.Get("Accept"), "text/html") {
			http.Redirect(w, r, uiPath, http.StatusSeeOther)
			return
		}
		programs(w, r)
	}
}
