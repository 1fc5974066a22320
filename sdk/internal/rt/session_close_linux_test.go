package rt

import (
	"context"
	"errors"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/wasm/abi"
)

// TestClosedSession holds that what a program asks for after it has closed its
// session fails: its own functions run in a sandbox of the node or nowhere.
func TestClosedSession(t *testing.T) {
	control, theirs, err := link.Pair(clientwire.SessionOptions())
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	conn, theirs, err := link.Pair(clientwire.SessionOptions())
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	s := &Session{control: control, conn: conn, ran: make(chan struct{}), lost: make(chan struct{}), wake: make(chan struct{}, 1),
		calls: map[uint32]*request{}, numbers: map[[2]string]uint32{{"", "known"}: 1}}
	close(s.ran)
	defaultSession.Store(s)
	defer defaultSession.Store(nil)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	ctx := context.Background()
	wants := func(what string, err error) {
		t.Helper()
		if e := (*wray.Error)(nil); !errors.As(err, &e) || e.Code != wray.CodeCanceled || e.Message != errClosed.Message {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err = Lookup(ctx, nil, "", "unknown")
	wants("lookup", err)
	_, err = Put(ctx, &Value{Encoding: abi.EncodingRaw, Data: []byte("x")})
	wants("put", err)
	_, err = LookupActor("a")
	wants("an actor", err)
	_, err = SessionOf(ctx).submit(ctx, &Spec{NumResults: 1}, nil)
	wants("submit", err)
	if Known(ctx, nil) {
		t.Error("numbers of functions are those of this process")
	}
}
