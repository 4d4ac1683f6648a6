package mail

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
)

// MessageFilter narrows a list of messages; empty fields do not.
type MessageFilter struct {
	Account, Thread, Label string
	// Words must all occur: in sender, subject or text (Query), or in one of
	// them. "…" is a phrase, a star at the end of a word stands for any ending.
	Query, From, Subject, Text string
	After, Before              time.Time // received at or after, and before
}

// Messages lists messages, newest first.
func (s *Store) Messages(ctx context.Context, f MessageFilter, p PageOf) ([]Message, string, error) {
	below, err := p.below()
	if err != nil {
		return nil, "", err
	}
	stmt, err := f.query(below, p.Limit+1)
	if err != nil {
		return nil, "", err
	}
	res, err := s.db.Read(ctx, stmt)
	if err != nil {
		return nil, "", fmt.Errorf("list messages: %w", err)
	}
	out := make([]Message, len(res[0].Rows))
	for i, r := range res[0].Rows {
		out[i] = messageRow(r)
	}
	out, next := page(out, p.Limit, func(m Message) string { return m.ID })
	return out, next, nil
}

// query puts the list's statement together from what is wanted: what narrows
// most, the words or else the label, leads it in its own order, which is that
// of the messages' ids.
func (f MessageFilter) query(below any, limit int) (libsql.Stmt, error) {
	match, err := f.match()
	if err != nil {
		return libsql.Stmt{}, err
	}
	from, order := `messages AS m`, `m.id`
	var where []string
	var args []any
	add := func(clause string, arg any) {
		where = append(where, clause)
		args = append(args, arg)
	}
	switch {
	case match != "":
		from = `message_search AS s JOIN message_docs AS w ON w.doc = s.rowid JOIN messages AS m ON m.id = w.message_id`
		order = `s.rowid`
		add(`message_search MATCH ?`, match)
		if below != nil {
			add(`s.rowid < (SELECT doc FROM message_docs WHERE message_id = ?)`, below)
		}
		if f.Label != "" {
			add(`EXISTS (SELECT 1 FROM message_labels AS l WHERE l.label = ? AND l.message_id = m.id)`, f.Label)
		}
	case f.Label != "":
		from = `message_labels AS l JOIN messages AS m ON m.id = l.message_id`
		order = `l.message_id`
		add(`l.label = ?`, f.Label)
		if below != nil {
			add(`l.message_id < ?`, below)
		}
	case below != nil:
		add(`m.id < ?`, below)
	}
	if f.Account != "" {
		add(`m.account_id = ?`, f.Account)
	}
	if f.Thread != "" {
		add(`m.thread_id = ?`, f.Thread)
	}
	if !f.After.IsZero() {
		add(`m.received_at >= ?`, f.After.UnixMilli())
	}
	if !f.Before.IsZero() {
		add(`m.received_at < ?`, f.Before.UnixMilli())
	}
	sql := `SELECT ` + messageColumns + ` FROM ` + from + withDecision
	if len(where) > 0 {
		sql += ` WHERE ` + strings.Join(where, ` AND `)
	}
	return libsql.Query(sql+` ORDER BY `+order+` DESC LIMIT ?`, append(args, limit)...), nil
}

// maxQuery bounds the words of one search.
const (
	maxQueryBytes = 1000
	maxQueryWords = 32
)

// match is the expression for the index of words; "" when no words are wanted.
func (f MessageFilter) match() (string, error) {
	var parts []string
	for _, field := range []struct{ name, column, text string }{
		{"q", "", f.Query}, {"from", "sender : ", f.From}, {"subject", "subject : ", f.Subject}, {"text", "body : ", f.Text},
	} {
		if strings.TrimSpace(field.text) == "" {
			continue
		}
		if err := job.CheckText(field.name, field.text, maxQueryBytes); err != nil {
			return "", err
		}
		words := queryWords(field.text)
		switch {
		case len(words) == 0:
			return "", invalid(field.name, "holds no word")
		case len(words) > maxQueryWords:
			return "", invalid(field.name, fmt.Sprintf("has more than %d words", maxQueryWords))
		}
		for _, w := range words {
			parts = append(parts, field.column+w)
		}
	}
	return strings.Join(parts, " AND "), nil
}

// queryWords turns what a person typed into quoted words and phrases, so that
// nothing in it is taken for the index's own language.
func queryWords(text string) []string {
	var out []string
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		var word string
		star := ""
		if rest, quoted := strings.CutPrefix(text, `"`); quoted {
			word, text, _ = strings.Cut(rest, `"`)
		} else {
			end := strings.IndexAny(text, " \t\"")
			if end < 0 {
				end = len(text)
			}
			word, text = text[:end], text[end:]
			if strings.HasSuffix(word, "*") {
				star = "*"
			}
		}
		if strings.ContainsFunc(word, isWordRune) {
			out = append(out, `"`+strings.ReplaceAll(strings.TrimRight(word, "*"), `"`, ` `)+`"`+star)
		}
	}
	return out
}
