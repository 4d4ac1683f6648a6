package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// completion is `completion`. What it prints asks nothing when a key is
// pressed: it holds every command with its flags.
func completion(c *call, _ *flag.FlagSet) action {
	return func(_ context.Context, args []string) error {
		write := map[string]func() string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}
		script, known := write[args[0]]
		if !known {
			return wrongUse("SHELL must be one of %s, not %s", strings.Join(slices.Sorted(maps.Keys(write)), ", "), quote(args[0]))
		}
		return c.printf("%s", script())
	}
}

// words are what may follow each beginning of a command: the words of its
// group, or a command's flags.
func words() map[string][]string {
	all := map[string][]string{}
	for _, cmd := range commands() {
		before := ""
		for word := range strings.SplitSeq(cmd.name, " ") {
			if !slices.Contains(all[before], word) {
				all[before] = append(all[before], word)
			}
			before = strings.TrimSpace(before + " " + word)
		}
		c := &call{name: cmd.name}
		flags := c.flagSet()
		cmd.setup(c, flags)
		flags.VisitAll(func(f *flag.Flag) { all[cmd.name] = append(all[cmd.name], "-"+f.Name) })
	}
	return all
}

// cases writes a line for each beginning, in order.
func cases(line func(before string, follow []string) string) string {
	var b strings.Builder
	all := words()
	for _, before := range slices.Sorted(maps.Keys(all)) {
		b.WriteString(line(before, all[before]))
	}
	return b.String()
}

func bashCompletion() string {
	return `# queuerunner completion bash: source this, or put it into /etc/bash_completion.d/queuerunner.
_queuerunner() {
	local word before="" flag="" cur=${COMP_WORDS[COMP_CWORD]}
	for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
		case $flag$word in
		-set | -config) flag=value ;;
		-* | value*) flag="" ;;
		*) before="$before${before:+ }$word" ;;
		esac
	done
	while :; do
		case $before in
` + cases(func(before string, follow []string) string {
		return fmt.Sprintf("\t\t%q) COMPREPLY=($(compgen -W %q -- \"$cur\")); return ;;\n", before, strings.Join(follow, " "))
	}) + `		esac
		[ "$before" != "${before% *}" ] || return
		before=${before% *} # without an argument
	done
}
complete -o default -F _queuerunner queuerunner
`
}

func zshCompletion() string {
	return "#compdef queuerunner\nautoload -U +X bashcompinit && bashcompinit\n" + bashCompletion()
}

func fishCompletion() string {
	return "# queuerunner completion fish: put this into ~/.config/fish/completions/queuerunner.fish.\ncomplete -c queuerunner -f\n" +
		cases(func(before string, follow []string) string {
			condition := "__fish_use_subcommand"
			if before != "" {
				condition = "__fish_seen_subcommand_from " + before[strings.LastIndex(before, " ")+1:]
				if group, _, nested := strings.Cut(before, " "); nested {
					condition += "; and __fish_seen_subcommand_from " + group
				}
			}
			var b strings.Builder
			for _, word := range follow {
				if name, isFlag := strings.CutPrefix(word, "-"); isFlag {
					fmt.Fprintf(&b, "complete -c queuerunner -n '%s' -o %s\n", condition, name)
				} else {
					fmt.Fprintf(&b, "complete -c queuerunner -n '%s' -a %s\n", condition, word)
				}
			}
			return b.String()
		})
}
