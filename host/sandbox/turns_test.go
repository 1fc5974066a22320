package sandbox

import (
	"testing"
	"time"

	"github.com/wray-project/wray"
)

// TestKilledKeepsTurn: a sandbox that was killed just before it would pass its
// turn on has only to end, and does not queue behind others: whoever killed it
// looked for it in the queue and did not find it there.
func TestKilledKeepsTurn(t *testing.T) {
	g := newGate(1, 0)
	first, other := &Sandbox{turn: make(chan struct{}, 1)}, &Sandbox{turn: make(chan struct{}, 1)}
	g.enter(first, false)
	g.fresh.push(other)
	g.waiting.Add(1)
	first.killed.Store(&stop{err: wray.Errorf(wray.CodeCanceled, "canceled")})
	back := make(chan struct{})
	go func() {
		g.yield(first)
		close(back)
	}()
	select {
	case <-back:
	case <-time.After(10 * time.Second):
		t.Error("it waits for another turn")
		g.hurry(first)
		<-back
	}
	g.leave()
	select {
	case <-other.turn:
	default:
		t.Error("nobody has the turn that it gave up")
	}
}
