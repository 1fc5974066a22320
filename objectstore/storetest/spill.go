package storetest

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	wray "github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// RunSpill holds a form of the store to what it owes when it has a Disk.
func RunSpill(t *testing.T, s Suite) {
	tests := []struct {
		name string
		run  func(*testing.T, Suite)
	}{
		{"FourTimesCapacity", testFourTimesCapacity},
		{"Compression", testCompression},
		{"Fused", testFused},
		{"InUseStays", testInUseStays},
		{"ColdFirst", testColdFirst},
		{"WrittenOnce", testWrittenOnce},
		{"ReadersGoFirst", testReadersGoFirst},
		{"FetchCancel", testFetchCancel},
		{"ReferencesStay", testReferencesStay},
		{"DiskFull", testDiskFull},
		{"Corrupt", testCorrupt},
		{"CloseWhileAway", testCloseWhileAway},
		{"Random", func(t *testing.T, s Suite) { testSpillRandom(t, s, false) }},
		{"RandomWhole", func(t *testing.T, s Suite) { testSpillRandom(t, s, true) }},
		{"Compaction", testCompaction},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, s) })
	}
}

const spillCapacity = 8 * mib

// openDisk makes a store over a disk, of which nothing may be left either.
func (s Suite) openDisk(t testing.TB, limit int64) (*objectstore.Store, *MemDisk) {
	t.Helper()
	d := NewMemDisk(limit)
	t.Cleanup(func() {
		if n, b := d.Used(), d.Batches(); n != 0 || b != 0 {
			t.Errorf("left over on disk: %d bytes in %d batches", n, b)
		}
	})
	st := s.open(t, func(c *objectstore.Config) { c.Capacity, c.Disk = spillCapacity, d })
	return st, d
}

