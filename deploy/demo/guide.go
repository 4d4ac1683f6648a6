package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// sample is the message that the guide suggests to drop in, as seen from the
// root of the repository; a rule moves it.
const sample = "deploy/demo/mail/06-newsletter-garden.eml"

// whereToLook tells a person what there is to see and to try.
func whereToLook(data string, s *settings) string {
	var b strings.Builder
	row := func(what, where string) { fmt.Fprintf(&b, "  %-10s%s\n", what, where) }
	b.WriteString("Where to look\n")
	row("API", s.baseURL()+"/healthz")
	for _, path := range []string{"/v1/messages", "/v1/jobs?type=action.execute", "/openapi.json"} {
		row("", s.baseURL()+path)
	}
	if s.token != "" {
		row("", `with the header "Authorization: Bearer $API_TOKEN"`)
	}
	if s.runnerAddr != "" {
		row("Runner", "http://"+reachable(s.runnerAddr)+"/healthz")
	}
	row("Maildir", filepath.Join(data, "Maildir")+"  (the inbox is new/ and cur/; .Archive, .Newsletters, .Trash lie beside them)")
	row("Database", filepath.Join(data, "postroom.db"))
	row("Logs", filepath.Join(data, "logs", "apiserver.log")+", "+filepath.Join(data, "logs", "queuerunner.log"))

	message := sample
	if _, err := os.Stat(sample); err != nil {
		message = "MESSAGE.eml"
	}
	inbox := filepath.Join(data, "Maildir", "new")
	fmt.Fprintf(&b, "Drop another message in:  cp %s %s/hello-$(date +%%s)\n", message, quote(inbox))
	fmt.Fprintf(&b, "Ctrl-C stops both services; rm -rf %s afterwards starts afresh.\n", quote(data))
	return b.String()
}

// quote makes a path one word of a shell.
func quote(path string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+,:@%", r)
	}
	if strings.IndexFunc(path, func(r rune) bool { return !plain(r) }) < 0 {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
