package mail

import "github.com/postroom/postroom/core/queue"

// The SQL of the mail side's tables. TEXT goes out as BLOB: the driver would
// guess dates in it. Lists are newest first by id: a UUIDv7 begins with its
// time.

const (
	// The state with the files that cannot be taken in: up to a thousand are
	// counted, the first ten named.
	accountState = `iif(NOT EXISTS (SELECT 1 FROM mail_problems WHERE account_id = accounts.id), state_json, json_set(state_json,
   '$.problems', coalesce(state_json->>'problems', 0) + (SELECT count(*) FROM (SELECT 1 FROM mail_problems WHERE account_id = accounts.id LIMIT 1000)),
   '$.unreadable', (SELECT json_group_array(json_object('name', name, 'problem', CAST(problem AS TEXT)))
     FROM (SELECT name, problem FROM mail_problems WHERE account_id = accounts.id ORDER BY job_id LIMIT 10))))`

	accountColumns = `CAST(id AS BLOB), CAST(provider AS BLOB), CAST(email AS BLOB), display_name,
 CAST(config_json AS BLOB), CAST(` + accountState + ` AS BLOB), created_at, updated_at, paused`

	sqlAccount  = `SELECT ` + accountColumns + ` FROM accounts WHERE id = ? AND removed_at IS NULL`
	sqlAccounts = `SELECT ` + accountColumns + ` FROM accounts WHERE removed_at IS NULL AND (?1 IS NULL OR id < ?1) ORDER BY id DESC LIMIT ?2`

	sqlUnsynced = `SELECT ` + accountColumns + ` FROM accounts WHERE removed_at IS NULL
 AND NOT EXISTS (SELECT 1 FROM job_keys AS k WHERE k.type = 'account.sync' AND k.key = accounts.id) ORDER BY id LIMIT 200`

	sqlUpdateAccount = `UPDATE accounts SET display_name = iif(?2, ?3, display_name), paused = coalesce(?4, paused), updated_at = c.ms
 FROM db_clock AS c WHERE id = ?1 AND removed_at IS NULL RETURNING 1`

	// A removed account gives its address free at once.
	sqlRemoveAccount = `UPDATE accounts SET removed_at = c.ms, email = email || ' removed ' || id, updated_at = c.ms
 FROM db_clock AS c WHERE id = ? AND removed_at IS NULL RETURNING 1`

	sqlInsertAccount = `INSERT INTO accounts(id, provider, email, display_name, config_json, created_at, updated_at)
 SELECT ?, ?, ?, ?, ?, c.ms, c.ms FROM db_clock AS c`

	sqlAccountState = `UPDATE accounts SET state_json = json_patch(state_json, ?), updated_at = c.ms FROM db_clock AS c WHERE id = ?`
)

const (
	messageColumns = `CAST(m.id AS BLOB), CAST(m.account_id AS BLOB), CAST(m.thread_id AS BLOB),
 CAST(m.provider_message_id AS BLOB), CAST(m.rfc822_message_id AS BLOB), CAST(m.from_email AS BLOB), m.from_name,
 CAST(m.to_json AS BLOB), CAST(m.cc_json AS BLOB), CAST(m.bcc_json AS BLOB), m.subject, m.snippet, m.received_at,
 m.internal_date, CAST(m.labels_json AS BLOB), m.size_bytes, CAST(m.content_sha256 AS BLOB), CAST(m.raw_json AS BLOB),
 m.created_at, m.updated_at, CAST(d.action_type AS BLOB), CAST(d.decision_json->>'rule_name' AS BLOB),
 CAST(m.automatic AS BLOB),
 (SELECT CAST(a.status AS BLOB) FROM actions AS a WHERE a.decision_id = d.id ORDER BY a.id DESC LIMIT 1)`

	withDecision = ` LEFT JOIN decisions AS d ON d.id =
 (SELECT n.id FROM decisions AS n WHERE n.message_id = m.id ORDER BY n.id DESC LIMIT 1)`

	sqlMessage = `SELECT ` + messageColumns + `, CAST(m.headers_json AS BLOB), m.body_plain, m.body_html FROM messages AS m` + withDecision + ` WHERE m.id = ?`

	sqlDecisions = `SELECT CAST(id AS BLOB), CAST(account_id AS BLOB), CAST(message_id AS BLOB), CAST(source AS BLOB),
 CAST(decision_json AS BLOB), CAST(action_type AS BLOB), confidence, needs_approval, rationale, rules_version,
 CAST(telemetry_json AS BLOB), created_at, updated_at FROM decisions WHERE message_id = ? ORDER BY id`

	actionColumns = `SELECT CAST(id AS BLOB), CAST(account_id AS BLOB), CAST(message_id AS BLOB), CAST(decision_id AS BLOB),
 CAST(action_type AS BLOB), CAST(parameters_json AS BLOB), CAST(status AS BLOB), error_message, executed_at,
 CAST(undo_hint_json AS BLOB), CAST(trace_id AS BLOB), created_at, updated_at, not_before, approval_expires_at, approved_at,
 (SELECT CAST(l.effect_action_id AS BLOB) FROM action_links AS l JOIN actions AS u ON u.id = l.effect_action_id
  WHERE l.cause_action_id = actions.id AND l.relation_type = 'undo_of' AND u.status IN ('queued', 'executing', 'completed'))
 FROM actions`

	sqlActionsOf = actionColumns + ` WHERE message_id = ? ORDER BY id`
	sqlAction    = actionColumns + ` WHERE id = ?`
	sqlActions   = actionColumns + ` WHERE (?1 IS NULL OR message_id = ?1) AND (?2 IS NULL OR status = ?2)
 AND (?3 IS NULL OR account_id = ?3) AND (?4 IS NULL OR id < ?4) ORDER BY id DESC LIMIT ?5`
)

