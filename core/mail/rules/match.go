package rules

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/postroom/postroom/core/mail/message"
)

// view is one message; what costs something to prepare is prepared once, when a
// condition asks for it.
type view struct {
	*Input
	subject *string
	body    *[2]string
	sender  *sender
	list    *string
	headers map[string][]string // by names in lower case
}

func (v *view) from() sender {
	if v.sender == nil {
		s := newSender(v.FromEmail)
		v.sender = &s
	}
	return *v.sender
}

func (v *view) listID() string {
	if v.list == nil {
		s := cleanListID(v.ListID)
		v.list = &s
	}
	return *v.list
}

func (v *view) header(name string) []string {
	if values, ok := v.Headers[name]; ok {
		return values
	}
	// Names in another case, in an order that does not change.
	if v.headers == nil {
		v.headers = make(map[string][]string, len(v.Headers))
		for _, key := range slices.Sorted(maps.Keys(v.Headers)) {
			lower := strings.ToLower(key)
			v.headers[lower] = append(v.headers[lower], v.Headers[key]...)
		}
	}
	return v.headers[strings.ToLower(name)]
}

func (v *view) foldedSubject() string {
	if v.subject == nil {
		s := foldText(v.Subject)
		v.subject = &s
	}
	return *v.subject
}

// foldedBody is the plain text and the text of the HTML.
func (v *view) foldedBody() [2]string {
	if v.body == nil {
		plain := v.BodyPlain
		if len(plain) > MaxBodyBytes {
			plain = plain[:MaxBodyBytes]
		}
		v.body = &[2]string{foldText(message.Readable(plain))}
		if len(v.BodyHTML) > 0 {
			v.body[1] = foldText(message.HTMLText(v.BodyHTML, MaxBodyBytes))
		}
	}
	return *v.body
}

// foldText makes texts comparable: composed characters, no case, and one space
// for any white space, so that a line break inside a phrase does not hide it.
func foldText(s string) string {
	ascii := true
	for i := 0; i < len(s) && ascii; i++ {
		ascii = s[i] < utf8.RuneSelf
	}
	if ascii {
		s = strings.ToLower(s)
	} else {
		// Folding can decompose, so composing comes last.
		s = norm.NFC.String(cases.Fold().String(strings.ToValidUTF8(s, "\uFFFD")))
	}
	return strings.Join(strings.Fields(s), " ")
}

type (
	all  []node
	some []node
	not  struct{ child node }
)

func (n all) match(v *view) bool {
	for _, child := range n {
		if !child.match(v) {
			return false
		}
	}
	return true
}

func (n some) match(v *view) bool {
	for _, child := range n {
		if child.match(v) {
			return true
		}
	}
	return false
}

func (n not) match(v *view) bool { return !n.child.match(v) }

// sender is an address, or with local "*" every address of exactly the domain.
type sender struct{ local, domain string }

func newSender(s string) sender {
	local, domain, _ := cutAddress(strings.ToLower(strings.TrimSpace(s)))
	return sender{local, cleanDomain(domain)}
}

// is says whether from, an address, is the one or of the domain. The domain of
// an address that has none is empty; n's never is.
func (n sender) is(from sender) bool {
	return from.domain == n.domain && (n.local == "*" || n.local == from.local)
}

func (n sender) match(v *view) bool { return n.is(v.from()) }

type senderDomain string

func (n senderDomain) match(v *view) bool { return domainUnder(v.from().domain, string(n)) }

type subjectContains string

func (n subjectContains) match(v *view) bool {
	return strings.Contains(v.foldedSubject(), string(n))
}

type subjectRegex struct{ re *regexp.Regexp }

func (n subjectRegex) match(v *view) bool { return n.re.MatchString(cut(v.Subject, MaxRegexBytes)) }

func cut(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit]
	}
	return s
}

type headerMatch struct {
	name string
	re   *regexp.Regexp
}

func (n headerMatch) match(v *view) bool {
	left := MaxRegexBytes
	for _, value := range v.header(n.name) {
		value = cut(value, left)
		left -= len(value)
		if n.re.MatchString(value) {
			return true
		}
		if left == 0 {
			return false
		}
	}
	return false
}

// labelPresent compares byte for byte: labels that differ in case are two.
type labelPresent string

func (n labelPresent) match(v *view) bool { return slices.Contains(v.Labels, string(n)) }

type bodyContains string

func (n bodyContains) match(v *view) bool {
	body := v.foldedBody()
	return strings.Contains(body[0], string(n)) || strings.Contains(body[1], string(n))
}

type listIs string

func (n listIs) match(v *view) bool { return v.listID() == string(n) }

type hasAttachment struct{}

func (hasAttachment) match(v *view) bool { return v.HasAttachment }
