package sandbox

import (
	"testing"

	"github.com/wray-project/wray/wasm/abi"
)

// TestEvents holds that an event which says no more than its kind lies in the
// queue once, and comes again after it was read; those with arguments all come.
func TestEvents(t *testing.T) {
	var q eventQueue
	buf := make([]byte, 8*abi.EventSize)
	push := func(events ...Event) (n int) {
		for _, e := range events {
			q.push(e)
		}
		return q.len()
	}
	space, room := Event{Kind: abi.EventSpace}, Event{Kind: abi.EventRoom}
	ready := Event{Kind: abi.EventReady, Handle: 7}
	for range 3 {
		if n := push(space, ready, space, room, ready, room); n != 4 {
			t.Fatalf("%d events are there, want SPACE and ROOM once, READY twice", n)
		}
		if n := q.take(buf[:abi.EventSize]); n != abi.EventSize { // SPACE
			t.Fatalf("%d bytes were read", n)
		}
		if n := push(space, room); n != 4 {
			t.Fatalf("SPACE came again after it was read, ROOM was not read: %d events are there, want 4", n)
		}
		if n := q.take(buf); n != 4*abi.EventSize || !q.empty() {
			t.Fatalf("%d bytes were read", n)
		}
	}
	push(space, ready)
	if q.clear(); push(space) != 1 {
		t.Errorf("after clear %d events are there, want the one that came since", q.len())
	}
}