// A posted message's bytes are stored with its job, unless the job turned out
// to be a duplicate.
const sqlInsertChunk = `INSERT INTO message_chunks(job_id, n, data, created_at)
 SELECT ?1, ?2, ?3, c.ms FROM db_clock AS c WHERE EXISTS (SELECT 1 FROM jobs WHERE id = ?1) ON CONFLICT DO NOTHING`

const (
	sqlChunk        = `SELECT data FROM message_chunks WHERE job_id = ? AND n = ?`
	sqlDeleteChunks = `DELETE FROM message_chunks WHERE job_id = ?`
)

// sqlProblem says why a message cannot be taken in; its end is a trigger's.
const sqlProblem = `INSERT INTO mail_problems(job_id, account_id, name, problem, created_at, updated_at)
 SELECT ?, ?, ?, ?, c.ms, c.ms FROM db_clock AS c WHERE true
 ON CONFLICT DO UPDATE SET problem = excluded.problem, updated_at = excluded.updated_at`

// sqlKeyHolder finds the job that holds a key for ever.
const sqlKeyHolder = `SELECT CAST(k.job_id AS BLOB), j.id IS NULL FROM job_keys AS k LEFT JOIN jobs AS j ON j.id = k.job_id
 WHERE k.type = ? AND k.key = ? AND k.scope = 'forever'`

// sqlUnknown keeps, of a JSON array of keys, those that no ingest job has had.
const sqlUnknown = `SELECT e.key FROM json_each(?) AS e
 WHERE NOT EXISTS (SELECT 1 FROM job_keys AS k WHERE k.type = 'message.ingest' AND k.key = e.value) ORDER BY e.key`

