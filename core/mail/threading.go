package mail

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail/message"
	"github.com/postroom/postroom/core/queue"
)

// threading is which threads some messages belong to. It is decided outside of
// the commit that stores them, from what was looked up, and holds only while
// that has not changed: the commit checks it.
type threading struct {
	seen  [][2]any    // every id that the messages name, and its thread, nil for none
	of    []string    // the thread of each message
	fresh []int       // of the messages, the first of each new thread
	grown []string    // threads that were there and get messages
	joins [][2]string // threads that turn out to be one: which, and the one that takes it in
	ids   [][2]string // ids that were not known, and their threads
}

// lookThreads finds out which threads messages belong to: messages that name
// each other share one. Of threads that turn out to be one the oldest takes the
// others in.
func (s *Store) lookThreads(ctx context.Context, accountID string, list []Arrival) (*threading, error) {
	var all []string
	number := map[string]int{} // of each id in all
	of := make([][]int, len(list))
	for i, a := range list {
		for _, id := range threadIDs(a.Message, a.File.Unique) {
			n, had := number[id]
			if !had {
				n = len(all)
				number[id], all = n, append(all, id)
			}
			of[i] = append(of[i], n)
		}
	}
	res, err := s.db.Read(ctx, libsql.Query(sqlThreadsOf, accountID, string(job.Payload(all))))
	if err != nil {
		return nil, fmt.Errorf("look threads up: %w", err)
	}
	known := make([]string, len(all))
	for _, r := range res[0].Rows {
		known[r.Int(0)] = r.Str(1)
	}

	// The ids of one message, and those of one thread, are one group, which
	// the root of any of them stands for.
	root := make([]int, len(all))
	for n := range root {
		root[n] = n
	}
	find := func(n int) int {
		for root[n] != n {
			root[n] = root[root[n]]
			n = root[n]
		}
		return n
	}
	for _, ids := range of {
		for _, n := range ids {
			root[find(n)] = find(ids[0])
		}
	}
	first := map[string]int{} // of each thread that is known, an id
	for n, thread := range known {
		if thread == "" {
			continue
		}
		if m, had := first[thread]; had {
			root[find(n)] = find(m)
		} else {
			first[thread] = n
		}
	}

	t := &threading{of: make([]string, len(list))}
	threads := slices.Sorted(maps.Keys(first)) // the oldest first
	thread := map[int]string{}                 // of each group
	for _, was := range threads {
		switch g := find(first[was]); thread[g] {
		case "":
			thread[g] = was
			t.grown = append(t.grown, was)
		default:
			t.joins = append(t.joins, [2]string{was, thread[g]})
		}
	}
	for i, ids := range of {
		g := find(ids[0])
		if thread[g] == "" {
			thread[g] = s.q.NewID()
			t.fresh = append(t.fresh, i)
		}
		t.of[i] = thread[g]
	}
	for n, id := range all {
		if known[n] != "" {
			t.seen = append(t.seen, [2]any{id, known[n]})
			continue
		}
		t.seen = append(t.seen, [2]any{id, nil})
		t.ids = append(t.ids, [2]string{id, thread[find(n)]})
	}
	return t, nil
}

// guard records the check that the threads are as they were looked up.
func (t *threading) guard(b *queue.Batch, accountID string) {
	b.Guard(sqlGuardThreads, accountID, string(job.Payload(t.seen)))
}

// record stores the new threads, before their messages.
func (t *threading) record(b *queue.Batch, accountID string, list []Arrival) {
	summaries := map[string]*summary{}
	rows := make([][]any, len(t.fresh))
	for _, i := range t.fresh {
		summaries[t.of[i]] = &summary{}
	}
	for i := range list {
		if sum := summaries[t.of[i]]; sum != nil {
			sum.add(&list[i])
		}
	}
	for n, i := range t.fresh {
		sum := summaries[t.of[i]]
		rows[n] = []any{
			t.of[i], accountID, threadIDs(list[i].Message, list[i].File.Unique)[0],
			blob(sum.first.Message.Subject), blob(sum.last.Message.Snippet), sum.last.receivedOr(0),
		}
	}
	insert(b, sqlInsertThreads, rows)
	if len(t.joins) > 0 {
		joins := string(job.Payload(t.joins))
		b.Exec(sqlJoinMessages, joins)
		b.Exec(sqlJoinIDs, accountID, joins)
		b.Exec(sqlJoinThreads, joins)
	}
	if len(t.ids) > 0 {
		b.Exec(sqlInsertIDs, accountID, string(job.Payload(t.ids)))
	}
}

// summarize records what threads that were there say of themselves with their
// new messages.
func (t *threading) summarize(b *queue.Batch) {
	if len(t.grown) > 0 {
		b.Exec(sqlThreadSummaries, string(job.Payload(t.grown)))
	}
}

// summary finds the first and the last message of a new thread, as
// sqlThreadSummaries does of one that is stored.
type summary struct{ first, last *Arrival }

func (s *summary) add(a *Arrival) {
	if s.first == nil || a.before(s.first) {
		s.first = a
	}
	if s.last == nil || s.last.before(a) {
		s.last = a
	}
}

func (a *Arrival) before(b *Arrival) bool {
	if x, y := a.receivedOr(math.MinInt64), b.receivedOr(math.MinInt64); x != y {
		return x < y
	}
	return a.ID < b.ID
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

// insert records statements that insert rows; %s in sql is their values. They
// insert so many rows each that few different ones do for any number, which a
// connection has compiled before.
func insert(b *queue.Batch, sql string, rows [][]any) {
	for _, n := range []int{64, 8, 1} {
		for ; len(rows) >= n; rows = rows[n:] {
			insertAtOnce(b, sql, rows[:n])
		}
	}
}

// insertAtOnce is insert with one statement. The index of words writes out what
// it has gathered whenever another one begins.
func insertAtOnce(b *queue.Batch, sql string, rows [][]any) {
	if len(rows) == 0 {
		return
	}
	row := "(?" + strings.Repeat(", ?", len(rows[0])-1) + ")"
	values := "VALUES " + row + strings.Repeat(", "+row, len(rows)-1)
	b.Exec(fmt.Sprintf(sql, values), slices.Concat(rows...)...)
}
