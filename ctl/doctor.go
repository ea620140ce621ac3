package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"roam/loader/api"
)

func doctorCommand() *cli.Command {
	return command("doctor", "check interfaces, drivers, kernel, and say what to do", "", func(c *cli.Context) error {
		checks, err := client(c).Doctor(c.Context)
		if err != nil {
			return err
		}
		err = show(c, checks, func(w io.Writer) {
			row(w, "LEVEL", "CHECK", "SUBJECT", "FOUND")
			for _, check := range checks {
				row(w, strings.ToUpper(check.Level), check.Name, check.Subject, check.Found)
				if check.Advice != "" {
					fmt.Fprintf(w, "\t\t\tdo: %s\n", check.Advice)
				}
			}
		})
		failed := 0
		for _, check := range checks {
			if check.Level == api.LevelFail {
				failed++
			}
		}
		if err == nil && failed > 0 {
			return &api.Error{Message: fmt.Sprintf("%d of %d checks failed", failed, len(checks)), Hint: "do what stands below each of them, then ask again"}
		}
		return err
	})
}