const (
	sqlMessageAccount = `SELECT CAST(account_id AS BLOB), c.ms FROM messages, db_clock AS c WHERE id = ?`

	sqlMessageID = `SELECT CAST(id AS BLOB) FROM messages WHERE account_id = ? AND provider_message_id = ?`

	// sqlThreadsOf finds the threads of ids (2, JSON) of an account (1).
	sqlThreadsOf = `SELECT e.key, CAST(t.thread_id AS BLOB) FROM json_each(?2) AS e
 CROSS JOIN thread_ids AS t ON t.account_id = ?1 AND t.message_id = e.value`

	// sqlGuardThreads raises an error when the threads of ids are not those of
	// a JSON array of pairs (2).
	sqlGuardThreads = `SELECT length(json(iif(NOT EXISTS (SELECT 1 FROM json_each(?2) AS e
   LEFT JOIN thread_ids AS t ON t.account_id = ?1 AND t.message_id = e.value->>0 WHERE t.thread_id IS NOT (e.value->>1)), '{}', 'other threads')))`

	sqlInsertThreads = `INSERT INTO threads(id, account_id, provider_thread_id, subject, snippet, last_message_at, created_at, updated_at)
 SELECT v.column1, v.column2, v.column3, v.column4, v.column5, v.column6, c.ms, c.ms FROM (%s) AS v, db_clock AS c`

	// Threads that turn out to be one: a JSON array of pairs, of which the
	// second takes the first in.
	sqlJoinMessages = `UPDATE messages SET thread_id = e.value->>1, updated_at = c.ms
 FROM db_clock AS c, json_each(?) AS e WHERE messages.thread_id = e.value->>0`
	sqlJoinIDs = `UPDATE thread_ids SET thread_id = e.value->>1, updated_at = c.ms
 FROM db_clock AS c, json_each(?2) AS e WHERE thread_ids.thread_id = e.value->>0 AND account_id = ?1`
	sqlJoinThreads = `DELETE FROM threads WHERE id IN (SELECT value->>0 FROM json_each(?))`

	sqlInsertIDs = `INSERT INTO thread_ids(account_id, message_id, thread_id, created_at, updated_at)
 SELECT ?1, e.value->>0, e.value->>1, c.ms, c.ms FROM json_each(?2) AS e, db_clock AS c`

	// sqlThreadSummaries: the subject is the first message's, the rest the
	// last's. The argument is threads (JSON).
	sqlThreadSummaries = `UPDATE threads SET updated_at = c.ms,
   subject = (SELECT m.subject FROM messages AS m WHERE m.thread_id = threads.id ORDER BY m.received_at, m.id LIMIT 1),
   snippet = (SELECT m.snippet FROM messages AS m WHERE m.thread_id = threads.id ORDER BY m.received_at DESC, m.id DESC LIMIT 1),
   last_message_at = (SELECT coalesce(max(m.received_at), 0) FROM messages AS m WHERE m.thread_id = threads.id)
 FROM db_clock AS c WHERE id IN (SELECT value FROM json_each(?))`

	// %s is rows.
	sqlInsertMessages = `INSERT INTO messages(id, account_id, thread_id, provider_message_id, rfc822_message_id, from_email,
   from_name, to_json, cc_json, bcc_json, subject, snippet, received_at, internal_date, headers_json, size_bytes,
   content_sha256, raw_json, body_plain, body_html, automatic, file_dir, file_name, created_at, updated_at)
 SELECT v.column1, v.column2, v.column3, v.column4, v.column5, v.column6, v.column7, v.column8, v.column9, v.column10, v.column11, v.column12, v.column13, v.column14,
   v.column15, v.column16, v.column17, v.column18, v.column19, v.column20, v.column21, v.column22, v.column23, c.ms, c.ms
 FROM (%s) AS v, db_clock AS c WHERE true ON CONFLICT(account_id, provider_message_id) DO NOTHING`

	// The words of messages that were stored just now.
	sqlInsertDocs = `INSERT INTO message_docs(message_id, created_at, updated_at)
 SELECT id, created_at, updated_at FROM messages WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id ON CONFLICT DO NOTHING`
	sqlInsertWords = `INSERT INTO message_search(rowid, sender, subject, body)
 SELECT d.doc, v.column2, v.column3, v.column4 FROM (%s) AS v CROSS JOIN message_docs AS d ON d.message_id = v.column1`
)

// sqlJudged reads what rules look at; (1) is how much of a body.
const sqlJudged = `SELECT CAST(account_id AS BLOB), CAST(from_email AS BLOB), subject, CAST(raw_json AS BLOB),
 CAST(headers_json AS BLOB), CAST(labels_json AS BLOB), substr(body_plain, 1, ?1), substr(body_html, 1, ?1)
 FROM messages WHERE id = ?2`

const (
	threadColumns = `SELECT CAST(t.id AS BLOB), CAST(t.account_id AS BLOB), CAST(t.provider_thread_id AS BLOB), t.subject, t.snippet,
 t.last_message_at, (SELECT count(*) FROM messages AS m WHERE m.thread_id = t.id), t.created_at, t.updated_at FROM threads AS t`

	sqlThread = threadColumns + ` WHERE t.id = ?`
	// Latest first; the cursor is a thread.
	sqlThreads = threadColumns + ` WHERE t.account_id = ?1 AND (?2 IS NULL OR (t.last_message_at, t.id) <
   (SELECT coalesce(c.last_message_at, 0), c.id FROM threads AS c WHERE c.id = ?2)) ORDER BY t.last_message_at DESC, t.id DESC LIMIT ?3`
)

