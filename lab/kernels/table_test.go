package kernels_test

import (
	_ "embed"
	"flag"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"text/template"
	"time"
)

// result is one kernel's row.
type result struct {
	Release  string
	Verifier []variant
	Golden   passed
	Model    passed
	Tables   passed
	Network  bool
	Time     time.Duration
}

// variant is a way to load the program, by its constants.
type variant struct {
	Name     string
	Verified int // instructions that the verifier looked at
}

type passed struct {
	Tests   int // with their parts
	Skipped []string
}

// peer is what became of one encapsulation with a kernel's device as its far end.
type peer struct {
	Encap, Device string
	Over          [2]bool // IPv4, IPv6
}

var (
	results []result
	met     struct {
		Release string
		Peers   []peer
	}
	page = flag.String("page", "", "file to write the results to, as a page of the manual")
)

//go:embed kernels.md.tmpl
var pageText string

// writePage writes the manual's page. It holds nothing that differs between two runs over the same kernels.
func writePage(file string) error {
	tmpl, err := template.New("page").Funcs(template.FuncMap{"yes": yes}).Parse(pageText)
	if err != nil {
		return err
	}
	var text strings.Builder
	if err := tmpl.Execute(&text, map[string]any{"Kernels": results, "Met": met}); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(text.String()), 0o644)
}

func yes(ok bool) string {
	if ok {
		return "yes"
	}
	return "no"
}

// table is what a run prints.
func table(list []result) string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "KERNEL\tINSTRUCTIONS VERIFIED\tPACKET TESTS\tMODEL\tTABLE TESTS\tNETWORK\tTIME\n")
	for _, r := range list {
		var counts []string
		for _, v := range r.Verifier {
			counts = append(counts, fmt.Sprintf("%s %d", v.Name, v.Verified))
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%d\t%s\t%.0fs\n", r.Release, strings.Join(counts, ", "), r.Golden.Tests,
			yes(r.Model.Tests > 0), r.Tables.Tests, yes(r.Network), r.Time.Seconds())
	}
	_ = w.Flush()
	return text.String()
}
