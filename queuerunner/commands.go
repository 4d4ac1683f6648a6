package main

import (
	"context"
	"flag"
	"strings"
)

// command is one row of the table.
type command struct {
	name string // as typed
	args string // its arguments, [optional] ones last
	help string // one line
	// setup declares the command's own flags and returns what the command does.
	setup func(c *call, flags *flag.FlagSet) action
}

// action runs a command with its arguments, whose number was checked.
type action func(ctx context.Context, args []string) error

// commands is every command, in the order of the help text.
func commands() []command {
	return []command{
		{"run", "", "claim and run jobs until SIGTERM; the same as no command", runCommand},
		{"healthcheck", "", "ask the runner that works here with the same configuration whether it is ready", healthcheck},

		{"migrate up", "", "bring the database to the newest schema, creating it where needed", migrateUp},
		{"migrate down", "[N]", "take back the last N migrations, or -all", migrateDown},
		{"migrate status", "", "show the schema's version and what is pending", migrateStatus},

		{"config check", "", "check the configuration and report every problem", configCheck},
		{"config print", "", "show every key, its value and where it came from", configPrint},

		{"jobs enqueue", "TYPE", "store a job and print its id", jobsEnqueue},
		{"jobs list", "", "list jobs, newest first", jobsList},
		{"jobs tail", "", "show the last changes of jobs' states; -f goes on with what comes", jobsTail},
		{"jobs show", "ID", "show a job with its steps, runs and history", jobsShow},
		{"jobs why", "ID", "say why a job is not running", jobsWhy},
		{"jobs cancel", "[ID]", "cancel a queued job, ask a running one to stop; or all that the flags choose", jobsCancel},
		{"jobs retry", "[ID]", "put a failed or canceled job back into its queue; or all that the flags choose", jobsRetry},
		{"jobs delete", "[ID]", "delete a job that has ended; or all that the flags choose", jobsDelete},
		{"jobs run-now", "ID", "let a job that waits for its time start now", jobsRunNow},
		{"jobs settle", "ID STEP", "say whether an uncertain step of a job happened", jobsSettle},

		{"cron set", "NAME SCHEDULE TYPE", "store a schedule (\"30 2 * * *\", @daily, \"@every 90m\") of jobs, or replace it", cronSet},
		{"cron list", "", "list schedules by name", cronList},
		{"cron show", "NAME", "show a schedule and when it comes", cronShow},
		{"cron pause", "NAME", "stop a schedule", cronPause},
		{"cron resume", "NAME", "start a paused schedule again, without what it missed", cronResume},
		{"cron trigger", "NAME", "store a job of a schedule now and print its id; its times stay", cronTrigger},
		{"cron delete", "NAME", "delete a schedule; its jobs stay", cronDelete},

		{"queues list", "", "list queues with their depth by state", queuesList},
		{"queues pause", "NAME", "start no more jobs of a queue; those that run go on", queuesPause},
		{"queues resume", "NAME", "start jobs of a paused queue again", queuesResume},

		{"limits list", "", "list limits by scope and name", limitsList},
		{"limits set", "SCOPE NAME", "limit how many jobs of a queue, a type or a key run at once, or how close a key's starts may be", limitsSet},
		{"limits drop", "SCOPE NAME", "take a limit away", limitsDrop},

		{"tokens add", "NAME", "store a new token for the API, with a -role, and print it once", tokensAdd},
		{"tokens list", "", "list the stored tokens by name", tokensList},
		{"tokens remove", "NAME", "remove a token", tokensRemove},

		{"top", "", "show queues and runners, live on a terminal", topCommand},
		{"completion", "SHELL", "print what makes bash, zsh or fish complete this command line", completion},
		{"verify", "", "check the whole database against its rules, and mail files against it, also while services run", verify},
		{"backup", "FILE", "write a consistent copy of the database to a new file, also while services run", backup},
		{"restore", "FILE", "put a backup in the database's place, while no service runs", restore},
		{"bench", "", "measure the configured database on a queue of its own, which is deleted afterwards", bench},

		{"accounts add", "", "add a Maildir account and print its id", accountsAdd},
		{"accounts list", "", "list accounts with their state, newest first", accountsList},
		{"accounts show", "ID", "show an account and when it was last in sync", accountsShow},
		{"accounts pause", "ID", "take nothing in and change nothing until it is resumed", accountsPause},
		{"accounts resume", "ID", "go on with a paused account", accountsResume},
		{"accounts resync", "ID", "look at every file again, now", accountsResync},
		{"accounts remove", "ID", "delete what is stored about an account; its mail stays where it is", accountsRemove},
		{"import", "PATH", "take in a Maildir, an mbox file or a folder of .eml files", importCommand},

		{"messages list", "", "list and search messages, newest first", messagesList},

		{"actions add", "MESSAGE TYPE", "change a message: archive, move, star, snooze …", actionsAdd},
		{"actions list", "", "list actions, newest first", actionsList},
		{"actions show", "ID", "show an action", actionsShow},
		{"actions approve", "ID", "let an action pass that waits for approval", actionsApprove},
		{"actions reject", "ID", "refuse an action that waits for approval", actionsReject},
		{"actions cancel", "ID", "call off an action that has not begun", actionsCancel},
		{"actions undo", "ID", "take a completed action back", actionsUndo},

		{"rules add", "", "add the rules of a JSON file and print their ids", rulesAdd},
		{"rules list", "", "list rules, newest first", rulesList},
		{"rules enable", "ID", "enable a rule", rulesEnable},
		{"rules disable", "ID", "disable a rule, with a -reason", rulesDisable},
		{"rules delete", "ID", "delete a rule", rulesDelete},
		{"rules test", "", "show what rules would do with stored mail, changing nothing", rulesTest},
		{"rules apply", "", "apply the rules to the mail that is there", rulesApply},
		{"rules export", "", "print all rules as TOML", rulesExport},
		{"rules import", "FILE", "add the rules of a file, replacing those with the same name", rulesImport},

		{"tasks list", "", "list long work on the mail side, newest first", tasksList},
		{"tasks show", "ID", "show how far a task is", tasksShow},
	}
}

