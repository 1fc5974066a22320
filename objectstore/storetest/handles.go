package storetest

import (
	"errors"
	"slices"
	"testing"

	wray "github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
)

func testHandles(t *testing.T, s Suite) {
	st := s.open(t, nil)
	tab := objectstore.NewHandles(0)
	add := func(r objectstore.Ref) uint32 {
		h, err := tab.Add(r)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	a, b := put(t, st, []byte("a")), put(t, st, []byte("b"))
	str := objectstore.NewStream(newID(), 0, nil)
	ha, hb, hs := add(a), add(b), add(str)
	if got := []uint32{ha, hb, hs}; !slices.Equal(got, []uint32{1, 2, 3}) {
		t.Errorf("handles %v: expected small and positive", got)
	}
	if o, ok := tab.Object(ha); !ok || o != a {
		t.Error("Object of an object's handle")
	}
	if x, ok := tab.Stream(hs); !ok || x != str {
		t.Error("Stream of a stream's handle")
	}
	if r, ok := tab.Get(hb); !ok || r != objectstore.Ref(b) {
		t.Error("Get of a handle")
	}
	if _, ok := tab.Object(hs); ok {
		t.Error("a stream's handle gives an object")
	}
	if _, ok := tab.Stream(ha); ok {
		t.Error("an object's handle gives a stream")
	}
	for _, h := range []uint32{0, 4, 1 << 31, 1<<32 - 1} {
		_, got := tab.Get(h)
		_, object := tab.Object(h)
		_, stream := tab.Stream(h)
		_, dup, _ := tab.Dup(h)
		_, take := tab.Take(h)
		if got || object || stream || dup || take || tab.Drop(h) || tab.Tag(h) != 0 {
			t.Errorf("%d is a handle", h)
		}
	}

	ha2, ok, err := tab.Dup(ha)
	if !ok || err != nil || ha2 == ha {
		t.Fatalf("dup: %d, %v, %v", ha2, ok, err)
	}
	if !tab.Drop(ha) || tab.Drop(ha) {
		t.Error("a handle is dropped once")
	}
	if o, ok := tab.Object(ha2); !ok || string(o.Bytes()) != "a" {
		t.Error("a duplicate does not hold its object")
	}
	if bad := tab.DropAll([]uint32{ha2, ha2, 77}); bad != 2 {
		t.Errorf("%d bad handles: expected 2", bad)
	}
	if n := st.Stats().Objects; n != 1 || tab.Len() != 2 {
		t.Errorf("%d objects, %d handles: expected 1 and 2", n, tab.Len())
	}
	r, ok := tab.Take(hb)
	if !ok || string(r.(*objectstore.Object).Bytes()) != "b" {
		t.Error("what was taken out is not usable")
	}
	r.Release()

	for range 5000 {
		add(put(t, st, nil))
	}
	tab.Reset()
	if n := st.Stats().Objects; n != 0 || tab.Len() != 0 {
		t.Errorf("after Reset: %d objects, %d handles", n, tab.Len())
	}
	if h := add(put(t, st, nil)); h != 1 {
		t.Errorf("first handle after Reset is %d", h)
	}
	tab.Reset()
	tab.Reset()
}

func testHandlesLimit(t *testing.T, s Suite) {
	st := s.open(t, nil)
	tab := objectstore.NewHandles(3)
	for range 3 {
		if _, err := tab.Add(put(t, st, nil)); err != nil {
			t.Fatal(err)
		}
	}
	check := func(err error) {
		t.Helper()
		var e *wray.Error
		if !errors.As(err, &e) || e.Code != wray.CodeLimitExceeded || e.Limit.Value != 3 ||
			e.Limit.Flag != objectstore.HandlesFlag {
			t.Errorf("error of a full table: %v", err)
		}
	}
	o := put(t, st, nil)
	_, err := tab.Add(o)
	check(err)
	o.Release() // still ours
	_, _, err = tab.Dup(1)
	check(err)
	tab.Drop(2)
	if _, ok, err := tab.Dup(1); !ok || err != nil {
		t.Errorf("dup into a table with room: %v, %v", ok, err)
	}

	// All or none: of two objects neither gets the one handle there is room for.
	tab.Drop(3)
	two := []*objectstore.Object{put(t, st, nil), put(t, st, nil)}
	check(tab.AddAll(two, func(int, uint32) { t.Error("a handle was made") }))
	if tab.Len() != 2 {
		t.Errorf("%d handles: expected the 2 there were", tab.Len())
	}
	tab.Drop(1)
	got := map[uint32]int{}
	if err := tab.AddAll(two, func(i int, h uint32) { got[h] = i }); err != nil || len(got) != 2 {
		t.Errorf("into a table with room: %v, %v", got, err)
	}
	for _, o := range two {
		o.Release() // the handles have references of their own
	}
	for h, i := range got {
		if o, ok := tab.Object(h); !ok || o != two[i] {
			t.Errorf("handle %d is not of object %d", h, i)
		}
	}
	tab.Reset()
	if n := st.Stats().Objects; n != 0 {
		t.Errorf("%d objects are left", n)
	}
}

func testHandleTags(t *testing.T, s Suite) {
	st := s.open(t, nil)
	tab := objectstore.NewHandles(0)
	h, err := tab.Add(put(t, st, nil))
	if err != nil {
		t.Fatal(err)
	}
	tag := tab.Tag(h)
	if !tab.Live(h, tag) {
		t.Error("a handle in use is not live")
	}
	tab.Drop(h)
	if tab.Live(h, tag) {
		t.Error("a dropped handle is live")
	}
	again, err := tab.Add(put(t, st, nil))
	if err != nil || again != h {
		t.Fatalf("handle %d: expected the number %d again; %v", again, h, err)
	}
	if tab.Live(h, tag) {
		t.Error("another use of the number is taken for the first")
	}
	tab.Reset()
	if _, err := tab.Add(put(t, st, nil)); err != nil {
		t.Fatal(err)
	}
	if tab.Live(h, tag) || tab.Tag(h) == tag {
		t.Error("a use after Reset is taken for one before")
	}
	// A clone goes on where the table was, with its tags, too.
	c := tab.Clone()
	old := c.Tag(h)
	c.Drop(h)
	if again, err := c.Add(put(t, st, nil)); err != nil || again != h {
		t.Fatalf("handle %d of a clone: expected the number %d again; %v", again, h, err)
	}
	if c.Live(h, old) || c.Live(h, tag) || !tab.Live(h, old) {
		t.Error("a handle made in a clone is taken for one that was cloned, or has changed the table")
	}
	c.Reset()
	tab.Reset()
}
