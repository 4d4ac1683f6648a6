package mail

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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

// RecordMessage stores a message, its thread and its words.
func (s *Store) RecordMessage(b *queue.Batch, id, accountID, unique string, m *message.Message, f File, fileTime time.Time) {
	ids := threadIDs(m, unique)
	own := ids[0]
	var received, internal any
	if !fileTime.IsZero() {
		internal = fileTime.UnixMilli()
		received = internal
	}
	if !m.Date.IsZero() {
		received = m.Date.UnixMilli()
	}
	subject := blob(m.Subject)
	list, newThread := string(job.Payload(ids)), s.q.NewID()
	b.Exec(sqlNewThread, accountID, list, newThread, own)
	b.Exec(sqlJoinMessages, accountID, list)
	b.Exec(sqlJoinThreads, accountID, list)
	b.Exec(sqlJoinIDs, accountID, list)
	b.Exec(sqlNewIDs, accountID, list, newThread)
	raw := Raw{
		Place: f.Place, ListID: m.ListID, HasAttachment: m.HasAttachment,
		Attachments: append([]message.Attachment{}, m.Attachments...), Notes: append([]string{}, m.Notes...),
	}
	b.Exec(sqlInsertMessage, id, accountID, own, unique, null(m.MessageID), null(m.FromEmail), blob(m.FromName),
		addresses(m.To), addresses(m.Cc), addresses(m.Bcc), subject, blob(m.Snippet), received, internal,
		string(job.Payload(m.Headers)), m.Size, hex.EncodeToString(m.SHA256[:]), string(job.Payload(raw)),
		m.BodyPlain, m.BodyHTML, null(m.Automatic), f.dirHash(), f.nameHash())
	b.Exec(sqlThreadSummary, accountID, own)
	b.Exec(sqlInsertDoc, id)
	b.Exec(sqlInsertWords, id, words(m.FromName+" "+m.FromEmail), words(m.Subject), words(m.Text(maxWords)))
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
