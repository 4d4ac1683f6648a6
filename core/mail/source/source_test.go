package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/postroom/postroom/core/mail/maildir"
)

// write makes a file, its folders included.
func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, path, format string) Source {
	t.Helper()
	s, err := Open(path, format, filepath.Join(t.TempDir(), "own"), 100)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// read returns what a source gives after a position.
func read(t *testing.T, s Source, after []byte) []Item {
	t.Helper()
	var out []Item
	if err := s.Read(t.Context(), after, func(it Item) error { out = append(out, it); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

// texts is the bytes of items, and what is wrong with those that have none.
func texts(items []Item) string {
	var out []string
	for _, it := range items {
		if it.Problem != nil {
			out = append(out, "problem: "+it.Problem.Error())
			continue
		}
		out = append(out, fmt.Sprintf("%q %s", it.Raw, it.Flags))
	}
	return strings.Join(out, "\n")
}

func TestMboxMessagesAreCutWhereTheyBegin(t *testing.T) {
	t.Parallel()
	const from = "From ann@example.org Thu Jan  1 00:00:00 2026\n"
	for name, test := range map[string]struct{ text, want string }{
		"an empty file":                       {"", ""},
		"one message":                         {from + "Subject: a\n\nx\n", `"Subject: a\n\nx\n" `},
		"an end without a line end":           {from + "Subject: a\n\nx", `"Subject: a\n\nx" `},
		"an empty line after the last":        {from + "Subject: a\n\nx\n\n", `"Subject: a\n\nx\n" `},
		"two messages":                        {from + "A: a\n\nx\n\n" + from + "B: b\n\ny\n\n", `"A: a\n\nx\n" ` + "\n" + `"B: b\n\ny\n" `},
		"line ends of Windows":                {strings.ReplaceAll(from+"A: a\n\nx\n\n"+from+"B: b\n\ny\n", "\n", "\r\n"), `"A: a\r\n\r\nx\r\n" ` + "\n" + `"B: b\r\n\r\ny\r\n" `},
		"empty lines at its end are its own":  {from + "A: a\n\nx\n\n\n\n" + from + "B: b\n", `"A: a\n\nx\n\n\n" ` + "\n" + `"B: b\n" `},
		"From in the middle of the text":      {from + "A: a\n\nx\nFrom here on\n", `"A: a\n\nx\nFrom here on\n" `},
		"a level of quoting is taken away":    {from + "A: a\n\n>From x\n>>From y\n> From z\n", `"A: a\n\nFrom x\n>From y\n> From z\n" `},
		"flags":                               {from + "A: a\nStatus: RO\nX-Status: AFTD\n\nStatus: no\n", `"A: a\nStatus: RO\nX-Status: AFTD\n\nStatus: no\n" SRFTD`},
		"flags in the text are none":          {from + "A: a\n\nStatus: R\n", `"A: a\n\nStatus: R\n" `},
		"nor with the line ends of Windows":   {strings.ReplaceAll(from+"A: a\n\nStatus: R\n", "\n", "\r\n"), `"A: a\r\n\r\nStatus: R\r\n" `},
		"a message that is empty":             {from + "\n" + from + "B: b\n", "problem: the message before byte 47 is empty\n" + `"B: b\n" `},
		"a message that is too large":         {from + strings.Repeat("x", 101) + "\n\n" + from + "B: b\n", "problem: the message before byte 149 is larger than 100 bytes\n" + `"B: b\n" `},
		"a line longer than any buffer":       {from + strings.Repeat("x", 200<<10) + "\n\n" + from + "B: b\n", "problem: the message before byte 204848 is larger than 100 bytes\n" + `"B: b\n" `},
		"a line that looks long-winded, From": {from + strings.Repeat("x", 64<<10) + "From y\n\n" + from + "B: b\n", "problem: the message before byte 65590 is larger than 100 bytes\n" + `"B: b\n" `},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, write(t, filepath.Join(t.TempDir(), "box"), test.text), "")
			items := read(t, s, nil)
			if got := texts(items); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
			if total, err := s.Total(t.Context()); err != nil || total != int64(len(items)) {
				t.Errorf("total %d, %v; %d were read", total, err, len(items))
			}
			for i, it := range items { // reading goes on after any of them
				if got, want := texts(read(t, s, it.Position)), texts(items[i+1:]); got != want {
					t.Errorf("after message %d\n%s\nwant\n%s", i, got, want)
				}
			}
		})
	}
}

// What was the last message of an mbox keeps its name when others come after.
func TestAnMboxThatGrowsKeepsTheNamesOfItsMessages(t *testing.T) {
	t.Parallel()
	const one, two = "From x\nSubject: a\n\nx\n\n", "From y\nSubject: b\n\ny\n\n"
	path := filepath.Join(t.TempDir(), "box")
	before := read(t, open(t, write(t, path, one), ""), nil)
	after := read(t, open(t, write(t, path, one+two), ""), nil)
	if len(before) != 1 || len(after) != 2 || after[0].Unique != before[0].Unique || after[1].Unique == after[0].Unique {
		t.Errorf("%s\nthen\n%s", texts(before), texts(after))
	}
}

func TestEmlFilesAreReadInOrderAndNothingElse(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for rel, text := range map[string]string{
		"b.eml": "b", "a/2.EML": "2", "a/1.eml": "1", "a.eml": "a", "a-b.eml": "a-b", "note.txt": "no mail", "eml": "no mail",
		"c/empty.eml": "", "c/large.eml": strings.Repeat("x", 101),
	} {
		write(t, filepath.Join(root, rel), text)
	}
	outside := write(t, filepath.Join(t.TempDir(), "secret.eml"), "secret")
	for at, to := range map[string]string{"link.eml": outside, "folder": filepath.Dir(outside)} {
		if err := os.Symlink(to, filepath.Join(root, at)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(root, "fifo.eml"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, root, "")
	items := read(t, s, nil)
	want := `"1" ` + "\n" + `"2" ` + "\n" + `"a-b" ` + "\n" + `"a" ` + "\n" + `"b" ` + "\nproblem: empty.eml is empty\nproblem: large.eml is larger than 100 bytes"
	if got := texts(items); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if total, err := s.Total(t.Context()); err != nil || total != 7 {
		t.Errorf("total %d, %v", total, err)
	}
	for i, it := range items {
		if got, want := texts(read(t, s, it.Position)), texts(items[i+1:]); got != want {
			t.Errorf("after %s\n%s\nwant\n%s", it.Position, got, want)
		}
	}
}

// A link to a folder is as good as the folder; one of its folders that cannot be
// listed is a problem, not silence.
func TestAFolderOfEmlFilesBehindALinkAndOneThatIsClosed(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write(t, filepath.Join(root, "a.eml"), "a")
	write(t, filepath.Join(root, "closed/b.eml"), "b")
	write(t, filepath.Join(root, "d.eml"), "d")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(root, link); err != nil {
		t.Fatal(err)
	}
	if got := texts(read(t, open(t, link, ""), nil)); got != "\"a\" \n\"b\" \n\"d\" " {
		t.Errorf("through a link: %s", got)
	}
	closed := filepath.Join(root, "closed")
	if err := os.Chmod(closed, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(closed, 0o700) }) //nolint:gosec // a folder that is removed now
	if _, err := os.ReadDir(closed); err == nil {
		t.Skip("who runs this may list every folder")
	}
	s := open(t, root, "")
	items := read(t, s, nil)
	if got := texts(items); !strings.HasPrefix(got, "\"a\" \nproblem: open "+closed) || !strings.HasSuffix(got, "\n\"d\" ") {
		t.Errorf("got %s", got)
	}
	if total, err := s.Total(t.Context()); err != nil || total != 3 {
		t.Errorf("total %d, %v", total, err)
	}
	if got := texts(read(t, s, items[1].Position)); got != "\"d\" " {
		t.Errorf("after the problem: %s", got)
	}
}

func TestAMaildirKeepsFoldersNamesAndFlags(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "Maildir")
	for _, rel := range []string{"new/1.a", "cur/2.a:2,RS", "cur/3.a:2,Sé1", ".Old.2001/cur/4.a:2,F", ".Old.2001/new/5.a"} {
		write(t, filepath.Join(root, rel), rel)
	}
	write(t, filepath.Join(root, "cur/6.a:2,"), strings.Repeat("x", 101))
	got := map[string]string{}
	for _, it := range read(t, open(t, root, ""), nil) {
		got[it.Unique] = fmt.Sprintf("%s %s %t %t", it.Folder, it.Flags, it.New, it.Problem != nil)
	}
	want := map[string]string{"1.a": "  true false", "2.a": " RS false false", "3.a": " S false false", "4.a": "Old.2001 F false false", "5.a": "Old.2001  true false", "6.a": "  false true"}
	for name, w := range want {
		if got[name] != w {
			t.Errorf("%s: %q, want %q", name, got[name], w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%v", got)
	}
	own, err := Open(root, "", root, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, it := range read(t, own, nil) {
		if it.Problem == nil && it.Path == "" {
			t.Errorf("%s is not taken in where it lies", it.Unique)
		}
	}
}

func TestWhatIsNoSourceIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text := write(t, filepath.Join(dir, "text"), "no mbox")
	box := write(t, filepath.Join(dir, "box"), "From x\nA: b\n")
	eml := filepath.Dir(write(t, filepath.Join(t.TempDir(), "a.eml"), "x"))
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(eml, link); err != nil {
		t.Fatal(err)
	}
	if _, err := maildir.Create(filepath.Join(dir, "Maildir")); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		path, format string
		want         error
	}{
		{filepath.Join(dir, "none"), "", fs.ErrNotExist},
		{text, "", ErrUnknown}, {text, "mbox", ErrUnknown}, {text, "eml", ErrUnknown}, {text, "maildir", ErrUnknown},
		{dir, "mbox", ErrUnknown}, {dir, "maildir", ErrUnknown}, {os.DevNull, "", ErrUnknown},
		{box, "", nil}, {box, "mbox", nil}, {dir, "", ErrUnknown}, {dir, "eml", nil}, {eml, "", nil}, {link, "", nil}, {filepath.Join(dir, "Maildir"), "", nil}, {filepath.Join(dir, "Maildir"), "eml", nil},
	} {
		if _, err := Open(test.path, test.format, "", 100); !errors.Is(err, test.want) {
			t.Errorf("%s as %q: %v, want %v", test.path, test.format, err, test.want)
		}
	}
}

func TestReadingEndsWithTheFirstErrorAndWithItsContext(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "eml", "1.eml"), "1")
	write(t, filepath.Join(dir, "eml", "2.eml"), "2")
	write(t, filepath.Join(dir, "Maildir", "new", "1.a"), "1")
	write(t, filepath.Join(dir, "Maildir", "cur", "2.a"), "2")
	box := write(t, filepath.Join(dir, "box"), "From x\nA: a\n\nFrom y\nB: b\n")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	enough := errors.New("enough")
	for _, path := range []string{filepath.Join(dir, "eml"), filepath.Join(dir, "Maildir"), box} {
		s := open(t, path, "")
		n := 0
		if err := s.Read(t.Context(), nil, func(Item) error { n++; return enough }); !errors.Is(err, enough) || n != 1 {
			t.Errorf("%s: %d read, %v", path, n, err)
		}
		if err := s.Read(ended, nil, func(Item) error { return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// Whatever a file holds, reading it ends, and goes on after any message with
// the ones that follow.
func FuzzMbox(f *testing.F) {
	for _, text := range []string{
		"From x\nA: a\n\nx\n\nFrom y\n", "From ", "From x", "From x\r\n\r\nFrom y\r\n\r\n", "From x\n>From \n\n>>From y\n\n", "From x\n\n\n\nFrom y\n\n\n",
		"From x\nStatus: R\nX-Status: AF\n\n", "\x00\xff\nFrom x\n", "From \nFrom \n\nFrom \n", strings.Repeat("From x\n\n", 50),
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "box")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(path, "mbox", "", 100)
		if errors.Is(err, ErrUnknown) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		items := read(t, s, nil)
		if total, err := s.Total(t.Context()); err != nil || total != int64(len(items)) {
			t.Errorf("total %d, %v; %d were read", total, err, len(items))
		}
		for i, it := range items {
			if it.Problem == nil && (it.Unique == "" || len(it.Raw) == 0 || len(it.Raw) > 100) {
				t.Errorf("%+v", it)
			}
			if i == len(items)/2 {
				if got, want := texts(read(t, s, it.Position)), texts(items[i+1:]); got != want {
					t.Errorf("after message %d\n%s\nwant\n%s", i, got, want)
				}
			}
		}
	})
}
