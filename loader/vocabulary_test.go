package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"roam/loader/event"
)

// urgent are the events that an operator has to act on, by the names of their constants: what the log calls a warning.
var urgent = []string{"Frozen", "Conflict", "Refused", "LocatorDown", "MTUHole", "PortDown", "SourceDown", "ReloadFailed", "GrowthFailed", "More"}

// TestUrgentEventsSayWhatToDo: wherever such an event is made, it is said what happened, why, and what to do.
func TestUrgentEventsSayWhatToDo(t *testing.T) {
	made := map[string]bool{}
	for _, pattern := range []string{"*.go", "event/event.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			positions := token.NewFileSet()
			file, err := parser.ParseFile(positions, name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for kind, places := range makers(file) {
				for _, place := range places {
					made[kind] = true
					for _, want := range []string{"what", "why", "do"} {
						if !place.says[want] {
							t.Errorf("%s: an event %s does not say %s", positions.Position(place.at), kind, want)
						}
					}
				}
			}
		}
	}
	for _, kind := range urgent {
		if !made[kind] {
			t.Errorf("nothing tells of %s", kind)
		}
	}
}

// maker is a literal, or a case, that names a kind.
type maker struct {
	at   token.Pos
	says map[string]bool // fields that are set there, in lower case
}

func makers(file *ast.File) map[string][]maker {
	found := map[string][]maker{}
	var around []ast.Node
	ast.Inspect(file, func(n ast.Node) bool {
		if n == nil {
			around = around[:len(around)-1]
			return true
		}
		around = append(around, n)
		name := ""
		switch x := n.(type) {
		case *ast.SelectorExpr:
			if from, ok := x.X.(*ast.Ident); ok && from.Name == "event" {
				name = x.Sel.Name
			}
		case *ast.KeyValueExpr: // in the package itself
			if key, ok := x.Key.(*ast.Ident); ok && key.Name == "Kind" {
				if value, ok := x.Value.(*ast.Ident); ok {
					name = value.Name
				}
			}
		}
		if !slices.Contains(urgent, name) {
			return true
		}
		for _, outer := range slices.Backward(around) {
			switch outer.(type) {
			case *ast.CompositeLit, *ast.CaseClause:
				found[name] = append(found[name], maker{n.Pos(), fields(outer)})
				return true
			}
		}
		return true
	})
	return found
}

func fields(within ast.Node) map[string]bool {
	set := map[string]bool{}
	ast.Inspect(within, func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.KeyValueExpr:
			if key, ok := x.Key.(*ast.Ident); ok {
				set[strings.ToLower(key.Name)] = true
			}
		case *ast.AssignStmt:
			for _, to := range x.Lhs {
				if field, ok := to.(*ast.SelectorExpr); ok {
					set[strings.ToLower(field.Sel.Name)] = true
				}
			}
		}
		return true
	})
	return set
}

// TestKindsOfTheManual: the manual lists the kinds of events as roamctl, the log and the metrics know them, in their order.
func TestKindsOfTheManual(t *testing.T) {
	text, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "| kind | what happened | what to do |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	var listed []event.Kind
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)`").FindAllStringSubmatch(table, -1) {
		listed = append(listed, event.Kind(m[1]))
	}
	if !found || !slices.Equal(listed, event.Kinds) {
		t.Errorf("the manual lists %q, there are %q", listed, event.Kinds)
	}
}
