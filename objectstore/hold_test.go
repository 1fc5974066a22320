package objectstore

import (
	"testing"

	wray "github.com/wray-project/wray"
	"github.com/wray-project/wray/wasm/abi"
)

// TestHold stops puts and seals among very many references, of which none is
// left then, and lets others end.
func TestHold(t *testing.T) {
	s, err := New(Config{Capacity: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	seq := uint64(0)
	id := func() wray.ID { seq++; return wray.ID{Owner: 1, Seq: seq} }
	target, err := s.TryPut(id(), Value{Encoding: abi.EncodingRaw})
	if err != nil {
		t.Fatal(err)
	}
	pending, err := s.Declare(id())
	if err != nil {
		t.Fatal(err)
	}
	used := s.Stats().Used
	const n = 2*stepRefs + 1
	v := Value{Encoding: abi.EncodingRaw, Refs: make([]*Object, n)}
	for i := range v.Refs {
		v.Refs[i] = target
	}
	put := func() error {
		o, err := s.TryPut(id(), v)
		if err == nil {
			o.Release()
		}
		return err
	}
	seal := func() error { return pending.TrySeal(v) }
	for name, f := range map[string]func() error{"TryPut": put, "TrySeal": seal} {
		for at := range 2 {
			steps := 0
			v.Step = func() {
				if steps++; steps > at {
					panic("stop")
				}
			}
			func() {
				defer func() {
					if r := recover(); r != "stop" {
						t.Errorf("%s was not stopped at step %d: %v", name, at, r)
					}
				}()
				_ = f()
			}()
			if got := s.Stats().Used; target.References() != 1 || pending.Ready() || got != used {
				t.Errorf("%s stopped at step %d: %d references, %d bytes of %d, ready %v", name, at, target.References(), got, used, pending.Ready())
			}
		}
	}
	v.Step = func() {}
	if err := seal(); err != nil || target.References() != 1+n {
		t.Errorf("sealed: %v, %d references", err, target.References())
	}
	if err := seal(); err == nil || target.References() != 1+n {
		t.Errorf("sealed twice: %v, %d references", err, target.References())
	}
	full, err := s.TryReserve(Size{Payload: 7 << 20})
	if err != nil {
		t.Fatal(err)
	}
	v.Payload = make([]byte, 4<<20)
	if err := put(); err == nil || target.References() != 1+n {
		t.Errorf("put into a full store: %v, %d references", err, target.References())
	}
	full.Cancel()
	pending.Release()
	target.Release()
}
