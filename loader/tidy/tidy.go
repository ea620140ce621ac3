// Package tidy gives memory back to the kernel after much work at once.
package tidy

import (
	"math"
	"runtime/debug"
	"time"
)

// After is how long after the work. To decode a million routes leaves as much garbage as they need, and Go would keep it until as much is
// needed again. But a collection takes seconds of a small machine's processors, and each change that comes meanwhile waits tens of
// milliseconds for it: more than it waits for anything else. So the work, and what often comes on its heels, has to be over.
const After = 10 * time.Second

var collection = time.AfterFunc(math.MaxInt64, debug.FreeOSMemory)

// Later says that work has just been done that leaves much behind. It returns at once, and may be called from anywhere.
func Later() { collection.Reset(After) }
