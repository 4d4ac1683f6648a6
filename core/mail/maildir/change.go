package maildir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Deliver writes a message into new/ of the INBOX under its unique name:
// durable when it returns, complete or not there at all. When the Maildir
// holds the unique name already, in any folder and with any flags, that entry
// comes back with existed true and nothing is written. To be sure of that it
// lists all folders; see DeliverFresh.
func (d *Dir) Deliver(unique string, raw []byte) (e Entry, existed bool, err error) {
	if err := validUnique(unique); err != nil {
		return Entry{}, false, fmt.Errorf("maildir: deliver: %w", err)
	}
	found, err := d.Find(unique)
	if err == nil {
		// The run that put it there may have been cut off before this.
		if err := syncDir(filepath.Dir(found.Path)); err != nil {
			return Entry{}, false, fmt.Errorf("maildir: deliver %q: %w", unique, err)
		}
		return found, true, nil
	}
	if !errors.Is(err, ErrGone) {
		return Entry{}, false, err
	}
	return d.DeliverFresh(unique, raw)
}

// DeliverFresh is Deliver for a caller that knows the name was never
// delivered before (the first run of a delivery): it does not list the
// folders, so its cost does not grow with the mailbox. A file of that name
// that still lies in new/ is found and kept all the same.
func (d *Dir) DeliverFresh(unique string, raw []byte) (e Entry, existed bool, err error) {
	return d.DeliverTo(Entry{Unique: unique, New: true}, raw)
}

// DeliverTo is DeliverFresh into any folder, and with flags into cur/.
func (d *Dir) DeliverTo(to Entry, raw []byte) (e Entry, existed bool, err error) {
	unique := to.Unique
	if err := validUnique(unique); err != nil {
		return Entry{}, false, fmt.Errorf("maildir: deliver: %w", err)
	}
	sub, name := "new", unique
	if !to.New {
		flags, err := changeFlags(to.Flags, "", "")
		if err != nil {
			return Entry{}, false, fmt.Errorf("maildir: deliver: %w", err)
		}
		sub, name = "cur", info{flags: flags}.join(unique)
	}
	folder, err := CleanFolder(to.Folder)
	if err == nil && folder != "" {
		err = d.ensureFolder(folder)
	}
	if err != nil {
		return Entry{}, false, fmt.Errorf("maildir: deliver: %w", err)
	}
	// Not with its parents: a Maildir that is away (a file system that is not
	// mounted) must not be made anew.
	if err := os.Mkdir(filepath.Join(d.path, "tmp"), dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return Entry{}, false, fmt.Errorf("maildir: deliver: %w", err)
	}
	if !isDir(filepath.Join(d.path, "tmp")) || !d.within(folder, sub) {
		return Entry{}, false, fmt.Errorf("maildir: deliver: %w", ErrNotMaildir)
	}
	tmp, err := d.writeTmp(raw)
	if err != nil {
		return Entry{}, false, fmt.Errorf("maildir: deliver: %w", err)
	}
	target := d.entry(folder, sub, name)
	target.Size = int64(len(raw))
	err = linkOrRename(os.Link, tmp, target.Path)
	if errors.Is(err, fs.ErrExist) {
		existed, err = true, nil
		if !stat(&target) {
			// A client took it out of there at this moment.
			target, err = d.Find(unique)
		}
	}
	// After a rename in place of a link there is nothing to remove.
	if rmErr := os.Remove(tmp); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) && err == nil {
		err = rmErr
	}
	if err == nil {
		err = syncDir(filepath.Dir(target.Path))
	}
	if err != nil {
		return Entry{}, false, fmt.Errorf("maildir: deliver %q: %w", unique, err)
	}
	return target, existed, nil
}

// tmpPrefix marks our own files in tmp/, which other programs share.
const tmpPrefix = "postroom."

func (d *Dir) writeTmp(raw []byte) (path string, err error) {
	// Time, process and count tell apart two runs that share a process id.
	name := fmt.Sprintf("%s%d.%d.%d", tmpPrefix, time.Now().UnixNano(), os.Getpid(), d.seq.Add(1))
	path = filepath.Join(d.path, "tmp", name)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return "", err
	}
	_, err = f.Write(raw)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(path)
		return "", err
	}
	return path, nil
}

