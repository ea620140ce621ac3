package bgp

import (
	"context"
	"log/slog"
)

// quiet makes of the library's errors warnings, of its other words what is of interest to who looks for something, and
// of what it says while it is stopped nothing: who is up and who is not is told by us.
type quiet struct {
	slog.Handler
	done <-chan struct{}
}

func (q quiet) Enabled(ctx context.Context, l slog.Level) bool {
	select {
	case <-q.done:
		return false
	default:
		return l >= slog.LevelInfo && q.Handler.Enabled(ctx, lower(l))
	}
}

func lower(l slog.Level) slog.Level {
	if l >= slog.LevelError {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	r.Level = lower(r.Level)
	return q.Handler.Handle(ctx, r)
}

func (q quiet) WithAttrs(a []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(a), q.done} }

func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name), q.done} }
