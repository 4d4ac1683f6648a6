package rules

import (
	"errors"
	"fmt"
	"net/textproto"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"
)

const ops = "one of and, or, not, sender_email, sender_domain, subject_contains, subject_regex, header_match, label_present, body_contains, list_id, has_attachment"

// leafFields lists what a leaf needs, and nil for an op that is none.
func leafFields(op string) []string {
	switch op {
	case "sender_email", "sender_domain", "subject_contains", "subject_regex", "label_present", "body_contains", "list_id":
		return []string{"value"}
	case "header_match":
		return []string{"header", "pattern"}
	case "has_attachment":
		return []string{}
	}
	return nil
}

func (c *compiler) leaf(path, op string, given fields) (node, *Error) {
	needs := leafFields(op)
	if needs == nil {
		return nil, wrong(path+".op", "unknown; %s", ops)
	}
	for _, name := range []string{"value", "header", "pattern"} {
		value, has := given[name]
		at := path + "." + name
		switch needed := slices.Contains(needs, name); {
		case has && !needed && len(needs) == 0:
			return nil, wrong(at, "%s takes no further field", op)
		case has && !needed:
			return nil, wrong(at, "%s takes %s", op, strings.Join(needs, " and "))
		case !has && needed:
			return nil, wrong(at, "missing; %s takes %s", op, strings.Join(needs, " and "))
		case has && strings.TrimSpace(value) == "":
			return nil, wrong(at, "empty")
		case len(value) > MaxPatternBytes:
			return nil, wrong(at, "%d bytes, at most %d", len(value), MaxPatternBytes)
		case strings.Contains(value, "\x00"):
			return nil, wrong(at, "holds a NUL")
		}
	}
	value, at := given["value"], path+".value"
	switch op {
	case "sender_email":
		if reason := checkSender(value); reason != "" {
			return nil, wrong(at, "%s", reason)
		}
		return newSender(value), nil
	case "sender_domain":
		if reason := checkDomain(value); reason != "" {
			return nil, wrong(at, "%s", reason)
		}
		return senderDomain(cleanDomain(value)), nil
	case "subject_contains":
		return subjectContains(foldText(value)), nil
	case "subject_regex":
		re, err := c.regex(at, value)
		if err != nil {
			return nil, err
		}
		return subjectRegex{re}, nil
	case "header_match":
		return c.headerMatch(path, given["header"], given["pattern"])
	case "label_present":
		return labelPresent(value), nil
	case "body_contains":
		return bodyContains(foldText(value)), nil
	case "list_id":
		if cleanListID(value) == "" {
			return nil, wrong(at, "a list's id (list.example.com) is needed")
		}
		return listIs(cleanListID(value)), nil
	}
	return hasAttachment{}, nil
}

func (c *compiler) headerMatch(path, header, pattern string) (node, *Error) {
	for _, r := range header {
		if r <= ' ' || r > '~' || r == ':' {
			return nil, wrong(path+".header", "not a header name: it holds %q", r)
		}
	}
	re, err := c.regex(path+".pattern", pattern)
	if err != nil {
		return nil, err
	}
	return headerMatch{textproto.CanonicalMIMEHeaderKey(header), re}, nil
}

// regex bounds the compiled size: 4 KB of pattern can ask for millions of
// steps for every byte.
func (c *compiler) regex(path, pattern string) (*regexp.Regexp, *Error) {
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, wrong(path, "not a regular expression of RE2: %s", regexReason(err))
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, wrong(path, "not a regular expression of RE2: %s", regexReason(err))
	}
	if c.program += len(prog.Inst); c.program > MaxProgram {
		return nil, wrong(path, "the rule's regular expressions are too large together: %d steps, at most %d (repetitions such as {1000} count as often as they say)", c.program, MaxProgram)
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, wrong(path, "not a regular expression of RE2: %s", regexReason(err))
	}
	return re, nil
}

func regexReason(err error) string {
	var se *syntax.Error
	if errors.As(err, &se) {
		return fmt.Sprintf("%s at %q", se.Code, se.Expr)
	}
	return err.Error()
}

// checkSender returns what is wrong with an address or *@domain.
func checkSender(s string) string {
	local, domain, ok := cutAddress(strings.TrimSpace(s))
	switch {
	case !ok:
		return "an address (ann@example.com) or *@ and a domain is needed"
	case local != "*" && strings.Contains(local, "*") || strings.Contains(domain, "*"):
		return "a star stands only for all of what is before the @"
	case local == "" || strings.ContainsFunc(s, unicode.IsControl):
		return "what is before the @ is not part of an address"
	}
	return checkDomain(domain)
}

func checkDomain(s string) string {
	d := cleanDomain(s)
	switch {
	case strings.Contains(d, "@"):
		return "a domain has no @; sender_email takes addresses and *@domain"
	case d == "" || len(d) > 253 || strings.ContainsFunc(d, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune("*<>,;:/\\\"()", r)
	}):
		return "a domain (example.com) is needed; subdomains are included without a star"
	case strings.HasPrefix(d, ".") || strings.Contains(d, ".."):
		return "a domain's parts are not empty; subdomains are included without a leading dot"
	}
	return ""
}

func cleanDomain(s string) string {
	return strings.TrimSuffix(strings.ToLower(strings.TrimSpace(s)), ".")
}

// cutAddress cuts at the last "@": a quoted local part may hold others.
func cutAddress(s string) (local, domain string, ok bool) {
	i := strings.LastIndexByte(s, '@')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

func domainUnder(domain, parent string) bool {
	return parent != "" && (domain == parent || strings.HasSuffix(domain, "."+parent))
}

func cleanListID(s string) string {
	if i := strings.LastIndexByte(s, '<'); i >= 0 {
		s, _, _ = strings.Cut(s[i+1:], ">")
	}
	return strings.ToLower(strings.TrimSpace(s))
}
