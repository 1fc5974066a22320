package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	wray "github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

func testPutGet(t *testing.T, s Suite) {
	st := s.open(t, capacity(256<<20))
	lengths := []int{0, 1, 8, 31, 32, 33, 63, 64, 1000, objectstore.InlineMax - 1, objectstore.InlineMax,
		objectstore.InlineMax + 1, 1 << 20, 1<<20 + 1, 1<<20 + 64<<10 + 5, 9<<20 + 123}
	for i, n := range lengths {
		want := pattern(uint64(i), n)
		v := objectstore.Value{Encoding: abi.EncodingNumeric, Meta: uint32(abi.ElemU8), Payload: bytes.Clone(want)}
		id := newID()
		o, err := st.TryPut(id, v)
		if err != nil {
			t.Fatal(err)
		}
		clear(v.Payload) // the store has a copy
		wantBytes(t, fmt.Sprintf("object of %d bytes", n), o.Bytes(), want)
		got, exp := o.Info(), objectstore.Info{
			Encoding: abi.EncodingNumeric, Meta: uint32(abi.ElemU8), Len: int64(n),
			Mappable: s.Map != nil && n >= objectstore.InlineMax,
		}
		if got != exp || o.ID() != id || o.State() != objectstore.Sealed || !o.Ready() || o.Err() != nil {
			t.Errorf("object of %d bytes is %+v, %v, %v: expected %+v", n, got, o.ID(), o.State(), exp)
		}
		o.Release()
	}
}

func testBadValues(t *testing.T, s Suite) {
	st := s.open(t, nil)
	for name, v := range map[string]objectstore.Value{
		"encoding 0":      {},
		"encoding 6":      {Encoding: 6},
		"meta with RAW":   {Encoding: abi.EncodingRaw, Meta: 1},
		"no element":      {Encoding: abi.EncodingNumeric},
		"unknown element": {Encoding: abi.EncodingNumeric, Meta: 11},
		"half an element": {Encoding: abi.EncodingNumeric, Meta: uint32(abi.ElemF64), Payload: make([]byte, 12)},
	} {
		if _, err := st.TryPut(newID(), v); !errors.Is(err, wray.ErrBadArgument) {
			t.Errorf("%s: put says %v: expected BadArgument", name, err)
		}
		o := declare(t, st)
		if err := o.TrySeal(v); !errors.Is(err, wray.ErrBadArgument) {
			t.Errorf("%s: seal says %v: expected BadArgument", name, err)
		}
		o.Release()
	}
	x := put(t, st, nil)
	defer x.Release()
	many := raw(nil, slices.Repeat([]*objectstore.Object{x}, objectstore.MaxRefs+1)...)
	if _, err := st.TryPut(newID(), many); !errors.Is(err, wray.ErrLimitExceeded) {
		t.Errorf("too many references: %v: expected LimitExceeded", err)
	}
}

func testDeclare(t *testing.T, s Suite) {
	st := s.open(t, nil)
	o := declare(t, st)
	if o.State() != objectstore.Pending || o.Ready() {
		t.Errorf("declared object is %v", o.State())
	}
	if _, err := st.Declare(o.ID()); !errors.Is(err, objectstore.ErrExists) {
		t.Errorf("declared twice: %v", err)
	}
	if _, err := st.TryPut(o.ID(), raw([]byte("x"))); !errors.Is(err, objectstore.ErrExists) {
		t.Errorf("put over a declared one: %v", err)
	}
	want := pattern(1, 100_000)
	if err := o.TrySeal(raw(want)); err != nil {
		t.Fatal(err)
	}
	wantBytes(t, "sealed object", o.Bytes(), want)
	id := o.ID()
	o.Release()
	again, err := st.Declare(id)
	if err != nil {
		t.Fatalf("declare after the object of that ID went: %v", err)
	}
	again.Release() // pending, dropped by everybody
}

