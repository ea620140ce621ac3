package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// completionFlag is what the shells' completion passes last.
const completionFlag = "--generate-bash-completion"

// arrange puts a command line into the order that the library wants: the program's flags, the command, its flags,
// its arguments. People write flags where they think of them. What it meets on the way it checks, because it knows
// better than a parser of single flags what was meant.
func arrange(app *cli.App, args []string) ([]string, error) {
	if slices.Contains(args, completionFlag) {
		return args, nil
	}
	line := commandLine{app: app, path: []string{"roamctl"}, verbs: app.Commands}
	for rest := args[1:]; len(rest) > 0; {
		word := rest[0]
		rest = rest[1:]
		var err error
		switch {
		case word == "--":
			line.arguments = append(line.arguments, rest...)
			rest = nil
		case len(word) > 1 && word[0] == '-':
			rest, err = line.flag(word, rest)
		case len(line.verbs) > 0 && word == "help":
			rest, err = line.flag("--help", rest)
		case len(line.verbs) > 0:
			err = line.verb(word)
		default:
			line.arguments = append(line.arguments, word)
		}
		if err != nil {
			return nil, err
		}
	}
	if len(line.verbs) > 0 && !line.help && !line.version {
		return nil, usage("one of: "+line.names(), "%s needs a command", strings.Join(line.path, " "))
	}
	out := append([]string{args[0]}, line.global...)
	out = append(append(out, line.path[1:]...), line.local...)
	if slices.ContainsFunc(line.arguments, func(a string) bool { return len(a) > 1 && a[0] == '-' }) {
		out = append(out, "--")
	}
	return append(out, line.arguments...), nil
}

// commandLine is what was understood so far.
type commandLine struct {
	app           *cli.App
	path          []string       // the program and the words of its command
	verbs         []*cli.Command // that may come next; none once the command is complete
	command       *cli.Command
	global, local []string // flags with their values
	arguments     []string
	help, version bool
}

func (l *commandLine) names() string {
	var names []string
	for _, v := range l.verbs {
		if !v.Hidden {
			names = append(names, v.Name)
		}
	}
	return strings.Join(names, ", ")
}

func (l *commandLine) verb(word string) error {
	i := slices.IndexFunc(l.verbs, func(v *cli.Command) bool { return v.HasName(word) })
	if i < 0 {
		return usage("one of: "+l.names(), "%q is no command of %s", word, strings.Join(l.path, " "))
	}
	l.command = l.verbs[i]
	l.path = append(l.path, l.command.Name)
	l.verbs = l.command.Subcommands
	return nil
}

// flag takes a flag, with its value from rest where it has one, and returns what is left.
func (l *commandLine) flag(word string, rest []string) ([]string, error) {
	name, _, joined := strings.Cut(strings.TrimLeft(word, "-"), "=")
	switch {
	case name == "help" || name == "h":
		l.help = true
		l.local = append(l.local, "--help")
		return rest, nil
	case l.command == nil && (name == "version" || name == "v"):
		l.version = true
		l.global = append(l.global, "--version")
		return rest, nil
	}
	into := &l.local
	var f cli.Flag
	if l.command != nil {
		f = find(l.command.Flags, name)
	}
	if f == nil {
		f, into = find(l.app.Flags, name), &l.global
	}
	if f == nil {
		return nil, usage("known are: "+l.flags(), "%s takes no flag %s", strings.Join(l.path, " "), strings.SplitN(word, "=", 2)[0])
	}
	*into = append(*into, word)
	if v, ok := f.(cli.DocGenerationFlag); joined || ok && !v.TakesValue() {
		return rest, nil
	}
	if len(rest) == 0 {
		return nil, usage("see "+strings.Join(l.path, " ")+" --help", "flag %s needs a value", word)
	}
	*into = append(*into, rest[0])
	return rest[1:], nil
}

func find(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

func (l *commandLine) flags() string {
	flags := l.app.Flags
	if l.command != nil {
		flags = slices.Concat(l.command.Flags, flags)
	}
	var names []string
	for _, f := range flags {
		if v, ok := f.(cli.VisibleFlag); ok && !v.IsVisible() {
			continue
		}
		names = append(names, "--"+f.Names()[0])
	}
	return strings.Join(append(names, "--help"), ", ")
}
