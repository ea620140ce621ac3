package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"roam/loader/api"
)

func routeImport(c *cli.Context) error {
	if c.Bool("follow") {
		return routeFollow(c)
	}
	name := c.Args().First()
	var in io.Reader = c.App.Reader
	var size int64
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return &hinted{fmt.Errorf("import routes: %w", err), "name a file that can be read, or - for the standard input"}
		}
		defer f.Close()
		in = f
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			size = info.Size()
		}
	}
	buffered := bufio.NewReaderSize(in, 1<<16)
	format, err := listFormat(c.String("format"), name, buffered)
	if err != nil {
		return err
	}
	var progress func(api.Progress)
	if c.Bool("progress") || isTerminal(c.App.ErrWriter) {
		progress = func(p api.Progress) { fmt.Fprintf(c.App.ErrWriter, "%d lines\n", p.Read) }
	}
	last, err := client(c).Import(c.Context, buffered, size, format, progress)
	if err != nil {
		return err
	}
	return done(c, "imported %d routes from %d lines", last.Added, last.Read)
}

// listFormat is the format that is asked for, or that the name of the file says, or that its first byte does.
func listFormat(asked, name string, in *bufio.Reader) (api.Format, error) {
	switch asked {
	case "csv":
		return api.CSV, nil
	case "jsonl":
		return api.JSONL, nil
	case "":
	default:
		return "", usage("use --format csv or --format jsonl", "format %q is unknown", asked)
	}
	switch strings.ToLower(filepath.Ext(name)) {
	case ".csv":
		return api.CSV, nil
	case ".jsonl", ".ndjson":
		return api.JSONL, nil
	}
	start, _ := in.Peek(512) // a failure shows again when the list is read
	if bytes.HasPrefix(bytes.TrimLeft(start, " \t\r\n\ufeff"), []byte{'{'}) {
		return api.JSONL, nil
	}
	return api.CSV, nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func routeExport(c *cli.Context) error {
	format := c.String("format")
	switch {
	case format == "" && asJSON(c):
		format = "jsonl"
	case format == "":
		format = "csv"
	case format != "csv" && format != "jsonl":
		return usage("use --format csv or --format jsonl", "format %q is unknown", format)
	}
	return client(c).Export(c.Context, format, c.String("tenant"), c.App.Writer)
}
