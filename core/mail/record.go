package mail

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail/message"
	"github.com/postroom/postroom/core/queue"
)

// What the handlers write. Each function records statements into the batch
// that also completes the handler's job.

// Place is where a message's original lies.
type Place struct {
	Folder string `json:"folder"` // "" is the INBOX
	Flags  string `json:"flags"`
	New    bool   `json:"new"`
	Gone   bool   `json:"gone"` // the file is no longer there
}

// Raw is a message's raw_json: its place and what the parser found beside the
// columns.
type Raw struct {
	Place
	ListID        string               `json:"list_id,omitempty"`
	HasAttachment bool                 `json:"has_attachment"`
	Attachments   []message.Attachment `json:"attachments"`
	Notes         []string             `json:"notes"` // what could not be read
}

// MessageID returns the id of a stored message, "" when it is not stored.
func (s *Store) MessageID(ctx context.Context, accountID, unique string) (string, error) {
	res, err := s.db.Read(ctx, libsql.Query(sqlMessageID, accountID, unique))
	if err != nil || len(res[0].Rows) == 0 {
		return "", err
	}
	return res[0].Rows[0].Str(0), nil
}

// maxWords is how many bytes of a message's text can be searched for.
const maxWords = 256 << 10

// words is text for the index of words, which takes no NUL.
func words(s string) string { return strings.ReplaceAll(s, "\x00", " ") }

// Arrival is a message that was read and is to be stored.
type Arrival struct {
	ID      string
	Message *message.Message
	File    File
	Time    time.Time // of the file
	Verdict *Verdict  // nil when the rules were not asked
}

// RecordMessages stores messages, their threads and words, and what the rules
// say about them. However many they are, it is a few statements.
func (s *Store) RecordMessages(ctx context.Context, b *queue.Batch, accountID, queueName string, list []Arrival) {
	if len(list) == 0 {
		return
	}
	ties := s.ties(list)
	b.Exec(sqlNewThreads, accountID, string(job.Payload(ties)))
	for _, t := range ties {
		if len(t.IDs) > 1 { // one id alone ties nothing together
			ids := string(job.Payload(t.IDs))
			b.Exec(sqlJoinMessages, accountID, ids)
			b.Exec(sqlJoinThreads, accountID, ids)
			b.Exec(sqlJoinIDs, accountID, ids)
		}
	}
	b.Exec(sqlNewIDs, accountID, string(job.Payload(ties)))
	rows, texts, ids, own := make([][]any, len(list)), make([][]any, len(list)), make([]string, len(list)), make([]string, len(ties))
	for i, a := range list {
		m := a.Message
		rows[i], ids[i] = a.row(accountID), a.ID
		texts[i] = []any{a.ID, words(m.FromName + " " + m.FromEmail), words(m.Subject), words(m.Text(maxWords))}
	}
	for i, t := range ties {
		own[i] = t.Own
	}
	insert(b, sqlInsertMessages, rows)
	b.Exec(sqlThreadSummaries, accountID, string(job.Payload(own)))
	b.Exec(sqlInsertDocs, string(job.Payload(ids)))
	insert(b, sqlInsertWords, texts)
	var verdicts []MessageVerdict
	for _, a := range list {
		if a.Verdict != nil {
			verdicts = append(verdicts, MessageVerdict{MessageID: a.ID, AccountID: accountID, Queue: queueName, Verdict: *a.Verdict})
		}
	}
	s.RecordVerdicts(ctx, b, verdicts)
}

