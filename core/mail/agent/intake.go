package agent

import (
	"context"
	"errors"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/mail/maildir"
	"github.com/postroom/postroom/core/mail/message"
	"github.com/postroom/postroom/core/queue"
)

// How much is taken in with one commit.
const (
	intakeBatch = 1000
	intakeBytes = 8 << 20
	// intakeEach is the largest message that is taken in together with others.
	intakeEach = 1 << 20
)

// takeIn reads, judges and stores messages that lie in the Maildir, many in a
// commit; while one is committed the next are read, those of a later call, too.
// It returns the names of those that want a job of their own: they are large,
// or cannot be read now.
func (s *scan) takeIn(ctx context.Context, entries []maildir.Entry) (left []string, err error) {
	for len(entries) > 0 {
		var list []mail.Arrival
		var rest []string
		list, rest, entries, err = s.read(ctx, entries)
		left = append(left, rest...)
		if before := s.stored(); err == nil {
			err = before
		}
		if err != nil {
			return nil, err
		}
		s.storing = &storing{names: make(map[string]bool, len(list)), done: make(chan error, 1)}
		for _, a := range list {
			s.storing.names[a.File.Unique] = true
		}
		go func(to chan<- error, found int) { to <- s.store(ctx, list, found) }(s.storing.done, s.found+len(list))
	}
	return left, nil
}

// storing is messages of which no look-up tells yet: they are being committed.
type storing struct {
	names map[string]bool
	done  chan error
}

// stored waits for what is being committed.
func (s *scan) stored() error {
	if s.storing == nil {
		return nil
	}
	err := <-s.storing.done
	if err == nil {
		s.found += len(s.storing.names)
	}
	s.storing = nil
	return err
}

// read reads and judges the messages of the next commit.
func (s *scan) read(ctx context.Context, entries []maildir.Entry) (list []mail.Arrival, left []string, rest []maildir.Entry, err error) {
	if err := s.agent.mayTakeIn(ctx, s.account.ID); err != nil {
		return nil, nil, nil, err
	}
	book, err := s.agent.store.Book(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	size := 0
	for len(entries) > 0 && len(list) < intakeBatch && size < intakeBytes {
		e := entries[0]
		entries = entries[1:]
		raw, at, err := s.dir.Read(e, intakeEach)
		switch {
		case errors.Is(err, maildir.ErrGone):
			continue // somebody deleted it meanwhile
		case err != nil:
			left = append(left, e.Unique)
			continue
		}
		size += len(raw)
		m := message.Parse(raw)
		verdict := book.Judge(s.account.ID, m)
		a := mail.Arrival{Message: m, File: fileOf(at), Time: at.Time, Verdict: &verdict}
		a.Prepare()
		list = append(list, a)
	}
	for i, id := range s.agent.q.NewIDs(len(list)) {
		list[i].ID = id
	}
	return list, left, entries, nil
}

// store commits messages together with their names, so that no job is ever
// stored for them.
func (s *scan) store(ctx context.Context, list []mail.Arrival, found int) error {
	if len(list) == 0 {
		return nil
	}
	names := make([]string, len(list))
	for i, a := range list {
		names[i] = a.File.Unique
	}
	return s.agent.store.StoreMessages(ctx, s.account.ID, s.queue, list, func(record func(*queue.Batch)) error {
		return s.write(ctx, func(b *queue.Batch) {
			record(b)
			s.agent.store.HoldNames(b, s.account.ID, names, s.jobID)
			s.agent.store.RecordAccountState(b, s.account.ID, map[string]any{"taking_in": found})
		})
	})
}

// errPaused ends what takes mail in when its account is paused.
var errPaused = errors.New("the account is paused")

// mayTakeIn is asked before each commit: an account may be paused or removed
// at any time.
func (a *Agent) mayTakeIn(ctx context.Context, accountID string) error {
	acc, err := a.store.Account(ctx, accountID)
	switch {
	case errors.Is(err, mail.ErrNotFound):
		return job.Fatal(err)
	case err == nil && acc.Paused:
		return errPaused
	}
	return err
}
