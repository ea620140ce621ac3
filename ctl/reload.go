package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"
)

func reloadCommand() *cli.Command {
	return command("reload", "make the daemon read its configuration again and apply the difference", "", func(c *cli.Context) error {
		done, err := client(c).Reload(c.Context)
		if err != nil {
			return err
		}
		return show(c, done, func(w io.Writer) {
			for _, change := range done.Changes {
				fmt.Fprintln(w, change)
			}
			if len(done.Changes) == 0 {
				fmt.Fprintln(w, "nothing differs")
			}
			for _, warning := range done.Warnings {
				fmt.Fprintln(w, "warning: "+warning)
			}
		})
	})
}