const (
	ruleColumns = `SELECT CAST(id AS BLOB), name, description, CAST(scope AS BLOB), CAST(scope_ref AS BLOB), priority, enabled,
 disabled_reason, CAST(conditions_json AS BLOB), CAST(action_type AS BLOB), CAST(action_parameters_json AS BLOB),
 CAST(safe_mode AS BLOB), created_at, updated_at FROM deterministic_rules`

	sqlRule  = ruleColumns + ` WHERE id = ?`
	sqlRules = ruleColumns + ` WHERE ?1 IS NULL OR id < ?1 ORDER BY id DESC LIMIT ?2`
	// sqlActiveRules is the order in which rules are tried.
	sqlActiveRules = ruleColumns + ` WHERE enabled = 1 ORDER BY priority, created_at, id`

	sqlInsertRule = `INSERT INTO deterministic_rules(id, name, description, scope, scope_ref, priority, enabled,
   conditions_json, action_type, action_parameters_json, safe_mode, disabled_reason, created_at, updated_at)
 SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, c.ms, c.ms FROM db_clock AS c`

	// sqlGuardRule raises an error when the rule is not as it was read.
	sqlGuardRule = `SELECT length(json(iif(EXISTS (SELECT 1 FROM deterministic_rules WHERE id = ? AND updated_at = ?), '{}', 'changed')))`

	// updated_at always grows, so that a guard sees two changes within a millisecond.
	sqlUpdateRule = `UPDATE deterministic_rules SET name = ?, description = ?, scope = ?, scope_ref = ?, priority = ?, enabled = ?,
   disabled_reason = ?, conditions_json = ?, action_type = ?, action_parameters_json = ?, safe_mode = ?,
   updated_at = max(c.ms, updated_at + 1) FROM db_clock AS c WHERE id = ?`

	sqlRulesByName = `SELECT name, CAST(id AS BLOB) FROM deterministic_rules ORDER BY created_at, id`
	sqlAllRules    = ruleColumns + ` ORDER BY priority, created_at, id`

	sqlDeleteRule  = `DELETE FROM deterministic_rules WHERE id = ? RETURNING 1`
	sqlDisableRule = `UPDATE deterministic_rules SET enabled = 0, disabled_reason = ?, updated_at = c.ms FROM db_clock AS c WHERE id = ? AND enabled = 1`

	sqlRulesVersion      = `SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'rules_version'`
	sqlRaiseRulesVersion = `UPDATE meta SET value = CAST(CAST(value AS INTEGER) + 1 AS TEXT), updated_at = c.ms FROM db_clock AS c WHERE key = 'rules_version'`
)

// The messages of a dry run, newest first, and those that a version of the
// rules has not judged, oldest first.
const (
	sqlDryRun = `SELECT CAST(id AS BLOB), CAST(from_email AS BLOB), subject, received_at FROM messages
 WHERE (?1 IS NULL OR account_id = ?1) AND (?2 IS NULL OR id IN (SELECT value FROM json_each(?2)))
 AND (?3 IS NULL OR id < ?3) ORDER BY id DESC LIMIT ?4`

	sqlUndecided = `SELECT CAST(m.id AS BLOB) FROM messages AS m
 WHERE m.id > ?1 AND m.id <= ?2 AND (?3 IS NULL OR m.account_id = ?3)
 AND NOT EXISTS (SELECT 1 FROM decisions AS d WHERE d.message_id = m.id AND d.rules_version = ?4 AND d.source = 'deterministic')
 ORDER BY m.id LIMIT ?5`

	sqlMessagesUpTo = `SELECT count(*), CAST(coalesce(max(id), '') AS BLOB) FROM messages WHERE ?1 IS NULL OR account_id = ?1`
	sqlMessagesTo   = `SELECT count(*) FROM messages WHERE id <= ?1 AND (?2 IS NULL OR account_id = ?2)`
)

// Tasks.
const (
	taskColumns = `SELECT CAST(t.id AS BLOB), CAST(t.kind AS BLOB), CAST(t.account_id AS BLOB), CAST(j.state AS BLOB), t.total, t.done, t.changed,
 t.problems, t.last_problem, j.last_error, t.created_at, t.updated_at, t.position FROM mail_tasks AS t LEFT JOIN jobs AS j ON j.id = t.id`

	sqlTask  = taskColumns + ` WHERE t.id = ?`
	sqlTasks = taskColumns + ` WHERE (?1 IS NULL OR t.account_id = ?1) AND (?2 IS NULL OR t.id < ?2) ORDER BY t.id DESC LIMIT ?3`

	// A task is stored with its job, unless that turned out to be a duplicate.
	sqlInsertTask = `INSERT INTO mail_tasks(id, kind, account_id, created_at, updated_at)
 SELECT ?1, ?2, ?3, c.ms, c.ms FROM db_clock AS c WHERE EXISTS (SELECT 1 FROM jobs WHERE id = ?1) ON CONFLICT DO NOTHING`

	sqlTaskProgress = `UPDATE mail_tasks SET total = coalesce(?, total), done = ?, changed = ?, problems = ?, last_problem = ?,
   position = ?, updated_at = c.ms FROM db_clock AS c WHERE id = ?`
)

