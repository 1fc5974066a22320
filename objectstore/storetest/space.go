package storetest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	wray "github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

const mib = 1 << 20

func testFull(t *testing.T, s Suite) {
	var asked []int64
	st := s.open(t, func(c *objectstore.Config) {
		c.Capacity = 4 * mib
		c.OnPressure = func(n int64) { asked = append(asked, n) }
	})
	var held []*objectstore.Object
	for {
		o, err := st.TryPut(newID(), raw(make([]byte, mib)))
		if err != nil {
			if !errors.Is(err, objectstore.ErrFull) {
				t.Fatal(err)
			}
			break
		}
		held = append(held, o)
	}
	if len(held) != 4 || !slices.Equal(asked, []int64{mib}) {
		t.Errorf("%d objects of 1 MiB in 4 MiB, pressure %v", len(held), asked)
	}
	var e *wray.Error
	if !errors.As(error(st.FullError(objectstore.Size{Payload: mib})), &e) || e.Code != wray.CodeStoreFull ||
		e.Limit.Flag != objectstore.CapacityFlag || e.Limit.Value != 4*mib || !strings.Contains(e.Message, "4 objects") {
		t.Errorf("full error: %v", e)
	}
	held[0].Release()
	held[0] = put(t, st, make([]byte, mib))
	if f := st.Stats(); f.Used != 4*mib || f.Peak != 4*mib {
		t.Errorf("full store: %+v", f)
	}
	for _, o := range held {
		o.Release()
	}
}

