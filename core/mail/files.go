package mail

import (
	"context"
	"fmt"
	"hash/fnv"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
)

// File is a message's file in a Maildir.
type File struct {
	Place
	Unique string
	Name   string // the file's whole name
}

// FolderHash stands for one directory of a Maildir.
func FolderHash(folder string, isNew bool) int64 {
	sub := "cur"
	if isNew {
		sub = "new"
	}
	return hash(folder + "/" + sub)
}

// NameHash stands for a file's name in its directory.
func NameHash(name string) int64 { return hash(name) }

func hash(s string) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s)) // it cannot fail
	return int64(h.Sum64())   //nolint:gosec // only compared
}

func (f File) dirHash() int64  { return FolderHash(f.Folder, f.New) }
func (f File) nameHash() int64 { return NameHash(f.Name) }

// SeenFolder is when a directory had last changed when it was listed.
type SeenFolder struct {
	Folder  string
	New     bool
	Changed int64 // ns since 1970; 0 when it must be listed again
	// Problems is how much in it could not be used.
	Problems int
}

// SeenFolders reads what the last sync saw.
func (s *Store) SeenFolders(ctx context.Context, accountID string) ([]SeenFolder, error) {
	res, err := s.db.Read(ctx, libsql.Query(sqlFolders, accountID))
	if err != nil {
		return nil, fmt.Errorf("read folders: %w", err)
	}
	out := make([]SeenFolder, len(res[0].Rows))
	for i, r := range res[0].Rows {
		out[i] = SeenFolder{Folder: r.Str(0), New: r.Bool(1), Changed: r.Int(2), Problems: int(r.Int(3))}
	}
	return out, nil
}

// filePage is how many hashes are read at a time.
const filePage = 50_000

// FilesIn reads the hashes of the names that were last seen in a directory, in
// their order.
func (s *Store) FilesIn(ctx context.Context, accountID string, dirHash int64) ([]int64, error) {
	var out []int64
	after := int64(-1 << 63)
	for {
		res, err := s.db.Read(ctx, libsql.Query(sqlFilesIn, accountID, dirHash, after, filePage))
		if err != nil {
			return nil, fmt.Errorf("read files: %w", err)
		}
		for _, r := range res[0].Rows {
			out = append(out, r.Int(0))
		}
		if len(res[0].Rows) < filePage {
			return out, nil
		}
		after = out[len(out)-1]
	}
}

// Stored says which of the unique names belong to stored messages.
func (s *Store) Stored(ctx context.Context, accountID string, uniques []string) (map[string]bool, error) {
	res, err := s.db.Read(ctx, libsql.Query(sqlStoredNames, accountID, string(job.Payload(uniques))))
	if err != nil {
		return nil, fmt.Errorf("look messages up: %w", err)
	}
	out := make(map[string]bool, len(res[0].Rows))
	for _, r := range res[0].Rows {
		out[uniques[r.Int(0)]] = true
	}
	return out, nil
}

// RecordFiles stores where other programs have put messages.
func (s *Store) RecordFiles(ctx context.Context, accountID string, files []File) error {
	if len(files) == 0 {
		return nil
	}
	var b libsql.Batch
	for _, f := range files {
		b.Exec(sqlFileSeen, string(job.Payload(f.Place)), f.dirHash(), f.nameHash(), accountID, f.Unique)
	}
	if _, err := s.db.Write(ctx, &b); err != nil {
		return fmt.Errorf("store places: %w", err)
	}
	return nil
}

// RecordGone marks the messages whose files were in a directory, are there no
// more, and were seen nowhere else since.
func (s *Store) RecordGone(ctx context.Context, accountID string, dirHash int64, names []int64) (int, error) {
	const each = 5000
	gone := 0
	for ; len(names) > 0; names = names[min(each, len(names)):] {
		var b libsql.Batch
		n := b.Query(sqlFilesGone, accountID, dirHash, string(job.Payload(names[:min(each, len(names))])))
		res, err := s.db.Write(ctx, &b)
		if err != nil {
			return gone, fmt.Errorf("store what is gone: %w", err)
		}
		gone += len(res[n].Rows)
	}
	return gone, nil
}

// Unseen lists messages that actions have put somewhere and no sync has seen
// since, by their unique names.
func (s *Store) Unseen(ctx context.Context, accountID string, limit int) ([]string, error) {
	res, err := s.db.Read(ctx, libsql.Query(sqlUnseen, accountID, limit))
	if err != nil {
		return nil, fmt.Errorf("read files: %w", err)
	}
	out := make([]string, len(res[0].Rows))
	for i, r := range res[0].Rows {
		out[i] = r.Str(0)
	}
	return out, nil
}

// RecordLost marks messages as gone that no sync has seen since an action, and
// that are nowhere.
func (s *Store) RecordLost(ctx context.Context, accountID string, uniques []string) error {
	if len(uniques) == 0 {
		return nil
	}
	var b libsql.Batch
	for _, u := range uniques {
		b.Exec(sqlLost, accountID, u)
	}
	if _, err := s.db.Write(ctx, &b); err != nil {
		return fmt.Errorf("store what is gone: %w", err)
	}
	return nil
}

// RecordSynced stores the times of change of the directories that were listed.
func (s *Store) RecordSynced(ctx context.Context, accountID string, folders []SeenFolder) error {
	if len(folders) == 0 {
		return nil
	}
	var b libsql.Batch
	for _, f := range folders {
		sub := "cur"
		if f.New {
			sub = "new"
		}
		b.Exec(sqlFolderSeen, accountID, f.Folder, sub, f.Changed, f.Problems)
	}
	if _, err := s.db.Write(ctx, &b); err != nil {
		return fmt.Errorf("store folders: %w", err)
	}
	return nil
}
