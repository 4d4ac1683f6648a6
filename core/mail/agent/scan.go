package agent

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/mail/maildir"
	"github.com/postroom/postroom/core/queue"
)

const (
	// scanBatch is how many names are looked up, and how many jobs stored, at
	// a time.
	scanBatch = 1000
	// scanSort is how many new names are brought into their order, in which
	// they touch few pages of an index together; as a directory lists them they
	// touch one each.
	scanSort = 100_000
	// few is how many new messages of those get a job each. More are taken in
	// at once: that is a mailbox that comes in, not mail.
	few = 100
	// settled is how old a directory's last change must be for its time to
	// stand for what was listed: file systems keep times as coarse as this.
	settled = 3 * time.Second
)

// scan is one look at a Maildir. Directories whose time of change is the one
// stored are not listed at all; in one that is listed, only names that were
// not seen there last time are looked up. So a look costs as much as has
// changed, and a listing of the directories in which something did.
type scan struct {
	agent   *Agent
	account *mail.Account
	dir     *maildir.Dir
	queue   string
	jobID   string
	write   func(context.Context, func(*queue.Batch)) error

	seen    []mail.SeenFolder
	missing []missing
	storing *storing

	found, moved, gone, problems int
}

// missing is names that were in a directory and are there no more.
type missing struct {
	dirHash int64
	names   []int64
}

func (s *scan) run(ctx context.Context) error {
	cfg, err := s.account.Maildir()
	if err != nil {
		return job.Fatal(err)
	}
	s.queue = cfg.Queue
	stored, err := s.agent.store.SeenFolders(ctx, s.account.ID)
	if err != nil {
		return err
	}
	last := map[maildir.Sub]mail.SeenFolder{}
	for _, f := range stored {
		last[maildir.Sub{Folder: f.Folder, New: f.New}] = f
	}
	folders, problems, err := s.dir.Folders()
	if err != nil {
		return err
	}
	s.problems += len(problems)
	at := map[maildir.Sub]int64{} // when each had last changed, before it was listed
	for _, folder := range folders {
		for _, isNew := range []bool{true, false} {
			sub := maildir.Sub{Folder: folder, New: isNew}
			was, known := last[sub]
			delete(last, sub)
			changed, err := s.dir.Changed(sub)
			if err != nil {
				s.problems++
				continue
			}
			at[sub] = changed
			if known && was.Changed == changed {
				s.problems += was.Problems
				continue
			}
			before := s.problems
			if err := s.list(ctx, sub, known); err != nil {
				return err
			}
			if !isSettled(changed) {
				changed = 0
			}
			s.seen = append(s.seen, mail.SeenFolder{Folder: folder, New: isNew, Changed: changed, Problems: s.problems - before})
		}
	}
	for sub, was := range last { // folders that are there no more
		if was.Changed == folderGone {
			continue
		}
		names, err := s.agent.known.of(ctx, s.agent.store, s.account.ID, sub, false)
		if err != nil {
			return err
		}
		s.miss(sub, names)
		s.seen = append(s.seen, mail.SeenFolder{Folder: sub.Folder, New: sub.New, Changed: folderGone})
	}
	if err := s.meet(ctx); err != nil {
		return err
	}
	if err := s.believe(ctx, at); err != nil {
		return err
	}
	return s.agent.store.RecordSynced(ctx, s.account.ID, s.seen)
}

// meet looks for what actions have moved and this look has not met: it may have
// moved on since, or back to a name that was known, which is no news.
func (s *scan) meet(ctx context.Context) error {
	for {
		unseen, err := s.agent.store.Unseen(ctx, s.account.ID, scanBatch)
		if err != nil {
			return err
		}
		var files []mail.File
		var lost []string
		for _, unique := range unseen {
			e, err := s.dir.Find(unique)
			switch {
			case err == nil:
				files = append(files, fileOf(e))
			case errors.Is(err, maildir.ErrGone):
				lost = append(lost, unique)
			default: // a folder cannot be read now
			}
		}
		if err := s.agent.store.RecordFiles(ctx, s.account.ID, files); err != nil {
			return err
		}
		if err := s.agent.store.RecordLost(ctx, s.account.ID, lost); err != nil {
			return err
		}
		s.gone += len(lost)
		if len(unseen) < scanBatch || len(files)+len(lost) == 0 {
			return nil
		}
	}
}

// folderGone is the time of change of a folder that is there no more.
const folderGone = -1

func isSettled(changed int64) bool { return time.Since(time.Unix(0, changed)) >= settled }

// believe marks as gone what is missing, unless something may have moved while
// the directories were listed: such a file was perhaps met in neither of its
// two places. Then all are listed again next time.
func (s *scan) believe(ctx context.Context, at map[maildir.Sub]int64) error {
	if len(s.missing) == 0 {
		return nil
	}
	quiet := true
	for sub, before := range at {
		now, err := s.dir.Changed(sub)
		quiet = quiet && err == nil && now == before && isSettled(now)
	}
	for _, m := range s.missing {
		if !quiet {
			s.agent.known.drop(s.account.ID, m.dirHash)
			continue
		}
		n, err := s.agent.store.RecordGone(ctx, s.account.ID, m.dirHash, m.names)
		if err != nil {
			return err
		}
		s.gone += n
	}
	for i := range s.seen {
		if !quiet {
			s.seen[i].Changed = 0
		}
	}
	return nil
}