// within bounds how long a test waits for what must come.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// putWaiting puts p, waiting for room.
func putWaiting(t testing.TB, s *objectstore.Store, p []byte, refs ...*objectstore.Object) *objectstore.Object {
	t.Helper()
	v := raw(p, refs...)
	o, err := s.TryPut(newID(), v)
	if !errors.Is(err, objectstore.ErrFull) {
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	r, err := s.WaitSpace(within(t), v.Size())
	if err != nil {
		t.Fatalf("room for %d bytes: %v; %v", len(p), err, s.FullError(v.Size()))
	}
	if o, err = r.Put(newID(), v); err != nil {
		t.Fatal(err)
	}
	return o
}

func view(t testing.TB, o *objectstore.Object) objectstore.View {
	t.Helper()
	v, err := o.WaitView(within(t))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func wantView(t testing.TB, o *objectstore.Object, want []byte) {
	t.Helper()
	v := view(t, o)
	wantBytes(t, "object", v.Bytes(), want)
	v.Close()
}

// away reports whether o is on disk alone.
func away(o *objectstore.Object) bool {
	v, err := o.View()
	v.Close()
	return errors.Is(err, objectstore.ErrSpilled)
}

// testFourTimesCapacity: what is put and kept is there, though memory holds a
// fourth of it.
func testFourTimesCapacity(t *testing.T, s Suite) {
	st, _ := s.openDisk(t, 0)
	var all []*objectstore.Object
	for i := range 4 * spillCapacity / mib {
		all = append(all, putWaiting(t, st, pattern(uint64(i), mib-i)))
	}
	f := st.Stats()
	if f.Spilled < 3*spillCapacity-mib || f.Away == 0 || f.OnDisk < f.Spilled || f.Peak > spillCapacity {
		t.Errorf("%+v", f)
	}
	for i, o := range all {
		if got := o.Info().Len; got != int64(mib-i) {
			t.Errorf("object %d is %d bytes long: expected %d", i, got, mib-i)
		}
		wantView(t, o, pattern(uint64(i), mib-i))
	}
	if f := st.Stats(); f.Restored == 0 || f.Peak > spillCapacity {
		t.Errorf("%+v", f)
	}
	for _, o := range all {
		o.Release()
	}
}

// testCompression: what shrinks is stored shrunk, what does not is not, and
// either is read as it was.
func testCompression(t *testing.T, s Suite) {
	st, d := s.openDisk(t, 0)
	text := bytes.Repeat([]byte("a line of a text that shrinks well\n"), 3*mib/35)
	mixed := append(bytes.Clone(text[:mib+mib/2]), pattern(9, mib+mib/2)...)
	for _, p := range [][]byte{text, pattern(8, 3*mib), mixed} {
		o := putWaiting(t, st, p)
		fill := putWaiting(t, st, pattern(7, spillCapacity-mib)) // turns it out
		if !away(o) {
			t.Fatal("the object is in memory")
		}
		if used := d.Used(); bytes.Equal(p, text) != (used < int64(len(p))/2) {
			t.Errorf("%d bytes take %d on disk", len(p), used)
		}
		fill.Release()
		wantView(t, o, p)
		o.Release()
	}
}

// testFused: small objects share batches, and a batch goes with its last
// object.
func testFused(t *testing.T, s Suite) {
	st, d := s.openDisk(t, 0)
	var all []*objectstore.Object
	const n = objectstore.InlineMax
	for i := range 2 * spillCapacity / n {
		all = append(all, putWaiting(t, st, pattern(uint64(i), n)))
	}
	if b := d.Batches(); int64(b)*8 > st.Stats().Away {
		t.Errorf("%d batches for %d objects", b, st.Stats().Away)
	}
	for i := 0; i < len(all); i += 2 { // holes everywhere
		all[i].Release()
	}
	for i := 1; i < len(all); i += 2 {
		wantView(t, all[i], pattern(uint64(i), n))
		all[i].Release()
	}
}

// testInUseStays: what is viewed, pinned or given out by Bytes is not moved,
// and whoever needs its room waits until it is not used.
func testInUseStays(t *testing.T, s Suite) {
	st, _ := s.openDisk(t, 0)
	a, b, c := put(t, st, pattern(1, 2*mib)), put(t, st, pattern(2, 2*mib)), put(t, st, pattern(3, 2*mib))
	v := view(t, a)
	kept := b.Bytes()
	w, err := c.Pin()
	if err != nil {
		w = nil
	}
	x := putWaiting(t, st, pattern(4, mib))
	wantBytes(t, "view", v.Bytes(), pattern(1, 2*mib))
	wantBytes(t, "kept", kept, pattern(2, 2*mib))
	if away(a) || away(b) || w != nil && away(c) {
		t.Error("an object that is used was moved")
	}
	got := make(chan error, 1)
	cancel := st.OnSpace(objectstore.Size{Payload: 6 * mib}, func(r *objectstore.Reservation, err error) {
		if r != nil {
			r.Cancel()
		}
		got <- err
	})
	if err := st.FullError(objectstore.Size{Payload: 6 * mib}); err.Code != wray.CodeStoreFull || err.Limit.Flag != objectstore.CapacityFlag {
		t.Errorf("the error of a full store: %v", err)
	}
	v.Close()
	if w != nil {
		w.Unpin()
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
	if cancel() {
		t.Error("a wait that is over was withdrawn")
	}
	if !away(a) || away(b) {
		t.Errorf("a on disk %v, b on disk %v: expected a alone", away(a), away(b))
	}
	for _, o := range []*objectstore.Object{a, b, c, x} {
		o.Release()
	}
}

// testColdFirst: what was used of late stays, what was not goes.
func testColdFirst(t *testing.T, s Suite) {
	st, _ := s.openDisk(t, 0)
	hot, cold := put(t, st, pattern(1, mib)), put(t, st, pattern(2, mib))
	var rest []*objectstore.Object
	for i := range 7 {
		rest = append(rest, putWaiting(t, st, pattern(uint64(10+i), mib)))
		wantView(t, hot, pattern(1, mib))
	}
	if away(hot) || !away(cold) {
		t.Errorf("hot on disk %v, cold on disk %v", away(hot), away(cold))
	}
	for _, o := range append(rest, hot, cold) {
		o.Release()
	}
}

// testWrittenOnce: an object that was read back goes to disk again for nothing.
func testWrittenOnce(t *testing.T, s Suite) {
	st, d := s.openDisk(t, 0)
	var all []*objectstore.Object
	for i := range 12 {
		all = append(all, putWaiting(t, st, pattern(uint64(i), mib)))
	}
	for range 3 {
		for i, o := range all {
			wantView(t, o, pattern(uint64(i), mib))
		}
	}
	if f := st.Stats(); f.Spilled > 12*mib || d.Used() > 13*mib {
		t.Errorf("12 MiB were written more than once: %+v", f)
	}
	for _, o := range all {
		o.Release()
	}
}

// testReadersGoFirst: somebody who puts more than there is room for does not
// hold up those who read.
func testReadersGoFirst(t *testing.T, s Suite) {
	st, _ := s.openDisk(t, 0)
	cold := put(t, st, pattern(1, mib))
	big := putWaiting(t, st, pattern(2, 7*mib))
	v := view(t, big)
	more := putWaiting(t, st, pattern(3, mib))
	if !away(cold) {
		t.Fatal("the object is in memory")
	}
	cancel := st.OnSpace(objectstore.Size{Payload: 5 * mib}, func(r *objectstore.Reservation, err error) { r.Cancel() })
	wantView(t, cold, pattern(1, mib))
	if !cancel() {
		t.Error("5 MiB were there")
	}
	v.Close()
	for _, o := range []*objectstore.Object{cold, big, more} {
		o.Release()
	}
}

// testFetchCancel: a wait for a payload ends with its context, and leaves
// nothing behind.
func testFetchCancel(t *testing.T, s Suite) {
	st, _ := s.openDisk(t, 0)
	cold := put(t, st, pattern(1, 2*mib))
	big := putWaiting(t, st, pattern(2, 7*mib))
	v := view(t, big)
	gone := errors.New("gone")
	for round := range 300 {
		ctx, cancel := context.WithCancelCause(context.Background())
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if _, err := cold.WaitView(ctx); !errors.Is(err, gone) {
					t.Errorf("a wait that was ended: %v", err)
				}
			})
		}
		for round%3 == 0 && st.Stats().Waiting == 0 { // in the other rounds the end may come first
			time.Sleep(time.Millisecond)
		}
		cancel(gone)
		all.Wait()
		if n := st.Stats().Waiting; n != 0 {
			t.Fatalf("round %d: %d wait for room after all were ended", round, n)
		}
	}
	v.Close()
	wantView(t, cold, pattern(1, 2*mib))
	big.Release()
	cold.Release()
}

