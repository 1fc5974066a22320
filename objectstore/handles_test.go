package objectstore_test

import (
	"sync"
	"testing"

	wray "github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// TestBecome has a table become others again and again, while it is walked: what
// is seen is one of them or nothing, and no reference is kept.
func TestBecome(t *testing.T) {
	s, err := objectstore.New(objectstore.Config{Capacity: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	of := [2]*objectstore.Handles{objectstore.NewHandles(100), objectstore.NewHandles(100)}
	for i, n := range []int{3, 7} {
		for j := range n {
			o, err := s.TryPut(wray.ID{Owner: uint64(i), Seq: uint64(j)}, objectstore.Value{Encoding: abi.EncodingRaw, Payload: make([]byte, 8)})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := of[i].Add(o); err != nil {
				t.Fatal(err)
			}
		}
	}
	h := objectstore.NewHandles(100)
	var wait sync.WaitGroup
	wait.Go(func() {
		for i := range 200 {
			h.Become(of[i%2])
		}
	})
	for range 200 {
		n := 0
		h.Walk(func(uint32, objectstore.Ref, uint32) { n++ })
		if n != 0 && n != 3 && n != 7 {
			t.Errorf("%d handles", n)
		}
	}
	wait.Wait()
	if n := h.Len(); n != 7 {
		t.Errorf("%d handles at the end", n)
	}
	for _, t := range []*objectstore.Handles{h.Clone(), h, of[0], of[1]} {
		t.Reset()
	}
	if st := s.Stats(); st.Objects != 0 {
		t.Errorf("left: %+v", st)
	}
}
