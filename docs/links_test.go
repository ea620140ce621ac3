package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	fenced  = regexp.MustCompile("(?s)```.*?```")
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.*)$`)
	unsaid  = regexp.MustCompile(`[^\p{L}\p{N}_\- ]`) // what an anchor leaves out of its heading
)

// TestLinks follows every link from one page of the project to another, or to a heading.
func TestLinks(t *testing.T) {
	root := os.DirFS("..")
	pages := map[string]string{}
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".md" {
			var text []byte
			text, err = fs.ReadFile(root, path)
			pages[path] = fenced.ReplaceAllString(string(text), "")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	followed := 0
	for page, text := range pages {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			file, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(m[1], ":") {
				continue // elsewhere
			}
			to := page
			if file != "" {
				to = filepath.Join(filepath.Dir(page), file)
			}
			if _, err := fs.Stat(root, to); err != nil {
				t.Errorf("%s links to %s, which is not there", page, m[1])
			} else if anchor != "" && !anchors(pages[to])[anchor] {
				t.Errorf("%s links to %s, where no heading is called so", page, m[1])
			}
			followed++
		}
	}
	if followed < 30 {
		t.Errorf("only %d links were found", followed)
	}
}

// TestTestsThatAreNamed looks for every test that a page calls as a witness.
func TestTestsThatAreNamed(t *testing.T) {
	root := os.DirFS("..")
	there, named := map[string]bool{}, map[string]string{}
	function, name := regexp.MustCompile(`(?m)^func (Test[A-Z]\w*)\(`), regexp.MustCompile(`\bTest[A-Z]\w*`)
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".md" && !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := fs.ReadFile(root, path)
		for _, m := range function.FindAllSubmatch(text, -1) {
			there[string(m[1])] = true
		}
		if filepath.Ext(path) == ".md" {
			for _, m := range name.FindAll(text, -1) {
				named[string(m)] = path
			}
		}
		return err
	})
	if err != nil || len(named) < 10 {
		t.Fatalf("%d tests are named (%v)", len(named), err)
	}
	for test, page := range named {
		if !there[test] {
			t.Errorf("%s names %s, which is not there", page, test)
		}
	}
}

func anchors(text string) map[string]bool {
	all := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		all[strings.ReplaceAll(unsaid.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")] = true
	}
	return all
}