func lookUp(name string) command {
	for _, cmd := range commands() {
		if cmd.name == name {
			return cmd
		}
	}
	return command{}
}

func isCommand(name string) bool { return lookUp(name).name != "" }

func isGroup(name string) bool {
	for _, cmd := range commands() {
		if strings.HasPrefix(cmd.name, name+" ") {
			return true
		}
	}
	return false
}

// choices lists what may follow the name of a group.
func choices(group string) string {
	var words []string
	for _, cmd := range commands() {
		if word, ok := strings.CutPrefix(cmd.name, group+" "); ok {
			words = append(words, word)
		}
	}
	return strings.Join(words, ", ")
}

// checkArgs compares the number of arguments with the command's.
func (cmd command) checkArgs(args []string) error {
	wanted := strings.Fields(cmd.args)
	if len(args) > len(wanted) {
		return wrongUse("unexpected argument %s", quote(args[len(wanted)]))
	}
	for _, name := range wanted[len(args):] {
		if !strings.HasPrefix(name, "[") {
			return wrongUse("%s is missing", name)
		}
	}
	return nil
}

// unknownCommand names the command that was probably meant.
func unknownCommand(name string) error {
	group, word, nested := strings.Cut(name, " ")
	if !nested {
		group, word = "", name
	}
	best, least := "", 3 // more than two edits away is another word
	for _, cmd := range commands() {
		for _, candidate := range []string{cmd.name, strings.Fields(cmd.name)[0]} {
			shown := candidate
			if nested {
				var inGroup bool
				if candidate, inGroup = strings.CutPrefix(candidate, group+" "); !inGroup {
					continue
				}
			}
			if d := distance(word, candidate); d < least && d < len(candidate) {
				best, least = shown, d
			}
		}
	}
	if best != "" {
		return wrongUse("unknown command %s: did you mean %q?", quote(name), best)
	}
	return wrongUse("unknown command %s", quote(name))
}

// distance is the number of letters to insert, delete, change or swap with
// their neighbour that make a of b, up to a bound that no suggestion reaches.
func distance(a, b string) int {
	const far = 1 << 10
	if len(a) > 64 {
		return far
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
		for j := range len(b) {
			if i == 0 {
				rows[0][j+1] = j + 1
				continue
			}
			change := rows[i-1][j]
			if a[i-1] != b[j] {
				change++
			}
			rows[i][j+1] = min(change, rows[i-1][j+1]+1, rows[i][j]+1)
			if i > 1 && j > 0 && a[i-1] == b[j-1] && a[i-2] == b[j] {
				rows[i][j+1] = min(rows[i][j+1], rows[i-2][j-1]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
