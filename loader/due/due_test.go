package due

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

type member struct {
	Turn
	name int
}

// A queue is compared with a list that is sorted each time.
func TestQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q Queue[*member]
		members := make([]*member, 8)
		for i := range members {
			members[i] = &member{name: i}
		}
		var twin []*member
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			m := members[rapid.IntRange(0, len(members)-1).Draw(t, "member")]
			if rapid.Bool().Draw(t, "put") {
				m.Due = time.Unix(rapid.Int64Range(0, 20).Draw(t, "due"), int64(m.name)) // no two alike
				q.Put(m)
				if !slices.Contains(twin, m) {
					twin = append(twin, m)
				}
			} else {
				q.Remove(m)
				twin = slices.DeleteFunc(twin, func(x *member) bool { return x == m })
			}
			slices.SortFunc(twin, func(a, b *member) int { return a.Due.Compare(b.Due) })
			var first *member
			if len(twin) > 0 {
				first = twin[0]
			}
			if q.First() != first || q.Len() != len(twin) || m.Waits() != slices.Contains(twin, m) {
				t.Fatalf("first is %v of %d, want %v of %d", q.First(), q.Len(), first, len(twin))
			}
		}
	})
}
