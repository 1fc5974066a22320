package rt

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wray-project/wray"
)

// TestDialSilence connects to who says nothing, and to a node that is there and
// does not begin the session: both are told apart, and neither is waited for
// without end.
func TestDialSilence(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	wants := func(what string, err error, text string, code wray.Code) {
		t.Helper()
		e := (*wray.Error)(nil)
		if !errors.As(err, &e) || e.Code != code || e.Hint == "" || !strings.Contains(e.Message, text) {
			t.Errorf("%s: %v", what, err)
		}
	}
	real := answerTime
	defer func() { answerTime = real }()
	answerTime = 50 * time.Millisecond
	// The kernel takes the connection, and nobody reads.
	_, err = Dial(t.Context(), "unix://"+path, SessionOptions{})
	wants("nobody reads", err, path, wray.CodeTimeout)
	// A node that has answered, and has not begun when nobody waits any more.
	answers := make(chan struct{})
	close(answers)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := &Session{welcome: make(chan struct{}), ran: make(chan struct{}), lost: make(chan struct{})}
	err = s.awaitWelcome(ctx, "unix://"+path, answers)
	wants("it compiles", err, "has not begun the session", wray.CodeCanceled)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("it compiles: %v", err)
	}
}