const (
	sqlDecided = `SELECT 1 FROM decisions WHERE message_id = ? AND rules_version = ? AND source = 'deterministic'`

	// sqlGuardUndecided raises an error when the message was decided under
	// that version, so that nothing is decided twice.
	sqlGuardUndecided = `SELECT length(json(iif(NOT EXISTS (` + sqlDecided + `), '{}', 'decided')))`

	sqlInsertDecisions = `INSERT INTO decisions(id, account_id, message_id, source, decision_json, action_type, confidence,
   needs_approval, rationale, rules_version, created_at, updated_at)
 SELECT v.column1, v.column2, v.column3, 'deterministic', v.column4, v.column5, v.column6, v.column7, v.column8, v.column9, c.ms, c.ms
 FROM (%s) AS v, db_clock AS c`
)

// Actions. Every change of a status names the statuses it may come from; a
// trigger refuses what is no step of the status machine.
const (
	// not_before is an instant (8) or a time from now (9); an approval expires
	// after a time (10).
	sqlInsertAction = `INSERT INTO actions(id, account_id, message_id, decision_id, action_type, parameters_json, status,
   not_before, approval_expires_at, trace_id, created_at, updated_at)
 SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, coalesce(?8, c.ms + ?9), c.ms + ?10, ?11, c.ms, c.ms FROM db_clock AS c`

	// The intent: written once, before anything is touched.
	sqlActionExecuting = `UPDATE actions SET status = 'executing', undo_hint_json = ?, updated_at = c.ms
 FROM db_clock AS c WHERE id = ? AND status = 'queued'`

	sqlActionCompleted = `UPDATE actions SET status = 'completed', executed_at = c.ms, error_message = NULL, updated_at = c.ms
 FROM db_clock AS c WHERE id = ? AND status = 'executing'`

	sqlActionFailed = `UPDATE actions SET status = 'failed', error_message = ?, updated_at = c.ms
 FROM db_clock AS c WHERE id = ? AND status IN ('queued', 'executing')`

	sqlActionCanceled = `UPDATE actions SET status = 'canceled', error_message = ?, updated_at = c.ms
 FROM db_clock AS c WHERE id = ? AND status IN ('queued', 'executing')`

	// sqlActionWaits shows why an action that is not done waits.
	sqlActionWaits = `UPDATE actions SET error_message = ?, updated_at = c.ms
 FROM db_clock AS c WHERE id = ? AND status IN ('queued', 'executing')`

	// sqlCancelWakes calls the wakes of a message off.
	sqlCancelWakes = `UPDATE actions SET status = 'canceled', error_message = ?, updated_at = c.ms
 FROM db_clock AS c WHERE message_id = ? AND action_type = 'restore' AND status = 'queued'
 AND parameters_json->>'snooze_id' IS NOT NULL AND id <> ?`

	sqlLinkActions = `INSERT INTO action_links(id, cause_action_id, effect_action_id, relation_type, created_at)
 SELECT ?, ?, ?, ?, c.ms FROM db_clock AS c`

	sqlGuardPending = `SELECT length(json(iif(EXISTS (SELECT 1 FROM actions
 WHERE id = ? AND status = 'approved_pending' AND approval_expires_at > (SELECT ms FROM db_clock)), '{}', 'not pending')))`

	sqlApprove = `UPDATE actions SET status = 'queued', approved_at = c.ms, updated_at = c.ms FROM db_clock AS c WHERE id = ?`

	sqlReject = `UPDATE actions SET status = 'rejected', error_message = ?, updated_at = c.ms
 FROM db_clock AS c WHERE id = ? AND status = 'approved_pending' RETURNING 1`

	// sqlCallOff ends an action that has not begun.
	sqlCallOff = `UPDATE actions SET status = 'canceled', error_message = ?, updated_at = c.ms
 FROM db_clock AS c WHERE id = ? AND status IN ('queued', 'approved_pending') RETURNING 1`

	sqlExpire = `UPDATE actions SET status = 'canceled', error_message = ?, updated_at = c.ms
 FROM db_clock AS c WHERE id = ? AND status = 'approved_pending'`

	sqlGuardCompleted = `SELECT length(json(iif(EXISTS (SELECT 1 FROM actions WHERE id = ? AND status = 'completed'), '{}', 'not completed')))`

	sqlGuardNotUndone = `SELECT length(json(iif(NOT EXISTS (
   SELECT 1 FROM action_links AS l JOIN actions AS u ON u.id = l.effect_action_id
   WHERE l.cause_action_id = ? AND l.relation_type = 'undo_of' AND u.status IN ('queued', 'executing', 'completed')), '{}', 'undone')))`

	// Where an action has put a message. No sync has seen it there: its folder
	// is 0 until one has.
	sqlMessagePlace = `UPDATE messages SET raw_json = json_patch(raw_json, ?1), file_dir = iif(?1->>'gone', NULL, 0), file_name = iif(?1->>'gone', NULL, 0),
   updated_at = c.ms FROM db_clock AS c WHERE id = ?2`

	// Labels are a sorted set.
	sqlAddLabel = `UPDATE messages SET updated_at = c.ms, labels_json =
   (SELECT json_group_array(value) FROM (SELECT value FROM json_each(labels_json) UNION SELECT ?1 ORDER BY 1))
 FROM db_clock AS c WHERE id = ?2`

	sqlRemoveLabel = `UPDATE messages SET updated_at = c.ms, labels_json =
   (SELECT json_group_array(value) FROM (SELECT value FROM json_each(labels_json) WHERE value <> ?1 ORDER BY 1))
 FROM db_clock AS c WHERE id = ?2`
)

