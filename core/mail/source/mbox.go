package source

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// mbox is a file in which each message begins with a line "From ". A message's
// own such lines are quoted with ">"; one level of that is taken away.
type mbox struct {
	path string
	max  int64
}

func openMbox(path string, max int64) (Source, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	defer f.Close()
	var begin [5]byte
	if n, err := io.ReadFull(f, begin[:]); n == 0 && errors.Is(err, io.EOF) || string(begin[:]) == "From " {
		return mbox{path, max}, nil
	}
	return nil, fmt.Errorf("import %q: it does not begin with \"From \": %w", path, ErrUnknown)
}

func (s mbox) Total(ctx context.Context) (int64, error) {
	var n int64
	err := s.scan(ctx, 0, func([]byte, int64, bool) error { n++; return nil })
	return n, err
}

func (s mbox) Read(ctx context.Context, after []byte, fn func(Item) error) error {
	from, _ := strconv.ParseInt(string(after), 10, 64) // nothing: from the start
	return s.scan(ctx, from, func(raw []byte, next int64, tooLarge bool) error {
		it := Item{Position: strconv.AppendInt(nil, next, 10)}
		switch {
		case tooLarge:
			it.Problem = fmt.Errorf("the message before byte %d is larger than %d bytes", next, s.max)
		case len(raw) == 0:
			it.Problem = fmt.Errorf("the message before byte %d is empty", next)
		default:
			it.Raw, it.Unique, it.Flags = raw, byContent(raw), statusFlags(raw)
		}
		return fn(it)
	})
}

// scan calls fn for each message with the offset of the next.
func (s mbox) scan(ctx context.Context, from int64, fn func(raw []byte, next int64, tooLarge bool) error) error {
	f, err := os.Open(s.path)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	defer f.Close()
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return fmt.Errorf("import: %w", err)
	}
	r := bufio.NewReaderSize(f, 64<<10)
	at := from
	var raw []byte
	inside, large, blank, lineStart := false, false, true, true
	for {
		line, err := r.ReadSlice('\n') // a piece of a line longer than the buffer
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
			return fmt.Errorf("import: %w", err)
		}
		end := errors.Is(err, io.EOF)
		begins := lineStart && blank && bytes.HasPrefix(line, []byte("From "))
		if inside && (begins || end && len(line) == 0) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := fn(bytes.Clone(withoutSeparator(raw)), at, large); err != nil {
				return err
			}
			raw, large = raw[:0], false
		}
		if end && len(line) == 0 {
			return nil
		}
		at += int64(len(line))
		if begins {
			inside = true
		} else {
			if lineStart {
				line = unquoteFrom(line)
			}
			if large = large || int64(len(raw)+len(line)) > s.max; !large {
				raw = append(raw, line...)
			}
		}
		blank = lineStart && len(bytes.TrimRight(line, "\r\n")) == 0
		lineStart = bytes.HasSuffix(line, []byte("\n"))
	}
}

// withoutSeparator takes the empty line away that stands before the next
// message: after the last one too, which is not the last for ever.
func withoutSeparator(raw []byte) []byte {
	if s := string(raw); s == "\n" || s == "\r\n" {
		return nil
	}
	if cut, ok := bytes.CutSuffix(raw, []byte("\n\r\n")); ok {
		return append(cut, '\n')
	}
	if cut, ok := bytes.CutSuffix(raw, []byte("\n\n")); ok {
		return append(cut, '\n')
	}
	return raw
}

func unquoteFrom(line []byte) []byte {
	if rest := bytes.TrimLeft(line, ">"); len(rest) < len(line) && bytes.HasPrefix(rest, []byte("From ")) {
		return line[1:]
	}
	return line
}

// statusFlags reads the flags that mail programs keep in the header.
func statusFlags(raw []byte) string {
	flags := ""
	for line := range bytes.Lines(raw[:min(len(raw), 64<<10)]) {
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			break // the header is over
		}
		name, value, _ := strings.Cut(string(bytes.TrimSpace(line)), ":")
		for _, known := range []struct{ header, letter, flag string }{
			{"status", "R", "S"}, {"x-status", "A", "R"}, {"x-status", "F", "F"}, {"x-status", "D", "T"}, {"x-status", "T", "D"},
		} {
			if strings.EqualFold(name, known.header) && strings.Contains(value, known.letter) && !strings.Contains(flags, known.flag) {
				flags += known.flag
			}
		}
	}
	return flags
}
