package mail

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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

// RecordMessage stores a message, its thread and the job that classifies it.
func (s *Store) RecordMessage(b *queue.Batch, id, accountID, unique, queueName string, m *message.Message, p Place, fileTime time.Time) {
	thread := threadKey(m, unique)
	var received, internal any
	if !fileTime.IsZero() {
		internal = fileTime.UnixMilli()
		received = internal
	}
	if !m.Date.IsZero() {
		received = m.Date.UnixMilli()
	}
	subject := blob(m.Subject)
	b.Exec(sqlUpsertThread, s.q.NewID(), accountID, thread, subject, blob(m.Snippet), received)
	raw := Raw{
		Place: p, ListID: m.ListID, HasAttachment: m.HasAttachment,
		Attachments: append([]message.Attachment{}, m.Attachments...), Notes: append([]string{}, m.Notes...),
	}
	b.Exec(sqlInsertMessage, id, accountID, thread, unique, null(m.MessageID), null(m.FromEmail), blob(m.FromName),
		addresses(m.To), addresses(m.Cc), addresses(m.Bcc), subject, blob(m.Snippet), received, internal,
		string(job.Payload(m.Headers)), m.Size, hex.EncodeToString(m.SHA256[:]), string(job.Payload(raw)),
		m.BodyPlain, m.BodyHTML)
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

// threadKey is what ties messages together: the first of the references, the
// message answered, or the message itself.
func threadKey(m *message.Message, unique string) string {
	key := unique
	switch {
	case len(m.References) > 0:
		key = m.References[0]
	case len(m.InReplyTo) > 0:
		key = m.InReplyTo[0]
	case m.MessageID != "":
		key = m.MessageID
	}
	if len(key) > 500 { // a hostile header need not fill the index
		sum := sha256.Sum256([]byte(key))
		key = "sha256-" + hex.EncodeToString(sum[:])
	}
	return key
}

// RecordDelivered deletes the bytes of a posted message: they lie in the
// Maildir now.
func (s *Store) RecordDelivered(b *queue.Batch, jobID string) { b.Exec(sqlDeleteChunks, jobID) }