func testLargerThanStore(t *testing.T, s Suite) {
	st := s.open(t, capacity(4*mib))
	size := objectstore.Size{Payload: 4*mib + 1}
	check := func(what string, err error) {
		t.Helper()
		var e *wray.Error
		if !errors.As(err, &e) || e.Code != wray.CodeStoreFull || e.Limit == nil || e.Limit.Value != 4*mib ||
			e.Limit.Flag != objectstore.CapacityFlag || e.Hint == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := st.TryPut(newID(), raw(make([]byte, size.Payload)))
	check("put", err)
	_, err = st.TryReserve(size)
	check("reserve", err)
	_, err = st.WaitSpace(context.Background(), size)
	check("wait", err)
	told := 0
	cancel := st.OnSpace(size, func(_ *objectstore.Reservation, err error) { told++; check("callback", err) })
	if told != 1 || cancel() {
		t.Errorf("callback told %d times", told)
	}
}

func testCapacityIsExact(t *testing.T, s Suite) {
	// A payload that its class would round beyond the capacity fits all the same.
	const n = 20*mib + 64<<10
	st := s.open(t, capacity(n))
	for range 3 {
		o := put(t, st, make([]byte, n))
		if f := st.Stats(); f.Used != n {
			t.Errorf("used %d: expected %d", f.Used, n)
		}
		o.Release()
	}
}

func testEmptyObjectsCount(t *testing.T, s Suite) {
	st := s.open(t, capacity(mib))
	var held []*objectstore.Object
	for {
		o, err := st.TryPut(newID(), raw(nil))
		if err != nil {
			break
		}
		held = append(held, o)
	}
	if n := len(held); n < 1000 || n > mib/128 {
		t.Errorf("%d empty objects fit into 1 MiB", n)
	}
	for _, o := range held {
		o.Release()
	}
}

func testWaitersInOrder(t *testing.T, s Suite) {
	st := s.open(t, capacity(8*mib))
	hog := put(t, st, make([]byte, 8*mib))
	var served []int
	var held []*objectstore.Reservation
	for i := range 6 {
		n := int64(1+i%3) * mib
		st.OnSpace(objectstore.Size{Payload: n}, func(r *objectstore.Reservation, err error) {
			if err != nil {
				t.Error(err)
				return
			}
			served = append(served, i)
			held = append(held, r)
		})
	}
	if len(served) != 0 || st.Stats().Waiting != 6 {
		t.Fatalf("served %v in a full store, %d wait", served, st.Stats().Waiting)
	}
	hog.Release() // 1+2+3+1 MiB fit at once, then 2, then 3
	if want := []int{0, 1, 2, 3}; !slices.Equal(served, want) {
		t.Errorf("served %v: expected %v", served, want)
	}
	held[0].Cancel()
	if want := []int{0, 1, 2, 3, 4}; !slices.Equal(served, want) {
		t.Errorf("served %v: expected %v", served, want)
	}
	for i := 1; i < len(held); i++ {
		held[i].Cancel()
	}
	if want := []int{0, 1, 2, 3, 4, 5}; !slices.Equal(served, want) {
		t.Errorf("served %v: expected %v", served, want)
	}
}

func testNobodyOvertakes(t *testing.T, s Suite) {
	st := s.open(t, capacity(4*mib))
	a := put(t, st, make([]byte, 2*mib))
	var got *objectstore.Reservation
	st.OnSpace(objectstore.Size{Payload: 4 * mib}, func(r *objectstore.Reservation, _ error) { got = r })
	if _, err := st.TryPut(newID(), raw(make([]byte, mib))); !errors.Is(err, objectstore.ErrFull) {
		t.Errorf("overtook who waits: %v", err)
	}
	a.Release()
	if got == nil {
		t.Fatal("the waiter was not served")
	}
	got.Cancel()
}

func testSmallPassesWaiters(t *testing.T, s Suite) {
	st := s.open(t, capacity(4*mib))
	a := put(t, st, make([]byte, 2*mib))
	cancel := st.OnSpace(objectstore.Size{Payload: 4 * mib}, func(*objectstore.Reservation, error) {
		t.Error("served without room")
	})
	b := put(t, st, []byte("a result"))
	b.Release()
	if !cancel() || cancel() {
		t.Error("cancel is not told apart from service")
	}
	a.Release()
}

func testCanceledWaiterLetsOthersPass(t *testing.T, s Suite) {
	st := s.open(t, capacity(4*mib))
	a := put(t, st, make([]byte, 2*mib))
	cancel := st.OnSpace(objectstore.Size{Payload: 4 * mib}, func(*objectstore.Reservation, error) {
		t.Error("served after cancel")
	})
	var got *objectstore.Reservation
	st.OnSpace(objectstore.Size{Payload: mib}, func(r *objectstore.Reservation, _ error) { got = r })
	if got != nil {
		t.Fatal("the second was served before the first")
	}
	if !cancel() || got == nil {
		t.Fatal("the second was not served after the first gave up")
	}
	got.Cancel()
	a.Release()
}

func testWaitSpaceContext(t *testing.T, s Suite) {
	st := s.open(t, capacity(mib))
	a := put(t, st, make([]byte, mib))
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(why)
	if _, err := st.WaitSpace(ctx, objectstore.Size{Payload: mib}); !errors.Is(err, why) {
		t.Errorf("wait of a canceled context: %v", err)
	}
	if n := st.Stats().Waiting; n != 0 {
		t.Errorf("%d wait after it", n)
	}
	type answer struct {
		r   *objectstore.Reservation
		err error
	}
	queued := make(chan answer)
	go func() {
		r, err := st.WaitSpace(context.Background(), objectstore.Size{Payload: mib})
		queued <- answer{r, err}
	}()
	a.Release()
	got := <-queued
	if got.err != nil {
		t.Fatal(got.err)
	}
	got.r.Cancel()
	// Where room is there and the context has ended, either may be told: but the
	// room is nobody's who was told the other.
	for range 50 {
		r, err := st.WaitSpace(ctx, objectstore.Size{Payload: mib})
		if err == nil {
			r.Cancel()
		}
		if f := st.Stats(); f.Used != 0 || f.Waiting != 0 {
			t.Fatalf("a wait that ended with %v keeps %d bytes, %d wait", err, f.Used, f.Waiting)
		}
	}
	o, err := st.TryPut(newID(), raw(make([]byte, mib)))
	if err != nil {
		t.Fatal(err)
	}
	o.Release()
}

func testReservationIsKept(t *testing.T, s Suite) {
	st := s.open(t, capacity(2*mib))
	r, err := st.TryReserve(objectstore.Size{Payload: 2 * mib})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.TryPut(newID(), raw([]byte("x"))); !errors.Is(err, objectstore.ErrFull) {
		t.Errorf("put into what is reserved: %v", err)
	}
	p := pattern(3, 2*mib)
	o, err := r.Put(newID(), raw(p))
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, "object", o.Bytes(), p)
	r.Cancel() // does nothing
	o.Release()
}

