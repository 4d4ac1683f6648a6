package message

import "strings"

// Kinds of automatic mail: a program wrote it, or sent it to many. None of
// them may ever be answered by a program (RFC 3834).
const (
	Bounce    = "bounce"     // a delivery report, or another answer of a mail system
	AutoReply = "auto_reply" // a holiday notice, an acknowledgement
	List      = "list"       // by way of a mailing list
	Bulk      = "bulk"       // to many at once, or by a program of its own accord
)

// automatic says which kind of automatic mail the message is; "" for mail that
// a person may have written.
func (m *Message) automatic(head header) string {
	value := func(name string) string { return strings.ToLower(strings.TrimSpace(head.get(name))) }
	has := func(name string) bool { return len(head.values[name]) > 0 }
	auto := value("Auto-Submitted")
	if end := strings.IndexAny(auto, "; \t("); end >= 0 { // parameters and comments
		auto = auto[:end]
	}
	precedence := value("Precedence")
	subject := strings.ToLower(m.Subject)

	system := fromSystem(m.FromEmailLower) || head.mtype == "multipart/report" || begins(subject, bounceSubjects)
	switch {
	case !system && (auto == "auto-replied" || has("X-Autoreply") || has("X-Autorespond") || has("X-Autoresponder") ||
		has("X-Mail-Autoreply") || precedence == "auto_reply" || begins(subject, autoReplySubjects)):
		return AutoReply
	case system, value("Return-Path") == "<>", has("X-Failed-Recipients"):
		return Bounce
	case m.ListID != "", has("List-Post"), precedence == "list", has("X-Mailing-List"), has("Mailing-List"):
		return List
	case auto != "" && auto != "no", precedence == "bulk", precedence == "junk", has("List-Unsubscribe"), has("Feedback-Id"),
		has("X-Auto-Response-Suppress"), isNoReply(m.FromEmailLower):
		return Bulk
	}
	return ""
}

// fromSystem tells the addresses under which mail systems themselves write.
func fromSystem(email string) bool {
	local, _, _ := strings.Cut(email, "@")
	switch local {
	case "mailer-daemon", "mailer_daemon", "mailerdaemon", "mail-daemon", "postmaster", "bounce", "bounces", "mailer":
		return true
	}
	return strings.HasPrefix(local, "mailer-daemon")
}

var noMarks = strings.NewReplacer("-", "", "_", "", ".", "")

func isNoReply(email string) bool {
	local, _, _ := strings.Cut(email, "@")
	switch noMarks.Replace(local) {
	case "noreply", "donotreply", "dontreply", "nepasrepondre", "neantworten":
		return true
	}
	return false
}

// What begins the subjects of programs that set no header for it.
var (
	bounceSubjects = []string{
		"mail delivery failed", "mail delivery failure", "undelivered mail returned", "undeliverable:", "delivery status notification",
		"delivery failure", "returned mail:", "failure notice", "message could not be delivered",
	}
	autoReplySubjects = []string{
		"automatic reply:", "auto reply:", "auto-reply:", "autoreply:", "out of office", "out of the office", "abwesenheitsnotiz",
		"automatische antwort", "réponse automatique", "respuesta automática", "risposta automatica",
		"automatisch antwoord", "[auto-reply]",
	}
)

func begins(subject string, list []string) bool {
	for _, begin := range list {
		if strings.HasPrefix(subject, begin) {
			return true
		}
	}
	return false
}