// row is the message's row, without the times.
func (a *Arrival) row(accountID string) []any {
	m := a.Message
	var received, internal any
	if !a.Time.IsZero() {
		internal = a.Time.UnixMilli()
		received = internal
	}
	if !m.Date.IsZero() {
		received = m.Date.UnixMilli()
	}
	raw := Raw{
		Place: a.File.Place, ListID: m.ListID, HasAttachment: m.HasAttachment,
		Attachments: append([]message.Attachment{}, m.Attachments...), Notes: append([]string{}, m.Notes...),
	}
	return []any{
		a.ID, accountID, threadIDs(m, a.File.Unique)[0], a.File.Unique, null(m.MessageID), null(m.FromEmail), blob(m.FromName),
		addresses(m.To), addresses(m.Cc), addresses(m.Bcc), blob(m.Subject), blob(m.Snippet), received, internal,
		string(job.Payload(m.Headers)), m.Size, hex.EncodeToString(m.SHA256[:]), string(job.Payload(raw)),
		m.BodyPlain, m.BodyHTML, null(m.Automatic), a.File.dirHash(), a.File.nameHash(),
	}
}

// insert records a statement that inserts rows; %s in it is their values.
func insert(b *queue.Batch, sql string, rows [][]any) {
	if len(rows) == 0 {
		return
	}
	row := "(?" + strings.Repeat(", ?", len(rows[0])-1) + ")"
	values := "VALUES " + row + strings.Repeat(", "+row, len(rows)-1)
	b.Exec(fmt.Sprintf(sql, values), slices.Concat(rows...)...)
}

// tie is what belongs to one thread because its messages name each other.
type tie struct {
	Own    string   `json:"own"` // of the first of the messages
	IDs    []string `json:"ids"`
	Thread string   `json:"thread"` // a new thread's id, for when none is known
}

// ties brings together the messages that name each other.
func (s *Store) ties(list []Arrival) []tie {
	var all [][]string // the ids of each tie; of one that another took in, none
	of := map[string]int{}
	for _, a := range list {
		mine := len(all)
		all = append(all, nil)
		for _, id := range threadIDs(a.Message, a.File.Unique) {
			other, known := of[id]
			switch {
			case !known:
				of[id] = mine
				all[mine] = append(all[mine], id)
			case other != mine: // the earlier takes the later in
				into, from := min(mine, other), max(mine, other)
				for _, id := range all[from] {
					of[id] = into
				}
				all[into], all[from] = append(all[into], all[from]...), nil
				mine = into
			}
		}
	}
	var out []tie
	for _, ids := range all {
		if len(ids) > 0 {
			out = append(out, tie{Own: ids[0], IDs: ids, Thread: s.q.NewID()})
		}
	}
	return out
}

// RecordClassify stores the job that judges a message.
func (s *Store) RecordClassify(b *queue.Batch, id, accountID, queueName string) {
	b.Enqueue(s.classifyJob(id, accountID, queueName))
}

func (s *Store) classifyJob(id, accountID, queueName string) job.New {
	return job.New{
		Type: job.MessageClassify, Queue: queueName, Key: id, LimitKey: accountID,
		Payload: job.Payload(job.ClassifyPayload{MessageID: id}),
	}
}

func addresses(list []message.Address) string {
	if list == nil {
		list = []message.Address{}
	}
	return string(job.Payload(list))
}

// maxAncestors bounds how many threads a message can tie together.
const maxAncestors = 40

// threadIDs is what ties messages together: the message's own id (or, without
// one, its unique name) first, the one it answers, and the ends of its
// references.
func threadIDs(m *message.Message, unique string) []string {
	own := m.MessageID
	if own == "" {
		own = unique
	}
	ids := append([]string{own}, m.InReplyTo...)
	refs := m.References
	if len(refs) > maxAncestors {
		refs = append(refs[:1:1], refs[len(refs)-maxAncestors+1:]...) // the root and the nearest
	}
	ids = append(ids, refs...)
	for i, id := range ids {
		if len(id) > 500 { // a hostile header need not fill the index
			sum := sha256.Sum256([]byte(id))
			ids[i] = "sha256-" + hex.EncodeToString(sum[:])
		}
	}
	return ids[:min(len(ids), maxAncestors+2)]
}

// RecordDelivered deletes the bytes of a posted message: they lie in the
// Maildir now.
func (s *Store) RecordDelivered(b *queue.Batch, jobID string) { b.Exec(sqlDeleteChunks, jobID) }