func testReservation(t *testing.T, s Suite) {
	st := s.open(t, capacity(8*mib))
	dep := put(t, st, nil)
	for _, n := range []int64{10, 100_000} {
		size := objectstore.Size{Payload: n, Refs: 1}
		reserve := func() *objectstore.Reservation {
			r, err := st.TryReserve(size)
			if err != nil {
				t.Fatal(err)
			}
			if r.Size() != size {
				t.Errorf("size is %+v", r.Size())
			}
			return r
		}
		r := reserve()
		if _, err := r.Put(newID(), raw(make([]byte, n+1), dep)); err == nil {
			t.Error("a larger value fits a reservation")
		}
		wantPanic(t, "second use", func() { _, _ = r.Put(newID(), raw(make([]byte, n), dep)) })
		wantPanic(t, "buffer of a used one", func() { r.Buffer() })

		o := declare(t, st)
		if err := reserve().Seal(o, raw(pattern(1, int(n)), dep)); err != nil {
			t.Fatal(err)
		}
		wantBytes(t, "sealed", o.Bytes(), pattern(1, int(n)))
		if _, err := reserve().Put(o.ID(), raw(make([]byte, n), dep)); !errors.Is(err, objectstore.ErrExists) {
			t.Errorf("put over another: %v", err)
		}
		o.Release()
		reserve().Cancel()
	}
	dep.Release()
	if f := st.Stats(); f.Used != 0 {
		t.Errorf("used %d after all", f.Used)
	}
}

