// Command roamd is the gateway's daemon: it loads the data path and feeds its tables from route sources.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"roam/loader/config"
)

// version is set by the build.
var version = "unknown"

const defaultConfig = "/etc/roam/roamd.yaml"

func main() {
	app := &cli.App{
		Name:            "roamd",
		Usage:           "route on host addresses between sites",
		UsageText:       "roamd --config FILE [--check | --detach | --shadow]",
		Version:         version,
		HideHelpCommand: true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Value: defaultConfig, Usage: "configuration `FILE`"},
			&cli.BoolFlag{Name: "check", Usage: "validate the configuration, change nothing, and exit"},
			&cli.BoolFlag{Name: "detach", Usage: "stop forwarding: detach from the ports, remove what is pinned, restore the kernel's settings, and exit"},
			&cli.BoolFlag{Name: "shadow", Usage: "look, learn and report, and do nothing, whatever datapath.shadow says"},
			&cli.BoolFlag{Name: "verbose", Usage: "log what is of interest only to who looks for something"},
		},
		Action: func(c *cli.Context) error { return start(c) },
		OnUsageError: func(_ *cli.Context, err error, _ bool) error {
			return cli.Exit(fmt.Sprintf("roamd: %v (see roamd --help)", err), 2)
		},
	}
	if err := app.Run(os.Args); err != nil {
		fmt.Fprintf(os.Stderr, "roamd: %v\n", err)
		os.Exit(1)
	}
}

func start(c *cli.Context) error {
	if c.Args().Present() {
		return cli.Exit(fmt.Sprintf("roamd: unexpected argument %q (see roamd --help)", c.Args().First()), 2)
	}
	path := c.String("config")
	cfg, err := config.Load(path, nil)
	if err != nil {
		return err
	}
	cfg.Datapath.Shadow = cfg.Datapath.Shadow || c.Bool("shadow")
	hush(cfg)
	log := logger(c.Bool("verbose"))
	for _, w := range cfg.Warnings {
		log.Warn(w)
	}
	switch {
	case c.Bool("check"):
		fmt.Printf("%s is valid: site %s, %d tenants\n", path, cfg.Site, len(cfg.Tenants))
		return nil
	case c.Bool("detach"):
		return detach(cfg, log)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	d, err := newDaemon(path, cfg, log)
	if err != nil {
		return err
	}
	return errors.Join(d.run(ctx), d.close())
}

func logger(verbose bool) *slog.Logger {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}
