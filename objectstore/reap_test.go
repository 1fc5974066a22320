package objectstore

import (
	"testing"

	wray "github.com/wray-project/wray"
)

// TestReapIsBounded: a release does so much work and no more at a time,
// however long the chain or wide the object.
func TestReapIsBounded(t *testing.T) {
	s, err := New(Config{Heap: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	seq := uint64(0)
	put := func(refs ...*Object) *Object {
		seq++
		v := raw(nil)
		v.Refs = refs
		o, err := s.TryPut(wray.ID{Owner: 1, Seq: seq}, v)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range refs {
			r.Release()
		}
		return o
	}
	head := put()
	for range 99 {
		head = put(head)
	}
	leaves := make([]*Object, 50)
	for i := range leaves {
		leaves[i] = put()
	}
	head = put(append(leaves, head)...)
	if head.refs.Add(-1) != 0 {
		t.Fatal("the head is held")
	}
	// 151 objects and 150 references are 301 steps.
	left, steps := head, 0
	for left != nil {
		before := s.index.len()
		left = s.reapSome(left, 10)
		if freed := before - s.index.len(); freed > 10 {
			t.Fatalf("10 steps freed %d objects", freed)
		}
		steps++
	}
	if steps != 31 || s.index.len() != 0 || s.Stats().Used != 0 {
		t.Errorf("%d batches of 10 steps left %d objects and %d bytes: expected 31, none, none",
			steps, s.index.len(), s.Stats().Used)
	}
}
