package main

import (
	"github.com/urfave/cli/v2"
)

func gatewayCommand() *cli.Command {
	return noun("gateway", "this gateway",
		command("drain", "take it out of service: others announce and answer in its place, what still comes is forwarded", "", drain(true)),
		command("undrain", "put it back into service", "", drain(false)),
	)
}

func drain(out bool) cli.ActionFunc {
	return func(c *cli.Context) error {
		if err := client(c).Drain(c.Context, out); err != nil {
			return err
		}
		if out {
			return done(c, "drained, until roamctl gateway undrain or a restart of roamd")
		}
		return done(c, "in service")
	}
}
