package etcdstore

import (
	"context"
	"log/slog"
	"sync/atomic"

	"go.uber.org/zap/zapcore"
)

// slogCore has etcd's warnings and errors logged by a slog.Logger. What is less
// is dropped: etcd tells of each start in forty lines.
type slogCore struct {
	log      *slog.Logger // nil drops everything
	stopping *atomic.Bool // listeners that were closed are no errors any more
}

// noise is what etcd takes for an error and is none.
var noise = map[string]bool{
	// Of each new etcd, until it has made its first snapshot.
	"failed to update storage version": true,
	"Failed to detect schema version":  true,
	// It listens for no clients, so nobody logs in, and nothing is signed.
	"Running http and grpc server on single port. This is not recommended for production.": true,
	"simple token is not cryptographically signed":                                         true,
}

func (c slogCore) Enabled(l zapcore.Level) bool {
	return c.log != nil && l >= zapcore.WarnLevel && !c.stopping.Load()
}

func (c slogCore) With(fields []zapcore.Field) zapcore.Core {
	if c.log == nil {
		return c
	}
	return slogCore{log: c.log.With(attrs(fields)...), stopping: c.stopping}
}

func (c slogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) && !noise[e.Message] {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	level := slog.LevelWarn
	if e.Level > zapcore.WarnLevel {
		level = slog.LevelError
	}
	c.log.Log(context.Background(), level, "control state: "+e.Message, attrs(fields)...)
	return nil
}

func (slogCore) Sync() error { return nil }

func attrs(fields []zapcore.Field) []any {
	enc := zapcore.NewMapObjectEncoder()
	var out []any
	for _, f := range fields {
		f.AddTo(enc)
		if v, ok := enc.Fields[f.Key]; ok {
			out = append(out, slog.Any(f.Key, v))
		}
	}
	return out
}
