package message

import "testing"

func TestAutomaticMailIsRecognised(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ head, want string }{
		"a person":                    {"From: ann@example.org\nSubject: Walk on Sunday?", ""},
		"a person who says no":        {"From: ann@example.org\nAuto-Submitted: no", ""},
		"a delivery report":           {"From: x@example.org\nContent-Type: multipart/report; report-type=delivery-status; boundary=b", Bounce},
		"the mail system":             {"From: MAILER-DAEMON@example.org\nSubject: x", Bounce},
		"an empty envelope sender":    {"From: x@example.org\nReturn-Path: <>", Bounce},
		"no sender and its subject":   {"From: <>\nSubject: Mail delivery failed", Bounce},
		"a holiday notice":            {"From: ann@example.org\nAuto-Submitted: auto-replied (vacation)\nReturn-Path: <>", AutoReply},
		"a notice by its parameters":  {"From: ann@example.org\nAuto-Submitted: Auto-Replied; owner-email=\"ann@example.org\"", AutoReply},
		"an old notice":               {"From: ann@example.org\nPrecedence: auto_reply", AutoReply},
		"a notice by its subject":     {"From: ann@example.org\nSubject: Automatic reply: Nyaan\nReturn-Path: <>", AutoReply},
		"a mailing list":              {"From: ann@example.org\nList-Id: <go.example.org>", List},
		"an old mailing list":         {"From: ann@example.org\nPrecedence: list", List},
		"a list that says generated":  {"From: ann@example.org\nList-Id: <go.example.org>\nAuto-Submitted: auto-generated", List},
		"a program":                   {"From: ci@example.org\nAuto-Submitted: auto-generated", Bulk},
		"a newsletter":                {"From: news@example.org\nList-Unsubscribe: <https://example.org/u>", Bulk},
		"a sender who hears nothing":  {"From: no-reply@example.org", Bulk},
		"a notification of an office": {"From: x@example.org\nX-Auto-Response-Suppress: All", Bulk},
	} {
		if got := Parse([]byte(c.head + "\n\nbody")).Automatic; got != c.want {
			t.Errorf("%s is %q, want %q", name, got, c.want)
		}
	}
}
