// Command roamctl asks and changes a running roamd through its control socket.
//
// Nouns read and verbs change: one file per noun. A command only translates, from words to a request and from the
// answer to a table or JSON. Everything it says about what went wrong goes to standard error with the way out,
// and its exit status says of which kind it was: 1 failed, 2 was used wrongly, 3 could not reach the daemon.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"roam/loader/api"
)

// version is set when the binary is linked.
var version = "unreleased"

// Exit statuses.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitUnreachable = 3
)

// defaultSocket is where a daemon listens unless its configuration says otherwise.
const defaultSocket = "/run/roam/roamd.sock"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// usageError is a command that was written wrongly.
type usageError struct{ message, hint string }

func (e *usageError) Error() string { return e.message }

func usage(hint, format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...), hint}
}

// hinted is a failure whose way out we know.
type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }

// run is the program; it returns the exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	app := newApp(stdin, stdout, stderr)
	args, err := arrange(app, args)
	if err == nil {
		err = app.RunContext(ctx, args)
	}
	if err == nil {
		return 0
	}
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	message, hint, code := describe(err)
	fmt.Fprintf(stderr, "roamctl: %s\n", message)
	if hint != "" {
		fmt.Fprintf(stderr, "  %s\n", hint)
	}
	return code
}

// describe finds what to say about an error, the way out, and the exit status.
func describe(err error) (message, hint string, code int) {
	var wrong *usageError
	var known *hinted
	var down *api.Unreachable
	var answer *api.Error
	switch {
	case errors.As(err, &wrong):
		return err.Error(), wrong.hint, exitUsage
	case errors.As(err, &known):
		return err.Error(), known.hint, exitFailed
	case errors.As(err, &down):
		return err.Error(), down.Hint(), exitUnreachable
	case errors.As(err, &answer):
		return err.Error(), answer.Hint, exitFailed
	}
	return err.Error(), "", exitFailed
}

func newApp(stdin io.Reader, stdout, stderr io.Writer) *cli.App {
	return &cli.App{
		Name:    "roamctl",
		Usage:   "ask and change a running roamd",
		Version: version,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "socket", Usage: "the daemon's control `SOCKET`", EnvVars: []string{"ROAM_SOCKET"}, Value: defaultSocket},
			&cli.StringFlag{Name: "pin", Usage: "read the maps pinned in `FOLDER` where the daemon is down", Value: defaultPin, Hidden: openPins == nil},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write answers as `FORMAT`, table or json", Value: "table"},
		},
		Before: func(c *cli.Context) error {
			switch c.String("output") {
			case "table", "json":
				return nil
			}
			return usage("use -o table or -o json", "output %q is unknown", c.String("output"))
		},
		Commands: []*cli.Command{
			statusCommand(), routeCommand(), hostCommand(), siteCommand(), gatewayCommand(), sessionCommand(), pingCommand(), countersCommand(), topCommand(), eventsCommand(), traceCommand(), captureCommand(), explainCommand(),
			doctorCommand(), shadowCommand(), reloadCommand(), completionCommand(),
		},
		Reader: stdin, Writer: stdout, ErrWriter: stderr,
		EnableBashCompletion:      true,
		DisableSliceFlagSeparator: true, // a locator has commas of its own
		HideHelpCommand:           true,
		ExitErrHandler:            func(*cli.Context, error) {}, // run decides
		OnUsageError:              onUsageError,
	}
}

func onUsageError(_ *cli.Context, err error, _ bool) error {
	return usage("see roamctl --help", "%s", strings.TrimPrefix(err.Error(), "flag: "))
}

// client talks to the daemon that the command names.
func client(c *cli.Context) *api.Client { return api.NewClient(c.String("socket")) }

// command makes a command that takes exactly the named arguments.
func command(name, summary, arguments string, action cli.ActionFunc, flags ...cli.Flag) *cli.Command {
	return &cli.Command{
		Name: name, Usage: summary, ArgsUsage: arguments, Flags: flags, HideHelpCommand: true,
		OnUsageError: onUsageError,
		Action: func(c *cli.Context) error {
			if want := len(strings.Fields(arguments)); c.NArg() != want {
				return wrongCount(c, name, arguments)
			}
			return action(c)
		},
	}
}

func wrongCount(c *cli.Context, name, arguments string) error {
	line := strings.TrimSpace(strings.Join(append(parents(c), name, arguments), " "))
	switch missing := strings.Fields(arguments); {
	case len(missing) == 0:
		return usage("usage: "+line, "%s takes no argument: %q is one too many", name, c.Args().First())
	case c.NArg() < len(missing):
		return usage("usage: "+line, "%s is missing", missing[c.NArg()])
	default:
		return usage("usage: "+line, "%q is one argument too many", c.Args().Get(len(missing)))
	}
}

// parents are the words before a command.
func parents(c *cli.Context) []string {
	lineage := c.Lineage()
	var words []string
	for i := len(lineage) - 1; i > 0; i-- {
		if lineage[i].Command != nil && lineage[i].Command.Name != "" && lineage[i].Command.Name != c.Command.Name {
			words = append(words, lineage[i].Command.Name)
		}
	}
	if len(words) == 0 || words[0] != "roamctl" {
		words = append([]string{"roamctl"}, words...)
	}
	return words
}

// noun is a command that only holds others.
func noun(name, summary string, verbs ...*cli.Command) *cli.Command {
	return &cli.Command{Name: name, Usage: summary, Subcommands: verbs, HideHelpCommand: true, OnUsageError: onUsageError}
}

func tenantFlag() cli.Flag {
	return &cli.StringFlag{Name: "tenant", Aliases: []string{"t"}, Usage: "in `TENANT`; the first configured one where left out"}
}
