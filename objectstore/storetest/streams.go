package storetest

import (
	"errors"
	"testing"

	wray "github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
)

// next reads an item, whose payload is returned as a string.
func next(t testing.TB, str *objectstore.Stream) string {
	t.Helper()
	o, err := str.Next()
	if err != nil {
		t.Fatal(err)
	}
	defer o.Release()
	return string(o.Bytes())
}

func item(t testing.TB, st *objectstore.Store, str *objectstore.Stream, index uint64, p string) {
	t.Helper()
	if err := st.PutItem(str, newID(), index, raw([]byte(p))); err != nil {
		t.Fatalf("item %d: %v", index, err)
	}
}

func testStream(t *testing.T, s Suite) {
	st := s.open(t, nil)
	id := newID()
	str := objectstore.NewStream(id, 0, func() { t.Error("a stream that ended was dropped") })
	if str.Task() != id {
		t.Errorf("task is %v", str.Task())
	}
	if _, err := str.Next(); !errors.Is(err, objectstore.ErrNotReady) {
		t.Errorf("next of an empty stream: %v", err)
	}
	item(t, st, str, 0, "zero")
	item(t, st, str, 1, "one")
	if got := next(t, str); got != "zero" {
		t.Errorf("item 0 is %q", got)
	}
	item(t, st, str, 2, "two")
	if err := str.End(); err != nil {
		t.Fatal(err)
	}
	if err := str.End(); !errors.Is(err, objectstore.ErrEnded) {
		t.Errorf("second end: %v", err)
	}
	if err := st.PutItem(str, newID(), 3, raw(nil)); !errors.Is(err, objectstore.ErrEnded) {
		t.Errorf("item after the end: %v", err)
	}
	if a, b := next(t, str), next(t, str); a != "one" || b != "two" {
		t.Errorf("items 1 and 2 are %q and %q", a, b)
	}
	for range 2 {
		if _, err := str.Next(); !errors.Is(err, wray.ErrEndOfStream) {
			t.Errorf("after the last: %v", err)
		}
	}
	str.Release()
}

func testStreamWindow(t *testing.T, s Suite) {
	st := s.open(t, nil)
	str := objectstore.NewStream(newID(), 2, nil)
	room := 0
	str.OnRoom(func() { room++ })
	if room != 1 {
		t.Errorf("told %d times of room that is there", room)
	}
	item(t, st, str, 0, "0")
	item(t, st, str, 1, "1")
	before := st.Stats().Objects
	if err := st.PutItem(str, newID(), 2, raw(nil)); !errors.Is(err, objectstore.ErrWindow) {
		t.Errorf("item beyond the window: %v", err)
	}
	if n := st.Stats().Objects; n != before {
		t.Errorf("a refused item is kept")
	}
	o := put(t, st, nil)
	if err := str.Append(2, o); !errors.Is(err, objectstore.ErrWindow) {
		t.Errorf("append beyond the window: %v", err)
	}
	str.OnRoom(func() {
		room++
		if err := str.Append(2, o); err != nil { // from within the reader's call
			t.Error(err)
		}
	})
	if room != 1 {
		t.Error("told of room that is not there")
	}
	for _, want := range []string{"0", "1", ""} {
		if got := next(t, str); got != want {
			t.Errorf("item %q: expected %q", got, want)
		}
	}
	if room != 2 {
		t.Errorf("told %d times: expected 2", room)
	}
	if err := str.End(); err != nil {
		t.Error(err)
	}
	str.Release()
}

func testStreamRetry(t *testing.T, s Suite) {
	st := s.open(t, nil)
	str := objectstore.NewStream(newID(), 2, nil)
	item(t, st, str, 0, "0")
	item(t, st, str, 1, "1")
	// The attempt dies. The next one starts over, and skips or repeats.
	if n := str.ItemsDone(); n != 2 {
		t.Errorf("%d items done: expected 2", n)
	}
	item(t, st, str, 0, "again") // full window or not
	o := put(t, st, []byte("again"))
	if err := str.Append(1, o); err != nil {
		t.Error(err)
	}
	if n := st.Stats().Objects; n != 2 {
		t.Errorf("%d objects: expected 2", n)
	}
	if got := next(t, str); got != "0" {
		t.Errorf("item 0 is %q", got)
	}
	p := put(t, st, nil)
	var e *wray.Error
	if err := str.Append(3, p); !errors.As(err, &e) || e.Code != wray.CodeInternal {
		t.Errorf("a gap: %v", err)
	}
	p.Release()
	item(t, st, str, 2, "2")
	if err := str.End(); err != nil {
		t.Error(err)
	}
	if a, b := next(t, str), next(t, str); a != "1" || b != "2" {
		t.Errorf("items 1 and 2 are %q and %q", a, b)
	}
	str.Release()
}

