package config

import (
	"cmp"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with the configuration. It never holds a
// configured value, because the value may be a secret in the wrong place.
type Problem struct {
	Where string // file:line:col, "env NAME" or "flag -x"
	Key   string // section.key; empty when no key could be told
	What  string // what is wrong
	Want  string // what would be right

	at source
}

// String puts the problem on one line.
func (p Problem) String() string {
	s := p.Where + ": "
	if p.Key != "" {
		s += p.Key + ": "
	}
	s += p.What
	if p.Want != "" {
		s += "; want " + p.Want
	}
	return s
}

// Problems is the error of Load: everything that is wrong, by position in the
// file, then by variable, then by flag.
type Problems struct{ List []Problem }

// Error has one line per problem.
func (p *Problems) Error() string {
	lines := make([]string, len(p.List))
	for i, one := range p.List {
		lines[i] = one.String()
	}
	return strings.Join(lines, "\n")
}

func (p *Problems) sort() {
	slices.SortStableFunc(p.List, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(a.at.layer, b.at.layer),
			cmp.Compare(a.at.line, b.at.line),
			cmp.Compare(a.at.col, b.at.col),
			cmp.Compare(a.at.order, b.at.order),
		)
	})
}