func testBuffer(t *testing.T, s Suite) {
	st := s.open(t, capacity(64*mib))
	for _, n := range []int{0, 100, 100_000, 20 * mib} {
		buffer := func() *objectstore.Buffer {
			r, err := st.TryReserve(objectstore.Size{Payload: int64(n)})
			if err != nil {
				t.Fatal(err)
			}
			return r.Buffer()
		}
		want := pattern(uint64(n), n)
		b := buffer()
		copy(b.Bytes(), want)
		o, err := b.Put(newID(), abi.EncodingRaw, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		wantBytes(t, "object of a buffer", o.Bytes(), want)
		wantPanic(t, "a used buffer", func() { b.Bytes() })
		o.Release()

		p := declare(t, st)
		b = buffer()
		copy(b.Bytes(), want)
		if err := b.Seal(p, abi.EncodingRaw, 0, nil); err != nil {
			t.Fatal(err)
		}
		wantBytes(t, "sealed from a buffer", p.Bytes(), want)
		if err := buffer().Seal(p, abi.EncodingRaw, 0, nil); !errors.Is(err, objectstore.ErrSealed) {
			t.Errorf("sealed twice: %v", err)
		}
		if err := buffer().Seal(p, 99, 0, nil); !errors.Is(err, wray.ErrBadArgument) {
			t.Errorf("unknown encoding: %v", err)
		}
		if _, err := buffer().Put(p.ID(), abi.EncodingRaw, 0, nil); !errors.Is(err, objectstore.ErrExists) {
			t.Errorf("put over another: %v", err)
		}
		b = buffer()
		b.Discard()
		b.Discard()
		p.Release()
	}
}

// testTwentyTimesCapacity is the life of a collecting guest: what it dropped
// comes back only when it collects, which it does when memory is short.
func testTwentyTimesCapacity(t *testing.T, s Suite) {
	const total = 16 * mib
	for _, n := range []int{100, 40 << 10, 64 << 10, 300 << 10, 5 * mib} {
		var table *objectstore.Handles
		var garbage []uint32
		collect := func(int64) {
			table.DropAll(garbage)
			garbage = garbage[:0]
		}
		pressed := false
		st := s.open(t, func(c *objectstore.Config) {
			c.Capacity = total
			c.OnPressure = func(int64) { pressed = true }
		})
		table = objectstore.NewHandles(0)
		p := pattern(uint64(n), n)
		count := 20 * total / max(n, 4<<10)
		for range count {
			o, err := st.TryPut(newID(), raw(p))
			if errors.Is(err, objectstore.ErrFull) {
				var r *objectstore.Reservation
				st.OnSpace(raw(p).Size(), func(got *objectstore.Reservation, _ error) { r = got })
				if !pressed {
					t.Fatal("full without pressure")
				}
				pressed = false
				collect(0)
				if r == nil {
					t.Fatalf("no room for %d bytes after everything was dropped: %+v", n, st.Stats())
				}
				o, err = r.Put(newID(), raw(p))
			}
			if err != nil {
				t.Fatal(err)
			}
			h, err := table.Add(o)
			if err != nil {
				t.Fatal(err)
			}
			garbage = append(garbage, h)
		}
		if f := st.Stats(); f.Peak > total {
			t.Errorf("%d bytes: peak %d is over the capacity %d", n, f.Peak, total)
		}
		table.Reset()
	}
}

func testOtherSizesMakeRoom(t *testing.T, s Suite) {
	st := s.open(t, capacity(8*mib))
	for _, n := range []int{8 * mib, 4 * mib, 64 << 10, 1000, 7 * mib, 2 * mib, 8 * mib} {
		// The pool is full of other sizes, which must give way.
		var held []*objectstore.Object
		for range min(8*mib/n, 64) {
			o, err := st.TryPut(newID(), raw(make([]byte, n)))
			if errors.Is(err, objectstore.ErrFull) {
				// Segments that are being warmed are given up a moment later.
				r, err := st.WaitSpace(context.Background(), objectstore.Size{Payload: int64(n)})
				if err != nil {
					t.Fatal(err)
				}
				o, err = r.Put(newID(), raw(make([]byte, n)))
				if err != nil {
					t.Fatal(err)
				}
			} else if err != nil {
				t.Fatal(err)
			}
			held = append(held, o)
		}
		for _, o := range held {
			o.Release()
		}
	}
}

func testClose(t *testing.T, s Suite) {
	st := s.open(t, capacity(4*mib))
	reserve := func() *objectstore.Reservation {
		r, err := st.TryReserve(objectstore.Size{Payload: mib})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r, q, c, b := reserve(), reserve(), reserve(), reserve().Buffer()
	o := declare(t, st)
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Put(newID(), raw(make([]byte, mib))); !errors.Is(err, objectstore.ErrClosed) {
		t.Errorf("put from a reservation: %v", err)
	}
	if err := q.Seal(o, raw(make([]byte, mib))); !errors.Is(err, objectstore.ErrClosed) {
		t.Errorf("seal from a reservation: %v", err)
	}
	c.Cancel()
	b.Discard()
	o.Release()
}

func testCloseWithObjects(t *testing.T, s Suite) {
	st := s.open(t, capacity(8*mib))
	p := pattern(1, 2*mib)
	a := put(t, st, p)
	b := put(t, st, make([]byte, 2*mib))
	pending := declare(t, st)
	chain := put(t, st, nil)
	for range 10_000 { // more than one Release does by itself
		next := put(t, st, nil, chain)
		chain.Release()
		chain = next
	}
	b.Release()
	b = put(t, st, make([]byte, 2*mib))
	var told error
	st.OnSpace(objectstore.Size{Payload: 4 * mib}, func(_ *objectstore.Reservation, err error) { told = err })
	for range 2 {
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if !errors.Is(told, objectstore.ErrClosed) {
		t.Errorf("who waited is told %v", told)
	}
	if _, err := st.TryPut(newID(), raw(nil)); !errors.Is(err, objectstore.ErrClosed) {
		t.Errorf("put: %v", err)
	}
	if _, err := st.Declare(newID()); !errors.Is(err, objectstore.ErrClosed) {
		t.Errorf("declare: %v", err)
	}
	if _, err := st.WaitSpace(context.Background(), objectstore.Size{Payload: 2 * mib}); !errors.Is(err, objectstore.ErrClosed) {
		t.Errorf("wait: %v", err)
	}
	// What is referenced stays readable, and pending tasks can still fail.
	wantBytes(t, "object of a closed store", a.Bytes(), p)
	if err := pending.Fail(wray.Errorf(wray.CodeCanceled, "the job ended")); err != nil {
		t.Error(err)
	}
	if n := st.Stats().SegmentsPooled; n != 0 {
		t.Errorf("%d segments in the pool of a closed store", n)
	}
	for _, o := range []*objectstore.Object{a, b, pending, chain} {
		o.Release()
	}
}