// What a sync saw.
const (
	sqlFolders = `SELECT CAST(folder AS BLOB), sub = 'new', mtime_ns, problems FROM maildir_folders WHERE account_id = ?`

	sqlFolderSeen = `INSERT INTO maildir_folders(account_id, folder, sub, mtime_ns, problems, created_at, updated_at)
 SELECT ?, ?, ?, ?, ?, c.ms, c.ms FROM db_clock AS c WHERE true
 ON CONFLICT DO UPDATE SET mtime_ns = excluded.mtime_ns, problems = excluded.problems, updated_at = excluded.updated_at`

	sqlForgetFolders = `DELETE FROM maildir_folders WHERE account_id = ?`

	sqlFilesIn = `SELECT file_name FROM messages INDEXED BY messages_file
 WHERE account_id = ? AND file_dir = ? AND file_name > ? AND file_dir IS NOT NULL ORDER BY file_name LIMIT ?`

	// Of a JSON array of unique names: those of stored messages.
	sqlStoredNames = `SELECT e.key FROM json_each(?2) AS e
 WHERE EXISTS (SELECT 1 FROM messages AS m WHERE m.account_id = ?1 AND m.provider_message_id = e.value)`

	// Where another program has put a message: 1 place (JSON), 2 and 3 the
	// hashes of its file, 4 account, 5 unique name. That is newer than what an
	// action did, in the same millisecond too: see verifyRules.
	sqlFileSeen = `UPDATE messages SET raw_json = json_patch(raw_json, ?1), file_dir = ?2, file_name = ?3,
   updated_at = iif(json_patch(raw_json, ?1) = json(raw_json), updated_at, max(c.ms, updated_at + 1)) -- a place that is known is no change
 FROM db_clock AS c WHERE account_id = ?4 AND provider_message_id = ?5`

	// What actions have put somewhere and no sync has seen since.
	sqlUnseen = `SELECT CAST(provider_message_id AS BLOB) FROM messages INDEXED BY messages_file
 WHERE account_id = ? AND file_dir = 0 AND file_dir IS NOT NULL LIMIT ?`

	sqlLost = `UPDATE messages SET raw_json = json_patch(raw_json, '{"gone":true}'), file_dir = NULL, file_name = NULL, updated_at = c.ms
 FROM db_clock AS c WHERE account_id = ? AND provider_message_id = ? AND file_dir = 0`

	// The files of one folder that are no longer there, and were seen nowhere else.
	sqlFilesGone = `UPDATE messages SET raw_json = json_patch(raw_json, '{"gone":true}'), file_dir = NULL, file_name = NULL, updated_at = c.ms
 FROM db_clock AS c WHERE account_id = ?1 AND file_dir = ?2 AND file_name IN (SELECT value FROM json_each(?3)) RETURNING 1`
)

// What is deleted with a removed account, some messages (2) at a time and the
// rest at last.
var sqlRemoveMessages = func() []string {
	const ids = `(SELECT id FROM messages WHERE account_id = ?1 ORDER BY id LIMIT ?2)`
	const acts = `(SELECT id FROM actions WHERE message_id IN ` + ids + `)`
	return []string{
		`DELETE FROM action_links WHERE cause_action_id IN ` + acts,
		`DELETE FROM action_links WHERE effect_action_id IN ` + acts,
		`DELETE FROM actions WHERE message_id IN ` + ids,
		`DELETE FROM decisions WHERE message_id IN ` + ids,
		`DELETE FROM message_search WHERE rowid IN (SELECT doc FROM message_docs WHERE message_id IN ` + ids + `)`,
		`DELETE FROM message_docs WHERE message_id IN ` + ids,
		`DELETE FROM message_labels WHERE (label, message_id) IN
   (SELECT l.value, m.id FROM messages AS m, json_each(m.labels_json) AS l WHERE m.id IN ` + ids + `)`,
		`DELETE FROM messages WHERE id IN ` + ids,
	}
}()

