package worker

import (
	"strings"
	"testing"

	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// An argument that becomes ready between the two does not go with a message in
// which no room was counted for it.
func TestArgsReadyMeanwhile(t *testing.T) {
	w, p := deafWorker(t)
	put := func() *objectstore.Object {
		o, err := w.store.TryPut(w.newID(), objectstore.Value{Encoding: abi.EncodingCBOR, Payload: []byte(strings.Repeat("x", 100))})
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	late, err := w.store.Declare(w.newID())
	if err != nil {
		t.Fatal(err)
	}
	ready := put()
	fn := &function{name: "f", module: &module{name: "m"}}
	args := []arg{{object: late}, {object: ready}}
	if err := argsTravel(fn, args); err != nil {
		t.Fatal(err)
	}
	of := put()
	if err := late.SealAs(of); err != nil {
		t.Fatal(err)
	}
	of.Release()
	if b := w.peers.argFor(p, args[0]); b.Ref == nil || len(b.Value.Payload) > 0 {
		t.Errorf("one that is ready meanwhile: %+v", b)
	}
	if b := w.peers.argFor(p, args[1]); len(b.Value.Payload) != 100 {
		t.Errorf("one that was ready: %+v", b)
	}
	if err := argsTravel(fn, args); err != nil { // of the next attempt
		t.Fatal(err)
	}
	if b := w.peers.argFor(p, args[0]); len(b.Value.Payload) != 100 {
		t.Errorf("the next time: %+v", b)
	}
	w.PeerDown(7) // and gives its references back
	late.Release()
	ready.Release()
}
