// Package docs holds the manual's pages that the daemon reads itself, so that what it advises is what is written.
package docs

import (
	_ "embed"
	"regexp"
	"strings"
)

//go:embed reasons.md
var reasons string

// Reasons returns, by a reason's name, what its line in reasons.md says in the last column: the usual cause, and what to do.
func Reasons() map[string]string {
	advice := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\| .* \\| (.*) \\|$").FindAllStringSubmatch(reasons, -1) {
		advice[m[1]] = strings.ReplaceAll(m[2], "`", "'")
	}
	return advice
}