var sqlRemoveRest = []string{
	`DELETE FROM thread_ids WHERE account_id = ?`,
	`DELETE FROM threads WHERE account_id = ?`,
	`DELETE FROM maildir_folders WHERE account_id = ?`,
	`DELETE FROM mail_problems WHERE account_id = ?`,
	`DELETE FROM accounts WHERE id = ? AND removed_at IS NOT NULL`,
}

const sqlRemains = `SELECT (SELECT count(*) FROM messages WHERE account_id = ?1),
 (SELECT count(*) FROM job_keys WHERE type = 'message.ingest' AND key >= ?2 AND key < ?3)`

// What a verification reads.
const (
	sqlCountMessages = `SELECT count(*) FROM messages`

	sqlStoredFiles = `SELECT file_name, CAST(id AS BLOB), CAST(provider_message_id AS BLOB), CAST(content_sha256 AS BLOB),
 CAST(raw_json->>'folder' AS BLOB), CAST(raw_json->>'flags' AS BLOB), raw_json->>'new', raw_json->>'gone'
 FROM messages INDEXED BY messages_file
 WHERE account_id = ? AND file_dir = ? AND file_name > ? AND file_dir IS NOT NULL ORDER BY file_name LIMIT ?`
)

// verifyRules are the invariants of the mail side's tables, in the words of
// docs/mail.md. Accounts that are being removed have none.
var verifyRules = []queue.Rule{
	{Name: "an action that is wanted or under way has a job", SQL: `SELECT CAST(a.id AS BLOB), a.action_type || ', ' || a.status FROM actions AS a
 JOIN accounts AS c ON c.id = a.account_id AND c.removed_at IS NULL WHERE a.status IN ('queued', 'executing') AND NOT ` + jobOf("action.execute")},
	{Name: "an action that waits for approval has a job that gives it up", SQL: `SELECT CAST(a.id AS BLOB), a.action_type FROM actions AS a
 JOIN accounts AS c ON c.id = a.account_id AND c.removed_at IS NULL WHERE a.status = 'approved_pending' AND NOT ` + jobOf("action.expire")},
	{Name: "an action has begun when, and only when, its intent is stored", SQL: `SELECT CAST(id AS BLOB), action_type || ', ' || status FROM actions
 WHERE status IN ('executing', 'completed') AND undo_hint_json = '{}' OR status IN ('queued', 'approved_pending', 'rejected') AND undo_hint_json <> '{}'`},
	{Name: "a completed action, and no other, has the time of its completion", SQL: `SELECT CAST(id AS BLOB), action_type || ', ' || status FROM actions
 WHERE (status = 'completed') <> (executed_at IS NOT NULL)`},
	{Name: "an action is taken back once, after it was completed", SQL: `SELECT CAST(a.id AS BLOB), a.status || ', taken back ' || count(*) || ' times'
 FROM action_links AS l JOIN actions AS a ON a.id = l.cause_action_id JOIN actions AS u ON u.id = l.effect_action_id
 WHERE l.relation_type = 'undo_of' GROUP BY a.id
 HAVING a.status <> 'completed' OR sum(u.status IN ('queued', 'executing', 'completed')) > 1 OR sum(u.action_type <> 'undo') > 0`},
	{Name: "an undo takes back one action", SQL: `SELECT CAST(u.id AS BLOB), u.status FROM actions AS u WHERE u.action_type = 'undo'
 AND (SELECT count(*) FROM action_links AS l WHERE l.effect_action_id = u.id AND l.relation_type = 'undo_of' AND l.cause_action_id = u.parameters_json->>'action_id') <> 1`},
	{Name: "a message wakes once", SQL: `SELECT CAST(message_id AS BLOB), count(*) || ' wakes wait' FROM actions
 WHERE action_type = 'restore' AND status = 'queued' AND parameters_json->>'snooze_id' IS NOT NULL GROUP BY message_id HAVING count(*) > 1`},
	{Name: "a decision has the action it asks for, and no other", SQL: `SELECT CAST(d.id AS BLOB), d.action_type || ', ' || count(a.id) || ' actions' FROM decisions AS d
 LEFT JOIN actions AS a ON a.decision_id = d.id AND a.action_type = d.action_type AND a.message_id = d.message_id
 JOIN accounts AS c ON c.id = d.account_id AND c.removed_at IS NULL GROUP BY d.id HAVING count(a.id) <> (d.action_type <> 'none')`},
	{Name: "a message that nobody touched since its last action is as that left it", SQL: `SELECT CAST(m.id AS BLOB), a.action_type || ', folder ' || json_quote(m.raw_json->>'folder') || ', flags ' || json_quote(m.raw_json->>'flags')
 FROM messages AS m JOIN actions AS a ON a.message_id = m.id AND a.status = 'completed' AND a.executed_at = m.updated_at
 WHERE NOT EXISTS (SELECT 1 FROM actions AS o WHERE o.message_id = m.id AND o.id <> a.id AND o.executed_at >= a.executed_at) AND CASE a.action_type
   WHEN 'archive' THEN m.raw_json->>'folder' <> 'Archive' WHEN 'trash' THEN m.raw_json->>'folder' <> 'Trash' WHEN 'snooze' THEN m.raw_json->>'folder' <> 'Snoozed'
   WHEN 'move' THEN m.raw_json->>'folder' <> a.undo_hint_json->>'target' WHEN 'restore' THEN m.raw_json->>'folder' <> a.undo_hint_json->>'target'
   WHEN 'mark_read' THEN instr(m.raw_json->>'flags', 'S') = 0 WHEN 'mark_unread' THEN instr(m.raw_json->>'flags', 'S') > 0
   WHEN 'star' THEN instr(m.raw_json->>'flags', 'F') = 0 WHEN 'unstar' THEN instr(m.raw_json->>'flags', 'F') > 0
   WHEN 'apply_label' THEN NOT EXISTS (SELECT 1 FROM json_each(m.labels_json) WHERE value = a.parameters_json->>'label')
   WHEN 'remove_label' THEN EXISTS (SELECT 1 FROM json_each(m.labels_json) WHERE value = a.parameters_json->>'label')
   WHEN 'delete' THEN m.raw_json->>'gone' = 0 ELSE 0 END`},
	{Name: "a message is gone, or it has a place", SQL: `SELECT CAST(m.id AS BLOB), 'it has none' FROM messages AS m
 JOIN accounts AS c ON c.id = m.account_id WHERE m.file_dir IS NULL AND m.raw_json->>'gone' = 0 AND c.state_json->>'last_sync_at' IS NOT NULL`},
	{Name: "a message is in the thread of its own id", SQL: `SELECT CAST(m.id AS BLOB), 'thread ' || m.thread_id FROM messages AS m
 WHERE NOT EXISTS (SELECT 1 FROM thread_ids AS t WHERE t.account_id = m.account_id AND t.thread_id = m.thread_id)
 OR EXISTS (SELECT 1 FROM thread_ids AS t WHERE t.account_id = m.account_id AND t.message_id = m.rfc822_message_id AND t.thread_id <> m.thread_id)`},
	{Name: "a thread has messages, of its account", SQL: `SELECT CAST(t.id AS BLOB), 'none' FROM threads AS t JOIN accounts AS c ON c.id = t.account_id AND c.removed_at IS NULL
 WHERE NOT EXISTS (SELECT 1 FROM messages AS m INDEXED BY messages_thread WHERE m.thread_id = t.id AND m.account_id = t.account_id)`},
	{Name: "a message can be searched for", SQL: `SELECT CAST(m.id AS BLOB), 'it has no words' FROM messages AS m
 WHERE NOT EXISTS (SELECT 1 FROM message_docs AS d JOIN message_search_docsize AS w ON w.id = d.doc WHERE d.message_id = m.id)`},
	{Name: "what can be searched for is a message", SQL: `SELECT CAST(d.message_id AS BLOB), 'document ' || d.doc FROM message_docs AS d
 WHERE NOT EXISTS (SELECT 1 FROM messages AS m WHERE m.id = d.message_id)`},
	{Name: "labels are listed by label, too", SQL: `SELECT CAST(coalesce(x.message_id, y.id) AS BLOB), coalesce(x.label, y.label) FROM
   (SELECT m.id, l.value AS label FROM messages AS m, json_each(m.labels_json) AS l) AS y FULL JOIN message_labels AS x ON x.message_id = y.id AND x.label = y.label
 WHERE x.label IS NULL OR y.label IS NULL`},
	{Name: "the bytes of a posted message wait for a job that has not taken them in", SQL: `SELECT CAST(b.job_id AS BLOB), 'chunk ' || b.n FROM message_chunks AS b
 WHERE NOT EXISTS (SELECT 1 FROM jobs AS j WHERE j.id = b.job_id AND j.type = 'message.ingest' AND j.state <> 'completed')`},
}

// jobOf is true for an action (a) whose job of a type has not ended; its key
// is the action's id.
func jobOf(typ string) string {
	return `EXISTS (SELECT 1 FROM job_keys AS k JOIN jobs AS j ON j.id = k.job_id WHERE k.type = '` + typ + `' AND k.key = a.id AND j.finished_at IS NULL)`
}
