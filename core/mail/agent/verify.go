package agent

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/mail/maildir"
)

// The rules that hold rows and files against each other.
const (
	fileThere   = "a message's file lies where it was last seen"
	fileOnce    = "a message has one file"
	fileTaken   = "a file of the INBOX was taken in"
	filePlace   = "a message's place is the one of its file"
	fileContent = "a message's file holds the bytes that were stored"
)

// FileRules are the rules of [VerifyFiles].
var FileRules = []string{fileThere, fileOnce, fileTaken, filePlace, fileContent}

// VerifyFiles holds the stored messages of all accounts against their Maildirs,
// byte for byte. A directory can be compared when nothing changed in it since
// the last sync; what changed is the next sync's work, and no violation. The
// directories left out are counted in what the report has skipped.
func VerifyFiles(ctx context.Context, store *mail.Store, rep *mail.Report) error {
	rep.Rules += len(FileRules)
	for p := (mail.PageOf{Limit: 200}); ; {
		accounts, next, err := store.Accounts(ctx, p)
		if err != nil {
			return err
		}
		for i := range accounts {
			v := verifier{store: store, rep: rep, account: &accounts[i]}
			if err := v.run(ctx); err != nil {
				return err
			}
		}
		if p.Cursor = next; next == "" {
			return nil
		}
	}
}

type verifier struct {
	store   *mail.Store
	rep     *mail.Report
	account *mail.Account
	dir     *maildir.Dir
	found   []finding // in the directory in hand
}

type finding struct{ rule, what, detail string }

func (v *verifier) run(ctx context.Context) error {
	cfg, err := v.account.Maildir()
	if err == nil {
		v.dir, err = maildir.Open(cfg.Path)
	}
	if err != nil {
		v.rep.Skipped = append(v.rep.Skipped, fmt.Sprintf("account %s: %v", v.account.ID, err))
		return nil
	}
	seen, err := v.store.SeenFolders(ctx, v.account.ID)
	if err != nil {
		return err
	}
	unseen, err := v.store.Unseen(ctx, v.account.ID, 1)
	if err != nil {
		return err
	}
	if len(unseen) > 0 {
		v.rep.Skipped = append(v.rep.Skipped, fmt.Sprintf("account %s: messages that actions have moved since the last sync", v.account.ID))
		return nil
	}
	changed := 0
	for _, f := range seen {
		if f.Changed == folderGone {
			continue
		}
		v.found = nil
		files, err := v.compare(ctx, f)
		if err != nil {
			return err
		}
		same, err := v.unchanged(ctx, f)
		if err != nil {
			return err
		}
		if !same {
			changed++
			continue
		}
		v.rep.Files += files
		for _, f := range v.found {
			v.rep.Add(f.rule, f.what, f.detail)
		}
	}
	if changed > 0 || len(seen) == 0 {
		v.rep.Skipped = append(v.rep.Skipped, fmt.Sprintf("account %s: %d folders that changed since the last sync", v.account.ID, changed))
	}
	return nil
}

// unchanged says whether a directory is as it was when the sync listed it, and
// no sync has listed it since.
func (v *verifier) unchanged(ctx context.Context, f mail.SeenFolder) (bool, error) {
	now, err := v.dir.Changed(maildir.Sub{Folder: f.Folder, New: f.New})
	if err != nil || now != f.Changed {
		return false, nil //nolint:nilerr // what cannot be looked at cannot be compared
	}
	seen, err := v.store.SeenFolders(ctx, v.account.ID)
	return slices.Contains(seen, f), err
}

// compare goes over a directory and what is stored about it, both in the order
// of the names' hashes, so that neither has to be held whole but the names.
func (v *verifier) compare(ctx context.Context, f mail.SeenFolder) (files int64, err error) {
	if same, err := v.unchanged(ctx, f); err != nil || !same {
		return 0, err
	}
	type named struct {
		hash  int64
		entry maildir.Entry
	}
	var list []named
	err = v.dir.ScanSub(ctx, maildir.Sub{Folder: f.Folder, New: f.New}, func(e maildir.Entry) error {
		list = append(list, named{mail.NameHash(filepath.Base(e.Path)), e})
		return nil
	})
	var some *maildir.ScanError // files that cannot be used were never taken in
	if err != nil && !errors.As(err, &some) {
		return 0, err
	}
	slices.SortFunc(list, func(a, b named) int { return cmp.Compare(a.hash, b.hash) })
	var strange []maildir.Entry
	const page = 1000
	after := int64(-1 << 63)
	for more := true; more; {
		rows, err := v.store.StoredFiles(ctx, v.account.ID, mail.FolderHash(f.Folder, f.New), after, page)
		if err != nil {
			return 0, err
		}
		more = len(rows) == page
		for _, row := range rows {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			after = row.NameHash
			for len(list) > 0 && list[0].hash < row.NameHash {
				strange, list = append(strange, list[0].entry), list[1:]
			}
			if len(list) == 0 || list[0].hash != row.NameHash {
				v.note(fileThere, row.ID, "in "+folderName(f)+" there is no file of "+row.Unique)
				continue
			}
			files++
			v.compareFile(row, list[0].entry)
			list = list[1:]
		}
	}
	for _, n := range list {
		strange = append(strange, n.entry)
	}
	return files, v.strangers(ctx, f, strange)
}

func (v *verifier) note(rule, what, detail string) {
	v.found = append(v.found, finding{rule, what, detail})
}

func folderName(f mail.SeenFolder) string {
	name, sub := f.Folder, "cur"
	if name == "" {
		name = "INBOX"
	}
	if f.New {
		sub = "new"
	}
	return name + " (" + sub + ")"
}

func (v *verifier) compareFile(row mail.StoredFile, e maildir.Entry) {
	if want := (mail.Place{Folder: e.Folder, Flags: e.Flags, New: e.New}); row.Place != want || row.Unique != e.Unique {
		v.note(filePlace, row.ID, fmt.Sprintf("stored %+v, on disk %+v", row.Place, want))
	}
	raw, _, err := v.dir.Read(e, mail.MaxMessage)
	if err != nil {
		v.note(fileContent, row.ID, err.Error())
		return
	}
	if sum := sha256.Sum256(raw); hex.EncodeToString(sum[:]) != row.SHA256 {
		v.note(fileContent, row.ID, fmt.Sprintf("%d bytes with the sum %x", len(raw), sum))
	}
}

// strangers are files that are not stored where they lie: second files of
// stored messages, or mail that was never taken in. Outside the INBOX that is
// as it should be.
func (v *verifier) strangers(ctx context.Context, f mail.SeenFolder, list []maildir.Entry) error {
	for some := range slices.Chunk(list, scanBatch) {
		var uniques []string
		for _, e := range some {
			if job.CheckText("name", e.Unique, job.MaxName) == nil {
				uniques = append(uniques, e.Unique)
			}
		}
		stored, err := v.store.Stored(ctx, v.account.ID, uniques)
		if err != nil {
			return err
		}
		for _, u := range uniques {
			if stored[u] {
				v.note(fileOnce, u, "another one lies in "+folderName(f))
			}
		}
		if f.Folder != "" {
			continue
		}
		unknown, err := v.store.Unknown(ctx, v.account.ID, uniques)
		if err != nil {
			return err
		}
		for _, u := range unknown {
			if !stored[u] {
				v.note(fileTaken, u, "it lies in "+folderName(f))
			}
		}
	}
	return nil
}