// SweepTmp removes what deliveries that were cut off left in tmp/: files this
// package wrote that are older than 36 hours, the age the Maildir
// specification names. Others' files stay.
func (d *Dir) SweepTmp(now time.Time) (removed int, err error) {
	dir := filepath.Join(d.path, "tmp")
	err = readNames(dir, func(name string) error {
		if len(name) <= len(tmpPrefix) || name[:len(tmpPrefix)] != tmpPrefix {
			return nil
		}
		path := filepath.Join(dir, name)
		info, err := os.Lstat(path)
		if err != nil || !info.Mode().IsRegular() || now.Sub(info.ModTime()) < 36*time.Hour {
			return nil
		}
		if err := os.Remove(path); err != nil {
			return err
		}
		removed++
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return removed, fmt.Errorf("maildir: sweep tmp: %w", err)
	}
	return removed, nil
}

// Move puts a message into a folder, made on demand, and returns where it is.
// A message in new/ goes to new/, one in cur/ to cur/ with its flags. When the
// message is in that folder already, that is success; when the same file lies
// in both (a move that was cut off between link and unlink), the move is
// completed, provided that e names the source folder.
func (d *Dir) Move(e Entry, folder string) (Entry, error) {
	target, err := CleanFolder(folder)
	if err != nil {
		return Entry{}, err
	}
	return d.change("move", e, func(from Entry) (Entry, error) {
		if from.Folder == target {
			return from, nil
		}
		sub := "cur"
		if from.New {
			sub = "new"
		}
		if err := d.ensureFolder(target); err != nil {
			return Entry{}, err
		}
		return d.entry(target, sub, filepath.Base(from.Path)), nil
	})
}

// SetFlags adds and removes flags and returns where the message is. Flags
// exist only in cur/, so adding one moves a message out of new/; a message in
// new/ has none to remove. Flags it does not know, Dovecot's lower-case
// keywords among them, stay.
func (d *Dir) SetFlags(e Entry, add, remove string) (Entry, error) {
	if _, err := changeFlags("", add, remove); err != nil {
		return Entry{}, fmt.Errorf("maildir: set flags: %w", err)
	}
	return d.change("set flags", e, func(from Entry) (Entry, error) {
		if from.New && add == "" {
			return from, nil
		}
		_, inf := splitName(filepath.Base(from.Path))
		flags, err := changeFlags(inf.flags, add, remove)
		if err != nil {
			return Entry{}, err
		}
		if !from.New && sameSet(flags, inf.flags) {
			return from, nil
		}
		inf.flags = flags
		if err := makeSub(filepath.Join(d.folderPath(from.Folder), "cur")); err != nil {
			return Entry{}, err
		}
		return d.entry(from.Folder, "cur", inf.join(from.Unique)), nil
	})
}

// RevertFlags is SetFlags for a change that is taken back: when it leaves the
// flags the message had under the file name was, the message gets that very
// name again (its order of flags, or none of the ending at all), in new/ if it
// lay there.
func (d *Dir) RevertFlags(e Entry, add, remove, was string, wasNew bool) (Entry, error) {
	if _, err := changeFlags("", add, remove); err != nil {
		return Entry{}, fmt.Errorf("maildir: revert flags: %w", err)
	}
	unique, before := splitName(was)
	return d.change("revert flags", e, func(from Entry) (Entry, error) {
		_, inf := splitName(filepath.Base(from.Path))
		flags, err := changeFlags(inf.flags, add, remove)
		if err != nil {
			return Entry{}, err
		}
		if unique == from.Unique && inf.rest == before.rest && sameSet(flags, before.flags) {
			sub := "cur"
			if wasNew {
				sub = "new"
			}
			if err := makeSub(filepath.Join(d.folderPath(from.Folder), sub)); err != nil {
				return Entry{}, err
			}
			return d.entry(from.Folder, sub, was), nil
		}
		if from.New || sameSet(flags, inf.flags) {
			return from, nil
		}
		inf.flags = flags
		return d.entry(from.Folder, "cur", inf.join(from.Unique)), nil
	})
}

// Remove deletes a message's file, durably. ErrGone says that there was none.
func (d *Dir) Remove(e Entry) error {
	for range attempts {
		from, err := d.Resolve(e)
		if err != nil {
			return err
		}
		info, err := os.Lstat(from.Path)
		if err == nil && !info.Mode().IsRegular() {
			return fmt.Errorf("maildir: remove: %w", &PathError{Path: from.Path, Err: ErrNotRegular})
		}
		if err == nil {
			err = os.Remove(from.Path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // another client renamed it
		}
		if err == nil {
			err = syncDir(filepath.Dir(from.Path))
		}
		if err != nil {
			return fmt.Errorf("maildir: remove %q: %w", from.Unique, err)
		}
		return nil
	}
	return fmt.Errorf("maildir: remove %q: renamed by other clients %d times in a row", e.Unique, attempts)
}

func sameSet(sorted, flags string) bool {
	normal, err := changeFlags(flags, "", "")
	return err == nil && normal == sorted
}

var errMoved = errors.New("renamed by another client")

// change finds the message, asks plan for its new name, and renames it;
// again from the start when another client renamed it in between.
func (d *Dir) change(what string, e Entry, plan func(from Entry) (Entry, error)) (Entry, error) {
	for range attempts {
		from, err := d.Resolve(e)
		if err != nil {
			return Entry{}, err
		}
		info, err := os.Lstat(from.Path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && !info.Mode().IsRegular() {
			err = ErrNotRegular
		}
		if err != nil {
			return Entry{}, fmt.Errorf("maildir: %s: %w", what, &PathError{Path: from.Path, Err: err})
		}
		to, err := plan(from)
		switch {
		case err != nil:
		case to.Path != from.Path:
			err = d.relocate(d.rename, from, to.Path)
		case links(info) > 1:
			err = d.dropTwin(from)
		}
		if errors.Is(err, errMoved) {
			continue
		}
		var system *os.LinkError // it repeats both paths, whatever bytes they hold
		if errors.As(err, &system) {
			err = &PathError{Path: system.New, Err: system.Err}
		}
		if err != nil {
			return Entry{}, fmt.Errorf("maildir: %s %q: %w", what, from.Unique, err)
		}
		to.Size = info.Size()
		return to, nil
	}
	return Entry{}, fmt.Errorf("maildir: %s %q: renamed by other clients %d times in a row", what, e.Unique, attempts)
}