func testStreamFailure(t *testing.T, s Suite) {
	st := s.open(t, nil)
	str := objectstore.NewStream(newID(), 1, nil)
	item(t, st, str, 0, "0") // the window is full; a failure comes all the same
	if err := st.FailStream(str, newID(), wray.Errorf(wray.CodeTrap, "unreachable")); err != nil {
		t.Fatal(err)
	}
	if err := st.FailStream(str, newID(), wray.Errorf(wray.CodeTrap, "again")); !errors.Is(err, objectstore.ErrEnded) {
		t.Errorf("second failure: %v", err)
	}
	if got := next(t, str); got != "0" {
		t.Errorf("item 0 is %q", got)
	}
	o, err := str.Next()
	if err != nil {
		t.Fatal(err)
	}
	if !errors.Is(o.Err(), wray.ErrTrap) {
		t.Errorf("last item is %v", o.Err())
	}
	o.Release()
	if _, err := str.Next(); !errors.Is(err, wray.ErrEndOfStream) {
		t.Errorf("after the failure: %v", err)
	}
	str.Release()
}

func testStreamDrop(t *testing.T, s Suite) {
	st := s.open(t, nil)
	dropped, room := 0, 0
	str := objectstore.NewStream(newID(), 1, func() { dropped++ })
	str.Retain()
	item(t, st, str, 0, "0")
	str.OnRoom(func() { room++ })
	h := str.Watch(&streamCounter{})
	str.Release()
	if dropped != 0 {
		t.Error("dropped while somebody can read")
	}
	str.Release()
	if dropped != 1 || room != 1 {
		t.Errorf("drop told %d times, the waiting producer %d times", dropped, room)
	}
	if h.Cancel() {
		t.Error("the watch of a dropped stream was there to cancel")
	}
	if n := st.Stats().Objects; n != 0 {
		t.Errorf("%d unread items are kept", n)
	}
	if err := st.PutItem(str, newID(), 1, raw(nil)); !errors.Is(err, objectstore.ErrDropped) {
		t.Errorf("item for a dropped stream: %v", err)
	}
	if err := st.FailStream(str, newID(), wray.Errorf(wray.CodeCanceled, "")); err != nil {
		t.Errorf("failure of a dropped stream: %v", err)
	}
	str.OnRoom(func() { room++ })
	if room != 2 {
		t.Error("a producer waits for a dropped stream")
	}
	wantPanic(t, "Retain of a dropped stream", str.Retain)
}

type streamCounter struct{ n int }

func (c *streamCounter) StreamReady(*objectstore.Stream) { c.n++ }

func testStreamWatch(t *testing.T, s Suite) {
	st := s.open(t, nil)
	str := objectstore.NewStream(newID(), 0, nil)
	var a, b, c streamCounter
	str.Watch(&a)
	hb := str.Watch(&b)
	if !hb.Cancel() || hb.Cancel() {
		t.Error("a watch is canceled once")
	}
	item(t, st, str, 0, "0")
	item(t, st, str, 1, "1")
	if a.n != 1 || b.n != 0 {
		t.Errorf("told %d and %d times: expected once and never", a.n, b.n)
	}
	if h := str.Watch(&c); h != nil || c.n != 1 {
		t.Errorf("watch of a stream with items: told %d times", c.n)
	}
	next(t, str)
	next(t, str)
	str.Watch(&a)
	if err := str.End(); err != nil {
		t.Error(err)
	}
	if a.n != 2 {
		t.Error("not told of the end")
	}
	if str.Watch(&a) != nil || a.n != 3 {
		t.Error("watch after the end")
	}
	str.Release()
}