// testReferencesStay: what an object on disk refers to lives, and is told.
func testReferencesStay(t *testing.T, s Suite) {
	st, _ := s.openDisk(t, 0)
	leaf := put(t, st, []byte("leaf"))
	o := put(t, st, pattern(1, mib), leaf, leaf)
	leaf.Release()
	fill := putWaiting(t, st, pattern(2, 15*mib/2))
	if !away(o) {
		t.Fatal("the object is in memory")
	}
	refs := o.Refs()
	if len(refs) != 2 || refs[0] != leaf || string(leaf.Bytes()) != "leaf" || o.Info().Refs != 2 {
		t.Errorf("%d references", len(refs))
	}
	fill.Release()
	o.Release()
	if n := st.Stats().Objects; n != 0 {
		t.Errorf("%d objects are left", n)
	}
}

// testDiskFull: a disk that takes no more leaves a store that is full, with an
// error that says so, and one that takes again is used again.
func testDiskFull(t *testing.T, s Suite) {
	st, d := s.openDisk(t, 4*mib)
	var all []*objectstore.Object
	var full *wray.Error
	for i := range 20 {
		v := raw(pattern(uint64(i), mib))
		r, err := st.TryReserve(v.Size())
		if err != nil {
			ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
			r, err = st.WaitSpace(ctx, v.Size())
			cancel()
		}
		if err != nil {
			full = st.FullError(v.Size())
			break
		}
		o, err := r.Put(newID(), v)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, o)
	}
	if full == nil || full.Code != wray.CodeStoreFull || !strings.Contains(full.Error(), "are taken") ||
		!strings.Contains(full.Hint, objectstore.SpillDirFlag) {
		t.Fatalf("after %d MiB: %v", len(all), full)
	}
	if len(all) < 8 || len(all) > 12 {
		t.Errorf("%d MiB fit into 8 of memory and 4 of disk", len(all))
	}
	d.SetLimit(0)
	all = append(all, putWaitingRetry(t, st, pattern(uint64(len(all)), mib)))
	for i, o := range all {
		wantView(t, o, pattern(uint64(i), mib))
		o.Release()
	}
}