func testFirstResultStands(t *testing.T, s Suite) {
	st := s.open(t, nil)
	o := declare(t, st)
	defer o.Release()
	if err := o.TrySeal(raw([]byte("first"))); err != nil {
		t.Fatal(err)
	}
	if err := o.TrySeal(raw([]byte("second"))); !errors.Is(err, objectstore.ErrSealed) {
		t.Errorf("sealed twice: %v", err)
	}
	if err := o.Fail(wray.Errorf(wray.CodeTrap, "late")); !errors.Is(err, objectstore.ErrSealed) {
		t.Errorf("failed after seal: %v", err)
	}
	r, err := st.TryReserve(objectstore.Size{Payload: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Seal(o, raw(make([]byte, 100_000))); !errors.Is(err, objectstore.ErrSealed) {
		t.Errorf("sealed from a reservation after seal: %v", err)
	}
	wantBytes(t, "object", o.Bytes(), []byte("first"))
}

func testFail(t *testing.T, s Suite) {
	st := s.open(t, nil)
	want := &wray.Error{
		Code: wray.CodeUserError, Message: "no such file", Task: "count", Attempt: 2, Trace: "main.go:1",
		Sentinels: []string{"fs.ErrNotExist"},
		Limit:     &wray.Limit{Name: "memory", Value: 5, Unit: "bytes"},
		Cause:     wray.Errorf(wray.CodeTimeout, "too late"),
	}
	o := declare(t, st)
	if err := o.Fail(want); err != nil {
		t.Fatal(err)
	}
	got := o.Err()
	if o.State() != objectstore.Failed || got.Error() != want.Error() || got.Trace != want.Trace ||
		!slices.Equal(got.Sentinels, want.Sentinels) || !errors.Is(got, wray.ErrTimeout) {
		t.Errorf("failure is %v %+v: expected %+v", o.State(), got, want)
	}

	// A failure that a task gives as a value is a failure too.
	p := declare(t, st)
	if err := p.TrySeal(objectstore.Value{Encoding: abi.EncodingError, Payload: o.Bytes()}); err != nil {
		t.Fatal(err)
	}
	if p.State() != objectstore.Failed || p.Err().Message != want.Message {
		t.Errorf("error value: %v %v", p.State(), p.Err())
	}

	// And one that is garbage still says something.
	q := declare(t, st)
	if err := q.TrySeal(objectstore.Value{Encoding: abi.EncodingError, Payload: []byte{0xff, 0x00}}); err != nil {
		t.Fatal(err)
	}
	if err := q.Err(); err == nil || err.Code != wray.CodeInternal {
		t.Errorf("garbage error value: %v", err)
	}

	// Text without bound is cut, and still encodes.
	r := declare(t, st)
	huge := &wray.Error{Code: wray.CodePanic, Message: strings.Repeat("\xffé", 1<<20), Trace: strings.Repeat("\xfe", 1<<20)}
	for range 100 {
		huge = &wray.Error{Code: wray.CodePanic, Message: huge.Message, Trace: huge.Trace, Hint: huge.Message,
			Task: huge.Message, Node: huge.Message, Sentinels: make([]string, 1000), Cause: huge}
	}
	if err := r.Fail(huge); err != nil {
		t.Fatal(err)
	}
	if n := r.Info().Len; n >= objectstore.InlineMax || r.Err().Code != wray.CodePanic {
		t.Errorf("huge failure takes %d bytes and reads as %v", n, r.Err().Code)
	}
	for _, x := range []*objectstore.Object{o, p, q, r} {
		x.Release()
	}
}

func testFailInAFullStore(t *testing.T, s Suite) {
	st := s.open(t, capacity(64<<10))
	full := put(t, st, make([]byte, 60<<10))
	o := declare(t, st)
	if err := o.TrySeal(raw(make([]byte, 10<<10))); !errors.Is(err, objectstore.ErrFull) {
		t.Fatalf("seal in a full store: %v", err)
	}
	if o.State() != objectstore.Pending {
		t.Fatalf("refused object is %v", o.State())
	}
	if err := o.Fail(&wray.Error{Code: wray.CodePanic, Message: strings.Repeat("x", 10<<10)}); err != nil {
		t.Errorf("fail in a full store: %v", err)
	}
	o.Release()
	full.Release()
}

func testLookup(t *testing.T, s Suite) {
	st := s.open(t, nil)
	var objects []*objectstore.Object
	for i := range 10_000 {
		objects = append(objects, put(t, st, fmt.Append(nil, i)))
	}
	if n := st.Stats().Objects; n != len(objects) {
		t.Errorf("%d objects: expected %d", n, len(objects))
	}
	for i, o := range objects {
		got := st.Lookup(o.ID())
		if got != o {
			t.Fatalf("object %d is not found", i)
		}
		got.Release()
		o.Release()
		if st.Lookup(o.ID()) != nil {
			t.Fatalf("object %d is found after its end", i)
		}
	}
	if st.Lookup(wray.ID{Owner: 99, Seq: 1}) != nil {
		t.Error("found what was never there")
	}
}

func testMisuse(t *testing.T, s Suite) {
	st := s.open(t, nil)
	o := declare(t, st)
	wantPanic(t, "Bytes of a pending object", func() { o.Bytes() })
	wantPanic(t, "Pin of a pending object", func() { _, _ = o.Pin() })
	if err := o.TrySeal(raw(nil)); err != nil {
		t.Fatal(err)
	}
	o.Release()
	wantPanic(t, "Bytes of a released object", func() { o.Bytes() })
	wantPanic(t, "Retain of a released object", o.Retain)

	other := s.open(t, nil)
	foreign := put(t, other, nil)
	wantPanic(t, "reference to another store", func() { _, _ = st.TryPut(newID(), raw(nil, foreign)) })
	foreign.Release()
}

// counter counts notifications.
type counter struct{ n int }

func (c *counter) ObjectReady(*objectstore.Object) { c.n++ }

func testWatch(t *testing.T, s Suite) {
	st := s.open(t, nil)
	o := declare(t, st)
	var order []int
	for i := range 5 {
		o.Watch(objectstore.WatcherFunc(func(got *objectstore.Object) {
			if got != o || !o.Ready() {
				t.Errorf("watch %d is told of %v, which is %v", i, got.ID(), got.State())
			}
			// No lock is held: the store can be used.
			x := put(t, st, []byte("from a callback"))
			x.Release()
			got.Watch(objectstore.WatcherFunc(func(*objectstore.Object) { order = append(order, 100+i) }))
			order = append(order, i)
		}))
	}
	if len(order) != 0 {
		t.Fatalf("told while pending: %v", order)
	}
	if err := o.TrySeal(raw([]byte("x"))); err != nil {
		t.Fatal(err)
	}
	if want := []int{100, 0, 101, 1, 102, 2, 103, 3, 104, 4}; !slices.Equal(order, want) {
		t.Errorf("told in order %v: expected %v", order, want)
	}
	var c counter
	if h := o.Watch(&c); h != nil || c.n != 1 || h.Cancel() {
		t.Errorf("watch of a sealed object: told %d times, handle %v", c.n, h)
	}
	o.Release()

	f := declare(t, st)
	f.Watch(&c)
	if err := f.Fail(wray.Errorf(wray.CodeTrap, "x")); err != nil || c.n != 2 {
		t.Errorf("watch of a failed object: told %d times, %v", c.n-1, err)
	}
	f.Release()
}

func testWatchCancel(t *testing.T, s Suite) {
	st := s.open(t, nil)
	o := declare(t, st)
	var c [5]counter
	var h [5]*objectstore.Watch
	for i := range c {
		h[i] = o.Watch(&c[i])
	}
	for _, i := range []int{0, 2, 4} { // first, middle, last
		if !h[i].Cancel() {
			t.Errorf("cancel of watch %d came late", i)
		}
		if h[i].Cancel() {
			t.Errorf("watch %d was canceled twice", i)
		}
	}
	if err := o.TrySeal(raw(nil)); err != nil {
		t.Fatal(err)
	}
	for i := range c {
		if want := i % 2; c[i].n != want {
			t.Errorf("watch %d told %d times: expected %d", i, c[i].n, want)
		}
		if h[i].Cancel() {
			t.Errorf("watch %d was canceled after the object was sealed", i)
		}
	}
	o.Release()
}

func testWatchHoldsReference(t *testing.T, s Suite) {
	st := s.open(t, nil)
	o := declare(t, st)
	id := o.ID()
	h := o.Watch(&counter{})
	o.Release()
	got := st.Lookup(id)
	if got == nil {
		t.Fatal("a watched object went")
	}
	got.Release()
	h.Cancel()
	if st.Lookup(id) != nil {
		t.Error("the object is there after its watch was canceled")
	}
}

func testWait(t *testing.T, s Suite) {
	st := s.open(t, nil)
	o := declare(t, st)
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("enough")
	cancel(why)
	if err := o.Wait(ctx); !errors.Is(err, why) {
		t.Errorf("wait of a canceled context: %v", err)
	}
	done := make(chan error)
	go func() { done <- o.Wait(context.Background()) }()
	if err := o.TrySeal(raw(nil)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := o.Wait(ctx); err != nil {
		t.Errorf("wait for what is there: %v", err)
	}
	o.Release()
}

func testReferencesKeepAlive(t *testing.T, s Suite) {
	st := s.open(t, nil)
	a := put(t, st, pattern(1, 100_000))
	p := declare(t, st)
	b := put(t, st, []byte("b"), a, p, a)
	a.Release()
	p.Release()
	if refs := b.Refs(); len(refs) != 3 || refs[0] != a || refs[1] != p || refs[2] != a || b.Info().Refs != 3 {
		t.Fatalf("references are %v", refs)
	}
	wantBytes(t, "referenced object", b.Refs()[0].Bytes(), pattern(1, 100_000))
	if err := p.TrySeal(raw([]byte("sealed through a reference"))); err != nil {
		t.Fatal(err)
	}
	if h := b.Header(); len(h.Refs) != 3 || h.Refs[1] != p.ID() || h.Len != 1 {
		t.Errorf("header is %+v", h)
	}
	if n := st.Stats().Objects; n != 3 {
		t.Errorf("%d objects: expected 3", n)
	}
	b.Release()
	if f := st.Stats(); f.Objects != 0 || f.Used != 0 {
		t.Errorf("after the last release: %+v", f)
	}
}

func testSelfReference(t *testing.T, s Suite) {
	st := s.open(t, nil)
	o := declare(t, st)
	if err := o.TrySeal(raw(nil, o)); !errors.Is(err, wray.ErrBadArgument) {
		t.Errorf("value that refers to itself: %v", err)
	}
	if o.State() != objectstore.Pending {
		t.Errorf("refused object is %v", o.State())
	}
	o.Release()
}

func testLongChain(t *testing.T, s Suite) {
	n := 300_000
	if testing.Short() {
		n = 100_000
	}
	st := s.open(t, capacity(int64(n)*512))
	o := put(t, st, nil)
	for range n {
		next := put(t, st, nil, o)
		o.Release()
		o = next
	}
	if got := st.Stats().Objects; got != n+1 {
		t.Fatalf("%d objects: expected %d", got, n+1)
	}
	o.Release() // Close waits for what is left to others; open checks the end
}

func testWideObject(t *testing.T, s Suite) {
	const n = 50_000
	st := s.open(t, capacity(n*1024))
	refs := make([]*objectstore.Object, n)
	for i := range refs {
		refs[i] = put(t, st, nil)
	}
	o := put(t, st, nil, refs...)
	for _, r := range refs {
		r.Release()
	}
	if got := st.Stats().Objects; got != n+1 {
		t.Fatalf("%d objects: expected %d", got, n+1)
	}
	o.Release()
}
