package gossip

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"time"

	"github.com/wray-project/wray/internal/fewer"
)

// Anybody can send what has serf complain: of each kind of complaint so many are
// logged in a window, and how many were not.
const (
	logMost   = 5
	logWindow = 10 * time.Second
)

// newLogger returns a logger of serf's kind whose warnings and errors go to l,
// and what is to be closed with it.
func newLogger(l *slog.Logger) (*log.Logger, *fewer.Log) {
	few := fewer.New(logMost, logWindow)
	return log.New(logWriter{l, few}, "", 0), few
}

// logWriter reads the levels that serf and memberlist write into their lines.
type logWriter struct {
	log *slog.Logger
	few *fewer.Log
}

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
			text := string(bytes.TrimSpace(rest))
			w.few.Write(kind(text), func(more string) { w.log.Log(context.Background(), l.level, text+more) })
		}
	}
	return len(p), nil
}

// kind is what lines about different senders have in common: who speaks, and the
// next three words.
func kind(text string) string {
	words := bytes.Fields([]byte(text))
	return string(bytes.Join(words[:min(len(words), 4)], []byte(" ")))
}