// list reads one directory.
func (s *scan) list(ctx context.Context, sub maildir.Sub, known bool) (err error) {
	defer func() {
		if before := s.stored(); err == nil {
			err = before
		}
	}()
	before, err := s.agent.known.of(ctx, s.agent.store, s.account.ID, sub, !known)
	if err != nil {
		return err
	}
	now := make([]int64, 0, len(before)+64)
	var fresh []string
	err = s.dir.ScanSub(ctx, sub, func(e maildir.Entry) error {
		name := filepath.Base(e.Path)
		h := mail.NameHash(name)
		now = append(now, h)
		if _, seen := slices.BinarySearch(before, h); seen {
			return nil
		}
		if job.CheckText("name", e.Unique, job.MaxName) != nil {
			s.problems++
			return nil
		}
		if fresh = append(fresh, strings.Clone(name)); len(fresh) < scanSort { // and not its path with it
			return nil
		}
		err := s.takeAll(ctx, sub, fresh)
		fresh = fresh[:0]
		return err
	})
	var some *maildir.ScanError
	if errors.As(err, &some) {
		s.problems += some.Count
		s.agent.log.Warn().Ctx(ctx).Str("account_id", s.account.ID).Err(some).Msg("parts of the mailbox cannot be read")
		if err = nil; some.Incomplete {
			now = append(now, before...) // what was not reached is not missing
		}
	}
	if err == nil {
		err = s.takeAll(ctx, sub, fresh)
	}
	if err == nil {
		err = s.stored()
	}
	if err != nil {
		return err
	}
	slices.Sort(now)
	now = slices.Compact(now)
	s.miss(sub, without(before, now))
	s.agent.known.put(s.account.ID, sub, now)
	return nil
}

// takeAll looks at files of one directory that were not there before, in the
// order of their names.
func (s *scan) takeAll(ctx context.Context, sub maildir.Sub, names []string) error {
	slices.Sort(names)
	for some := range slices.Chunk(names, scanBatch) {
		entries := make([]maildir.Entry, len(some))
		for i, name := range some {
			entries[i] = s.dir.Entry(sub, name)
		}
		if err := s.take(ctx, entries); err != nil {
			return err
		}
	}
	return nil
}

func (s *scan) miss(sub maildir.Sub, names []int64) {
	if len(names) > 0 {
		s.missing = append(s.missing, missing{mail.FolderHash(sub.Folder, sub.New), names})
	}
}

// without returns what of a is not in b; both are sorted.
func without(a, b []int64) []int64 {
	var out []int64
	for _, v := range a {
		for len(b) > 0 && b[0] < v {
			b = b[1:]
		}
		if len(b) == 0 || b[0] != v {
			out = append(out, v)
		}
	}
	return out
}

func (s *scan) isStoring(unique string) bool { return s.storing != nil && s.storing.names[unique] }

// take looks at files that were not there before: those of stored messages
// were moved or flagged by another program; the others, in the INBOX, are new.
func (s *scan) take(ctx context.Context, entries []maildir.Entry) error {
	uniques := make([]string, len(entries))
	for i, e := range entries {
		uniques[i] = e.Unique
	}
	stored, err := s.agent.store.Stored(ctx, s.account.ID, uniques)
	if err != nil {
		return err
	}
	var files []mail.File
	var fresh []string
	at := map[string]maildir.Entry{}
	for _, e := range entries {
		switch _, twice := at[e.Unique]; {
		case stored[e.Unique]:
			files = append(files, fileOf(e))
		case e.Folder == "" && !twice && !s.isStoring(e.Unique):
			fresh = append(fresh, e.Unique)
			at[e.Unique] = e
		}
	}
	s.moved += len(files)
	if err := s.agent.store.RecordFiles(ctx, s.account.ID, files); err != nil || len(fresh) == 0 {
		return err
	}
	unknown, err := s.agent.store.Unknown(ctx, s.account.ID, fresh)
	if err != nil {
		return err
	}
	if len(unknown) > few {
		many := make([]maildir.Entry, len(unknown))
		for i, unique := range unknown {
			many[i] = at[unique]
		}
		if unknown, err = s.takeIn(ctx, many); err != nil {
			return err
		}
	}
	jobs := make([]job.New, len(unknown))
	for i, unique := range unknown {
		jobs[i] = job.New{
			Type: job.MessageIngest, Queue: s.queue, Key: mail.IngestKey(s.account.ID, unique), LimitKey: s.account.ID,
			Payload: job.Payload(job.IngestPayload{AccountID: s.account.ID, Unique: unique}),
		}
	}
	_, err = s.agent.q.EnqueueMany(ctx, jobs)
	s.found += len(jobs)
	return err
}

func fileOf(e maildir.Entry) mail.File {
	return mail.File{
		Place:  mail.Place{Folder: e.Folder, Flags: e.Flags, New: e.New},
		Unique: e.Unique, Name: filepath.Base(e.Path),
	}
}

// known keeps, of each directory, the hashes of the names that the last sync
// saw in it: eight bytes for each message.
type known struct {
	mu   sync.Mutex
	dirs map[dirKey][]int64
}

type dirKey struct {
	account string
	dirHash int64
}

// of returns a directory's hashes: those in memory or, when there are none or
// afresh is wanted, those of the stored messages.
func (k *known) of(ctx context.Context, store *mail.Store, accountID string, sub maildir.Sub, afresh bool) ([]int64, error) {
	key := dirKey{accountID, mail.FolderHash(sub.Folder, sub.New)}
	k.mu.Lock()
	names, have := k.dirs[key]
	k.mu.Unlock()
	if have && !afresh {
		return names, nil
	}
	return store.FilesIn(ctx, accountID, key.dirHash)
}

func (k *known) put(accountID string, sub maildir.Sub, names []int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dirs == nil {
		k.dirs = map[dirKey][]int64{}
	}
	key := dirKey{accountID, mail.FolderHash(sub.Folder, sub.New)}
	if names == nil {
		delete(k.dirs, key)
		return
	}
	k.dirs[key] = names
}

func (k *known) drop(accountID string, dirHash int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.dirs, dirKey{accountID, dirHash})
}
