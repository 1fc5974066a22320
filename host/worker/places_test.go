package worker

import (
	"testing"
	"time"

	"github.com/wray-project/wray"
)

// TestPlaces holds that beyond the limit a task waits until a place is free, or
// until all that have one wait, and that beyond half as many more it fails.
func TestPlaces(t *testing.T) {
	p := newPlaces(4)
	asked := make(chan struct{}, 16)
	took := make(chan *wray.Error, 16)
	take := func() { took <- p.take(func() { asked <- struct{}{} }) }
	for range 4 {
		if take(); <-took != nil {
			t.Fatal("no place below the limit")
		}
	}
	// taken returns what came of a take that has to wait, and now must not.
	taken := func(since string) *wray.Error {
		t.Helper()
		select {
		case err := <-took:
			return err
		case <-time.After(30 * time.Second):
			t.Fatalf("%s, and the task that waits for a place was not told: %d live, %d blocked", since, p.live, p.blocked.Load())
			return nil
		}
	}
	go take()
	<-asked
	p.give()
	if err := taken("a place was given back"); err != nil {
		t.Fatal(err)
	}
	go take()
	<-asked
	for range 3 {
		p.block(1)
	}
	select {
	case err := <-took:
		t.Fatalf("a place beyond the limit while one computes: %v", err)
	default:
	}
	p.block(1)
	if err := taken("all that have a place wait"); err != nil {
		t.Fatal(err)
	}
	p.block(1) // the fifth waits, too
	if take(); <-took != nil {
		t.Fatal("no sixth place while all wait")
	}
	p.block(1)
	take()
	if err := <-took; err == nil || err.Code != wray.CodeLimitExceeded || err.Limit.Flag != SandboxesFlag {
		t.Fatalf("a seventh place: %v", err)
	}
	for range 6 {
		p.block(-1)
		p.give()
	}
	if take(); <-took != nil || p.live != 1 || p.wanted() {
		t.Errorf("after all that: %d live, wanted %v", p.live, p.wanted())
	}
}
