package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

func completionCommand() *cli.Command {
	c := command("completion", "print the script that completes command lines in bash, zsh or fish", "SHELL", func(c *cli.Context) error {
		script, ok := completions[c.Args().First()]
		if !ok {
			return usage("use bash, zsh or fish", "no completion for %q", c.Args().First())
		}
		_, err := fmt.Fprint(c.App.Writer, script)
		return err
	})
	c.BashComplete = func(c *cli.Context) { fmt.Fprintln(c.App.Writer, "bash\nzsh\nfish") }
	return c
}

// completions ask the program itself what may come next, so they need no change when a command is added.
var completions = map[string]string{
	"bash": `# roamctl completion for bash: source it, or put it into /etc/bash_completion.d/roamctl
_roamctl() {
	local words=("${COMP_WORDS[@]:0:$COMP_CWORD}") current="${COMP_WORDS[COMP_CWORD]}"
	[[ $current == -* ]] && words+=(-) # "--" itself would end the flags
	mapfile -t COMPREPLY < <(compgen -W "$("${words[@]}" --generate-bash-completion 2>/dev/null)" -- "$current")
}
complete -o bashdefault -o default -F _roamctl roamctl
`,
	"zsh": `#compdef roamctl
# roamctl completion for zsh: put it into a folder of $fpath as _roamctl
_roamctl() {
	local -a answers
	local -a line=("${words[@]:0:$((CURRENT-1))}")
	[[ ${words[CURRENT]} == -* ]] && line+=(-)
	answers=("${(@f)$(_CLI_ZSH_AUTOCOMPLETE_HACK=1 "${line[@]}" --generate-bash-completion 2>/dev/null)}")
	if [[ -n ${answers[1]} ]]; then
		_describe 'values' answers
	else
		_files
	fi
}
if [[ $funcstack[1] == _roamctl ]]; then
	_roamctl "$@"
else
	compdef _roamctl roamctl
fi
`,
	"fish": `# roamctl completion for fish: put it into ~/.config/fish/completions/roamctl.fish
function __roamctl_complete
	set -l line (commandline -opc)
	set -l current (commandline -ct)
	string match -q -- '-*' $current; and set -a line -
	$line --generate-bash-completion 2>/dev/null
end
complete -c roamctl -a '(__roamctl_complete)'
`,
}
