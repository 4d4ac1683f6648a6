package mail

import (
	"context"
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

// Arrival is a message that was read and is to be stored.
type Arrival struct {
	ID      string
	Message *message.Message
	File    File
	Time    time.Time // of the file
	Verdict *Verdict  // nil when the rules were not asked

	made  []any     // its row, but for its id, account and thread
	words [3]string // sender, subject and text, for the index of words
}

// Prepare makes what is stored of the message, which takes time and needs no
// database: what is prepared while others are committed costs them no time.
// The message's headers are let go; they are in what was made.
func (a *Arrival) Prepare() {
	m := a.Message
	a.made = a.row()
	a.words = [3]string{words(m.FromName + " " + m.FromEmail), words(m.Subject), words(m.Text(maxWords))}
	m.Headers = nil
}

// StoreMessages stores messages, their threads and words, and what the rules
// say about them. However many they are, it is a few statements; their ids
// ascend, for that is fastest. write applies a batch that begins with what
// record adds to it; it is called again when the threads are no longer as they
// were when they were looked up.
func (s *Store) StoreMessages(ctx context.Context, accountID, queueName string, list []Arrival, write func(record func(*queue.Batch)) error) error {
	if len(list) == 0 {
		return write(func(*queue.Batch) {})
	}
	for n := 1; ; n++ {
		t, err := s.lookThreads(ctx, accountID, list)
		if err != nil {
			return err
		}
		place := -1
		err = write(func(b *queue.Batch) {
			place = b.Len()
			t.guard(b, accountID)
			s.recordMessages(ctx, b, accountID, queueName, list, t)
		})
		if place < 0 || libsql.GuardIndex(err) != place || n == threadLooks {
			return err
		}
	}
}

// threadLooks is how often messages are tried to be stored whose threads
// others change at the same time.
const threadLooks = 20

func (s *Store) recordMessages(ctx context.Context, b *queue.Batch, accountID, queueName string, list []Arrival, t *threading) {
	t.record(b, accountID, list)
	rows, texts, ids := make([][]any, len(list)), make([][]any, len(list)), make([]string, len(list))
	for i := range list {
		a := &list[i]
		if a.made == nil {
			a.Prepare()
		}
		rows[i], ids[i] = append([]any{a.ID, accountID, t.of[i]}, a.made...), a.ID
		texts[i] = []any{a.ID, a.words[0], a.words[1], a.words[2]}
	}
	insert(b, sqlInsertMessages, rows)
	t.summarize(b)
	b.Exec(sqlInsertDocs, string(job.Payload(ids)))
	insertAtOnce(b, sqlInsertWords, texts)
	var verdicts []MessageVerdict
	for _, a := range list {
		if a.Verdict != nil {
			verdicts = append(verdicts, MessageVerdict{MessageID: a.ID, AccountID: accountID, Queue: queueName, Verdict: *a.Verdict})
		}
	}
	s.RecordVerdicts(ctx, b, verdicts)
}

// receivedOr is when the message was received, by its own account or else by
// its file.
func (a *Arrival) receivedOr(unknown int64) int64 {
	switch {
	case !a.Message.Date.IsZero():
		return a.Message.Date.UnixMilli()
	case !a.Time.IsZero():
		return a.Time.UnixMilli()
	}
	return unknown
}

// row is the message's row, without what Prepare does not know and the times.
func (a *Arrival) row() []any {
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
		a.File.Unique, null(m.MessageID), null(m.FromEmail), blob(m.FromName),
		addresses(m.To), addresses(m.Cc), addresses(m.Bcc), blob(m.Subject), blob(m.Snippet), received, internal,
		string(job.Payload(m.Headers)), m.Size, hex.EncodeToString(m.SHA256[:]), string(job.Payload(raw)),
		m.BodyPlain, m.BodyHTML, null(m.Automatic), a.File.dirHash(), a.File.nameHash(),
	}
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

// RecordDelivered deletes the bytes of a posted message: they lie in the
// Maildir now.
func (s *Store) RecordDelivered(b *queue.Batch, jobID string) { b.Exec(sqlDeleteChunks, jobID) }

// RecordProblem says why the message of an ingest job cannot be taken in. It is
// shown with the account as long as that is so.
func (s *Store) RecordProblem(b *queue.Batch, jobID string, p job.IngestPayload, problem string) {
	b.Exec(sqlProblem, jobID, p.AccountID, p.Unique, []byte(strings.ToValidUTF8(problem, "\uFFFD")))
}
