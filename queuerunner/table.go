package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode/utf8"
)

// longestCell is how many characters of a text a list shows.
const longestCell = 60

// table collects rows for a person to read.
type table struct {
	buf  bytes.Buffer
	rows *tabwriter.Writer
}

func newTable(heads ...string) *table {
	t := &table{}
	t.rows = tabwriter.NewWriter(&t.buf, 0, 0, 2, ' ', 0)
	if len(heads) > 0 {
		t.row(heads...)
	}
	return t
}

// row adds a row. Cells may hold anything: see [printable].
func (t *table) row(cells ...string) {
	for i, cell := range cells {
		cells[i] = printable(cell)
	}
	_, _ = fmt.Fprintln(t.rows, strings.Join(cells, "\t")) // into memory
}

// String is the table so far, without spaces at the ends of its lines.
func (t *table) String() string {
	_ = t.rows.Flush() // into memory
	lines := strings.Split(t.buf.String(), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, " ")
	}
	return strings.Join(lines, "\n")
}

// printable makes text safe for a terminal: what is no printing character
// (control characters, escape sequences, marks that reverse the writing
// direction, broken UTF-8) is shown as Go writes it in a string.
func printable(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
	}
	return b.String()
}

// printableLines is printable for a text of several lines.
func printableLines(s, indent string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i, line := range lines {
		lines[i] = indent + printable(strings.ReplaceAll(line, "\t", "    "))
	}
	return strings.Join(lines, "\n")
}

// quote puts text of a person's in quotes for a message.
func quote(s string) string { return strconv.Quote(short(s)) }

// short cuts a text to what a cell shows.
func short(s string) string {
	if runes := []rune(s); len(runes) > longestCell {
		return string(runes[:longestCell-1]) + "…"
	}
	return s
}

// orDash shows a text that may be missing.
func orDash(s *string) string {
	if s == nil || *s == "" {
		return "-"
	}
	return short(*s)
}

// printJSON writes v for a program: one value, one line.
func (c *call) printJSON(v any) error {
	e := json.NewEncoder(c.stdout)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("write the output: %w", err)
	}
	return nil
}
