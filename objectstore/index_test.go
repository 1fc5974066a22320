package objectstore

import (
	"testing"

	wray "github.com/wray-project/wray"
)

// TestIndexDying: an ID can be used again while the object that had it is
// being released, and its leaving does not take the new one along.
func TestIndexDying(t *testing.T) {
	var x index
	x.init()
	id := wray.ID{Owner: 1, Seq: 1}
	old, young := &Object{id: id}, &Object{id: id}
	old.refs.Store(1)
	young.refs.Store(1)
	if !x.add(old) || x.add(young) {
		t.Fatal("a live object's ID was given away, or not taken")
	}
	old.refs.Store(0)
	if x.lookup(id) != nil {
		t.Error("an object without references was found")
	}
	if !x.add(young) {
		t.Fatal("a dying object keeps its ID")
	}
	x.remove(old)
	x.remove(old)
	if got := x.lookup(id); got != young || x.len() != 1 {
		t.Errorf("found %p of %d: expected the new object %p", got, x.len(), young)
	}
}
