package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
)

//go:embed mail/*.eml rules.json
var embedded embed.FS

const (
	provider = "maildir"
	email    = "robin@example.org"

	// markerName is the file that says that the mailbox was laid out: what the
	// user throws away after that stays away.
	markerName = ".demo-mail-laid-out"
)

// mailbox is the demo's account and its Maildir. Its parts are checked one by
// one, so that a first start that broke off is completed by the next.
type mailbox struct {
	api    *api
	root   string // absolute
	marker string
}

// prepared is what prepare found missing and made.
type prepared struct {
	account bool
	rules   int
}

// describe says what was made, with the number of messages delivered, in a
// line; nothing if there was nothing to do.
func (p prepared) describe(laid int) string {
	var made []string
	if p.account {
		made = append(made, "the account "+email)
	}
	if p.rules > 0 {
		made = append(made, fmt.Sprintf("%d rules", p.rules))
	}
	text := ""
	if made != nil {
		text = "Created " + strings.Join(made, " and ") + ".\n"
	}
	if laid > 0 {
		text += fmt.Sprintf("Delivered %s into the Maildir:\n", plural(laid, "message"))
	}
	return text
}

// prepare makes the account and the rules. It comes before the messages, so
// that all of them are judged by all rules.
func (b mailbox) prepare(ctx context.Context) (done prepared, err error) {
	found := ""
	err = every(ctx, b.api, "/v1/accounts", "accounts", func(a struct {
		Email  string `json:"email"`
		Config struct {
			Path string `json:"path"`
		} `json:"config"`
	}) bool {
		if a.Email == email {
			found = a.Config.Path
		}
		return a.Email != email
	})
	if err != nil {
		return done, fmt.Errorf("look for the account: %w", err)
	}
	if found != "" && filepath.Clean(found) != b.root {
		return done, fmt.Errorf("the Maildir of %s in this database is %s, not %s: was the folder of data moved or copied? Move it back, or delete it to start afresh", email, found, b.root)
	}
	if laid, err := b.laidOut(); err != nil || laid && found != "" {
		return done, err
	}
	if done.rules, err = b.addRules(ctx); err != nil {
		return done, err
	}
	if found != "" {
		return done, nil
	}
	body, err := json.Marshal(map[string]any{"provider": provider, "email": email, "display_name": "Robin Vale", "config": map[string]string{"path": b.root}})
	if err == nil {
		err = b.api.call(ctx, http.MethodPost, "/v1/accounts", body, nil)
	}
	if err != nil {
		return done, fmt.Errorf("create the account: %w", err)
	}
	done.account = true
	return done, nil
}

func (b mailbox) laidOut() (bool, error) {
	_, err := os.Stat(b.marker)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (b mailbox) addRules(ctx context.Context) (added int, err error) {
	raw, err := embedded.ReadFile("rules.json")
	if err != nil {
		return 0, fmt.Errorf("read the rules: %w", err)
	}
	var bodies []json.RawMessage
	if err := json.Unmarshal(raw, &bodies); err != nil {
		return 0, fmt.Errorf("read the rules: %w", err)
	}
	type named struct {
		Name string `json:"name"`
	}
	have := map[string]bool{}
	err = every(ctx, b.api, "/v1/rules", "rules", func(r named) bool {
		have[r.Name] = true
		return true
	})
	if err != nil {
		return 0, fmt.Errorf("look for the rules: %w", err)
	}
	for _, body := range bodies {
		var rule named
		if err := json.Unmarshal(body, &rule); err != nil {
			return added, fmt.Errorf("read the rules: %w", err)
		}
		if have[rule.Name] {
			continue
		}
		if err := b.api.call(ctx, http.MethodPost, "/v1/rules", body, nil); err != nil {
			return added, fmt.Errorf("create the rule %q: %w", rule.Name, err)
		}
		added++
	}
	return added, nil
}

// layMail delivers the embedded messages, once, and returns how many it
// delivered.
func (b mailbox) layMail() (int, error) {
	if laid, err := b.laidOut(); err != nil || laid {
		return 0, err
	}
	for _, dir := range []string{"tmp", "new", "cur"} {
		if err := os.MkdirAll(filepath.Join(b.root, dir), 0o700); err != nil {
			return 0, fmt.Errorf("make the Maildir: %w", err)
		}
	}
	have, err := b.uniqueNames()
	if err != nil {
		return 0, fmt.Errorf("look through the Maildir: %w", err)
	}
	files, err := embedded.ReadDir("mail")
	if err != nil {
		return 0, fmt.Errorf("read the messages: %w", err)
	}
	laid := 0
	for _, file := range files {
		unique := uniqueName(file.Name())
		if have[unique] {
			continue
		}
		raw, err := embedded.ReadFile(path.Join("mail", file.Name()))
		if err != nil {
			return laid, fmt.Errorf("read the messages: %w", err)
		}
		// The rename makes it appear whole.
		tmp := filepath.Join(b.root, "tmp", unique)
		if err := os.WriteFile(tmp, raw, 0o600); err != nil {
			return laid, fmt.Errorf("deliver a message: %w", err)
		}
		if err := os.Rename(tmp, filepath.Join(b.root, "new", unique)); err != nil {
			return laid, fmt.Errorf("deliver a message: %w", err)
		}
		laid++
	}
	if err := os.WriteFile(b.marker, []byte("The demo's messages are in the Maildir; without this file they are delivered again.\n"), 0o600); err != nil {
		return laid, fmt.Errorf("note that the messages are delivered: %w", err)
	}
	return laid, nil
}

// uniqueName is the Maildir name of an embedded message: the same on every
// start, so that one that was delivered is known again.
func uniqueName(file string) string { return strings.TrimSuffix(file, ".eml") + ".demo" }

// uniqueNames lists the messages of the INBOX and then of the other folders:
// in this order one that a rule moves meanwhile is not missed.
func (b mailbox) uniqueNames() (map[string]bool, error) {
	top, err := os.ReadDir(b.root)
	if err != nil {
		return nil, err
	}
	folders := []string{b.root}
	for _, entry := range top {
		if entry.IsDir() && strings.HasPrefix(entry.Name(), ".") {
			folders = append(folders, filepath.Join(b.root, entry.Name()))
		}
	}
	have := map[string]bool{}
	for _, folder := range folders {
		for _, dir := range []string{"new", "cur"} {
			list, err := os.ReadDir(filepath.Join(folder, dir))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			for _, entry := range list {
				unique, _, _ := strings.Cut(entry.Name(), ":")
				have[unique] = true
			}
		}
	}
	return have, nil
}

// watchMaildir returns a function that tells whether files came or went since
// it was last called; it spares an idle demo from asking the API.
func watchMaildir(root string) func() bool {
	last := [2]int64{}
	return func() bool {
		now := last
		for i, dir := range []string{"new", "cur"} {
			if info, err := os.Stat(filepath.Join(root, dir)); err == nil {
				now[i] = info.ModTime().UnixNano()
			}
		}
		changed := now != last
		last = now
		return changed
	}
}