// putWaitingRetry puts p, asking anew while the disk is being left alone.
func putWaitingRetry(t testing.TB, s *objectstore.Store, p []byte) *objectstore.Object {
	t.Helper()
	for ctx := within(t); ; {
		one, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		r, err := s.WaitSpace(one, raw(p).Size())
		cancel()
		if err == nil {
			o, err := r.Put(newID(), raw(p))
			if err != nil {
				t.Fatal(err)
			}
			return o
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

// testCorrupt: bytes that are not what was written are an error, and the store
// goes on.
func testCorrupt(t *testing.T, s Suite) {
	st, d := s.openDisk(t, 0)
	a := put(t, st, pattern(1, 3*mib))
	fill := putWaiting(t, st, pattern(2, 15*mib/2))
	fill.Release()
	d.Corrupt(func(p []byte, off int64) {
		if off <= mib && mib < off+int64(len(p)) {
			p[mib-off] ^= 1
		}
	})
	v := view(t, a)
	if i := a.Info(); i.Encoding != abi.EncodingError || i.Len != int64(len(v.Bytes())) || i.Refs != 0 || i.Mappable {
		t.Errorf("an object that was lost is %+v", i)
	}
	for _, err := range []*wray.Error{a.Err(), objectstore.DecodeFailure(v.Bytes())} {
		if err == nil || err.Code != wray.CodeObjectLost || err.Hint == "" {
			t.Errorf("the error of an object that was lost: %v", err)
		}
	}
	v.Close()
	d.Corrupt(nil)
	if n := st.Stats().Lost; n != 1 {
		t.Errorf("%d objects are lost: expected 1", n)
	}
	b := put(t, st, pattern(3, mib))
	wantView(t, b, pattern(3, mib))
	a.Release()
	b.Release()
}

// testCloseWhileAway: a store that closes tells those who wait for payloads,
// and takes objects back that are on disk.
func testCloseWhileAway(t *testing.T, s Suite) {
	st, _ := s.openDisk(t, 0)
	cold := put(t, st, pattern(1, 2*mib))
	big := putWaiting(t, st, pattern(2, 7*mib))
	v := view(t, big)
	told := make(chan error, 1)
	cold.Fetch(func(_ objectstore.View, err error) { told <- err })
	if err := st.Close(); err != nil {
		t.Error(err)
	}
	if err := <-told; !errors.Is(err, objectstore.ErrClosed) {
		t.Errorf("told %v: expected ErrClosed", err)
	}
	v.Close()
	big.Release()
	cold.Release()
}

// testCompaction: where a disk gives batches back as a whole alone, those of
// which little is of use are written anew: what they take follows what is of use.
// Who reads meanwhile reads what was put.
func testCompaction(t *testing.T, s Suite) {
	st, disk := s.openDisk(t, 0)
	disk.KeepWhole()
	const n, size = 192, 200_000
	rng := rand.New(rand.NewPCG(1, 2))
	objects := map[int]*objectstore.Object{}
	for i := range n {
		objects[i] = putWaiting(t, st, pattern(uint64(i), size))
	}
	full := disk.Used()
	if full < n*size/2 {
		t.Fatalf("the disk has %d bytes of %d", full, n*size)
	}
	for _, i := range rng.Perm(n) { // of each batch some
		if len(objects) <= n/8 {
			break
		}
		objects[i].Release()
		delete(objects, i)
		if rng.IntN(4) == 0 {
			for k, o := range objects {
				wantView(t, o, pattern(uint64(k), size))
				break
			}
		}
	}
	most := int64(2*n/8*(size+1000) + 2*mib)
	for ctx := within(t); disk.Used() > most && ctx.Err() == nil; {
		time.Sleep(time.Millisecond)
	}
	if got := disk.Used(); got > most {
		t.Errorf("the disk has %d bytes for %d of use, and had %d: expected at most %d", got, n/8*size, full, most)
	}
	if st.Stats().Lost > 0 {
		t.Errorf("%d objects were lost", st.Stats().Lost)
	}
	for k, o := range objects {
		wantView(t, o, pattern(uint64(k), size))
		o.Release()
	}
}

// testSpillRandom: any order of puts, reads, windows and drops, by several
// goroutines, in a store far too small, gives every reader what was put.
// whole: on a disk of which batches are given back as a whole.
func testSpillRandom(t *testing.T, s Suite, whole bool) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d; again with -storetest.seed=%[1]d", seed)
	st, disk := s.openDisk(t, 0)
	if whole {
		disk.KeepWhole()
	}
	steps := 250
	if testing.Short() {
		steps = 80
	}
	type twin struct {
		o    *objectstore.Object
		seed uint64
		n    int
	}
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(g)))
			var have []twin
			for range steps {
				switch op := rng.IntN(10); {
				case len(have) == 0 || op < 3 && len(have) < 24:
					x := twin{seed: rng.Uint64(), n: 1 + rng.IntN(mib)}
					if rng.IntN(3) == 0 {
						x.n = 1 + rng.IntN(2*objectstore.InlineMax)
					}
					x.o = putWaiting(t, st, pattern(x.seed, x.n))
					have = append(have, x)
				case op < 5:
					i := rng.IntN(len(have))
					x := have[i]
					if rng.IntN(2) == 0 { // it is freed, while another reads it
						x.o.Retain()
						var reading sync.WaitGroup
						reading.Go(func() {
							v := view(t, x.o)
							if b := v.Bytes(); !bytes.Equal(b, pattern(x.seed, x.n)) && !errors.Is(objectstore.DecodeFailure(b), wray.ErrObjectLost) {
								t.Error("who reads what is being freed reads something else")
							}
							v.Close()
							x.o.Release()
						})
						x.o.Free()
						reading.Wait()
					}
					x.o.Release()
					have[i] = have[len(have)-1]
					have = have[:len(have)-1]
				case op < 6:
					x := have[rng.IntN(len(have))]
					if w, err := x.o.Pin(); err == nil {
						wantBytes(t, "window", w.Bytes(0, w.Len()), pattern(x.seed, x.n))
						w.Unpin()
					}
				case op < 7:
					x := have[rng.IntN(len(have))]
					ctx, cancel := context.WithCancel(context.Background())
					if rng.IntN(2) == 0 {
						cancel()
					}
					if v, err := x.o.WaitView(ctx); err == nil {
						v.Close()
					}
					cancel()
				default:
					x := have[rng.IntN(len(have))]
					wantView(t, x.o, pattern(x.seed, x.n))
				}
			}
			for _, x := range have {
				wantView(t, x.o, pattern(x.seed, x.n))
				x.o.Release()
			}
		})
	}
	all.Wait()
	t.Logf("%+v", st.Stats())
}
