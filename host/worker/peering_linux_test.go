package worker

import (
	"context"
	"errors"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/link"
)

// What the way to a peer has to say is not about the object: who reads it asks
// again, until an event says that the peer is gone, and then makes it anew. What
// the peer's worker says is final.
func TestFetchErrors(t *testing.T) {
	node, conn := ends(t)
	codes := make(chan wray.Code, 2)
	codes <- wray.CodeWorkerDied
	codes <- wray.CodeObjectLost
	go node.Serve(t.Context(), func(_ context.Context, m link.Message) (link.Message, error) {
		return link.Message{}, wray.Errorf(<-codes, "as it is said")
	})
	go conn.Serve(t.Context(), func(context.Context, link.Message) (link.Message, error) { return link.Message{}, nil })
	p := &nodePeering{conn: conn}
	var e *wray.Error
	if err := p.Fetch(t.Context(), 1, wray.ID{Owner: 1, Seq: 1}, 0, make([]byte, 4)); err == nil || errors.As(err, &e) {
		t.Errorf("of a peer that is gone: %v, want an error that is not the object's", err)
	}
	if err := p.Fetch(t.Context(), 1, wray.ID{Owner: 1, Seq: 1}, 0, make([]byte, 4)); !errors.As(err, &e) || e.Code != wray.CodeObjectLost {
		t.Errorf("of an object that its worker has not: %v, want ObjectLost", err)
	}
}
