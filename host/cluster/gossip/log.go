package gossip

import (
	"bytes"
	"context"
	"log"
	"log/slog"
)

// newLogger returns a logger of serf's kind whose warnings and errors go to l.
func newLogger(l *slog.Logger) *log.Logger { return log.New(logWriter{l}, "", 0) }

// logWriter reads the levels that serf and memberlist write into their lines.
type logWriter struct{ log *slog.Logger }

// Write implements io.Writer.
func (w logWriter) Write(p []byte) (int, error) {
	if w.log == nil {
		return len(p), nil
	}
	for _, l := range []struct {
		mark  string
		level slog.Level
	}{{"[ERR] ", slog.LevelError}, {"[WARN] ", slog.LevelWarn}} {
		if rest, ok := bytes.CutPrefix(p, []byte(l.mark)); ok {
			w.log.Log(context.Background(), l.level, string(bytes.TrimSpace(rest)))
		}
	}
	return len(p), nil
}
