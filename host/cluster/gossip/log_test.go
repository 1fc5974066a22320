package gossip

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// Packets of strangers do not fill the log.
func TestLogFlood(t *testing.T) {
	var out bytes.Buffer
	l, few := newLogger(slog.New(slog.NewTextHandler(&out, nil)))
	for i := range 100_000 {
		l.Printf("[ERR] memberlist: Decrypt packet failed: no installed keys could decrypt the message from=127.0.0.1:%d", i)
	}
	l.Printf("[WARN] memberlist: Refuting a suspect message (from: a)")
	few.Close()
	text := out.String()
	if n := strings.Count(text, "\n"); n != logMost+2 {
		t.Errorf("%d lines:\n%.2000s", n, text)
	}
	for _, want := range []string{fmt.Sprintf("and %d more like it", 100_000-logMost), "Refuting"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in the log:\n%s", want, text)
		}
	}
}
