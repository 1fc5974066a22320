package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/wray-project/wray/objectstore"
)

// MemDisk is a Disk in memory that can be told to fail.
type MemDisk struct {
	mu      sync.Mutex
	limit   int64 // guarded by mu, as is all that follows
	used    int64
	batches map[*memBatch]bool
	whole   bool
	refuse  error // of the next writes
	corrupt func(p []byte, off int64)
}

// NewMemDisk returns a disk that takes limit bytes; 0: as many as memory holds.
func NewMemDisk(limit int64) *MemDisk { return &MemDisk{limit: limit, batches: map[*memBatch]bool{}} }

// KeepWhole makes the disk one of which batches are given back as a whole alone.
func (d *MemDisk) KeepWhole() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.whole = true
}

// RefuseWrites makes writes fail with err; nil: no more.
func (d *MemDisk) RefuseWrites(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refuse = err
}

// SetLimit changes the limit; 0: none.
func (d *MemDisk) SetLimit(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.limit = n
}

// Corrupt has f change what is read at off; nil: no more.
func (d *MemDisk) Corrupt(f func(p []byte, off int64)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.corrupt = f
}

// Create implements objectstore.Disk.
func (d *MemDisk) Create(n int64) (objectstore.Batch, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refuse != nil {
		return nil, fmt.Errorf("%w: %w", objectstore.ErrDiskFull, d.refuse)
	}
	if d.limit > 0 && d.used+n > d.limit {
		return nil, fmt.Errorf("%w: %d of %d bytes are taken", objectstore.ErrDiskFull, d.used, d.limit)
	}
	b := &memBatch{d: d}
	d.batches[b] = true
	return b, nil
}

// Used implements objectstore.Disk.
func (d *MemDisk) Used() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.used
}

// Batches returns how many batches there are.
func (d *MemDisk) Batches() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.batches)
}

type memBatch struct {
	d       *MemDisk
	data    []byte
	punched int64
	sealed  bool
	gone    bool
}

func (b *memBatch) Write(p []byte) (int, error) {
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	if b.sealed || b.gone {
		panic("storetest: write to a batch that is sealed or gone")
	}
	if b.d.refuse != nil {
		return 0, b.d.refuse
	}
	b.data = append(b.data, p...)
	b.d.used += int64(len(p))
	return len(p), nil
}

func (b *memBatch) Seal() error {
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	b.sealed = true
	return b.d.refuse
}

func (b *memBatch) ReadAt(p []byte, off int64) (int, error) {
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	if !b.sealed || b.gone {
		panic("storetest: read of a batch that is not sealed or gone")
	}
	if off > int64(len(b.data)) {
		return 0, io.EOF
	}
	n := copy(p, b.data[off:])
	if b.d.corrupt != nil {
		b.d.corrupt(p[:n], off)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Whole implements objectstore.Whole.
func (b *memBatch) Whole() bool {
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	return b.d.whole
}

func (b *memBatch) Punch(off, n int64) {
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	if b.d.whole {
		return
	}
	clear(b.data[off : off+n])
	b.punched += n
	b.d.used -= n
}

func (b *memBatch) Remove() {
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	if b.gone {
		panic("storetest: a batch was removed twice")
	}
	b.gone = true
	b.d.used -= int64(len(b.data)) - b.punched
	delete(b.d.batches, b)
}

// RunDisk holds a form of objectstore.Disk to its contract. open makes one that
// takes limit bytes, and whose end the caller sees to; limit 0: any number.
func RunDisk(t *testing.T, open func(t *testing.T, limit int64) objectstore.Disk) {
	t.Run("Batch", func(t *testing.T) { testDiskBatch(t, open(t, 0)) })
	t.Run("Limit", func(t *testing.T) { testDiskLimit(t, open(t, 4*mib)) })
	t.Run("Random", func(t *testing.T) { testDiskRandom(t, open(t, 0)) })
	t.Run("Readers", func(t *testing.T) { testDiskReaders(t, open(t, 0)) })
}

// writeBatch makes a sealed batch of p, written in pieces.
func writeBatch(t *testing.T, d objectstore.Disk, p []byte, piece int) objectstore.Batch {
	t.Helper()
	b, err := d.Create(int64(len(p)))
	if err != nil {
		t.Fatal(err)
	}
	for len(p) > 0 {
		n := min(piece, len(p))
		if m, err := b.Write(p[:n]); err != nil || m != n {
			t.Fatalf("write of %d bytes: %d, %v", n, m, err)
		}
		p = p[n:]
	}
	if err := b.Seal(); err != nil {
		t.Fatal(err)
	}
	return b
}

func wantRead(t testing.TB, b objectstore.Batch, off int64, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := b.ReadAt(got, off); n != len(want) || err != nil && !errors.Is(err, io.EOF) {
		t.Errorf("read of %d bytes at %d: %d, %v", len(want), off, n, err)
	}
	wantBytes(t, "batch", got, want)
}

func testDiskBatch(t *testing.T, d objectstore.Disk) {
	p := pattern(1, 3*mib+77)
	b := writeBatch(t, d, p, 100_000)
	wantRead(t, b, 0, p)
	wantRead(t, b, 12345, p[12345:12345+mib])
	short := make([]byte, 100)
	if n, err := b.ReadAt(short, int64(len(p))-10); n != 10 || !errors.Is(err, io.EOF) {
		t.Errorf("read past the end: %d, %v: expected 10, EOF", n, err)
	}
	if d.Used() < int64(len(p)) {
		t.Errorf("%d bytes are taken by a batch of %d", d.Used(), len(p))
	}
	b.Punch(mib, mib)
	wantRead(t, b, 0, p[:mib])
	wantRead(t, b, 2*mib, p[2*mib:])
	b.Remove()
	if d.Used() != 0 {
		t.Errorf("%d bytes are taken by nothing", d.Used())
	}
	empty, err := d.Create(mib) // begun and given up
	if err != nil {
		t.Fatal(err)
	}
	if _, err := empty.Write(p[:1000]); err != nil {
		t.Fatal(err)
	}
	empty.Remove()
	if d.Used() != 0 {
		t.Errorf("%d bytes are taken by a batch that was given up", d.Used())
	}
}

func testDiskLimit(t *testing.T, d objectstore.Disk) {
	p := pattern(2, mib)
	var have []objectstore.Batch
	for {
		b, err := d.Create(mib)
		if err != nil {
			if !errors.Is(err, objectstore.ErrDiskFull) {
				t.Fatalf("a full disk says %v: expected ErrDiskFull", err)
			}
			break
		}
		if _, err := b.Write(p); err != nil {
			t.Fatal(err)
		}
		if err := b.Seal(); err != nil {
			t.Fatal(err)
		}
		have = append(have, b)
		if len(have) > 4 {
			t.Fatal("5 MiB fit where 4 MiB do")
		}
	}
	if len(have) != 4 {
		t.Fatalf("%d MiB fit where 4 do", len(have))
	}
	for _, b := range have {
		wantRead(t, b, 0, p)
	}
	have[1].Remove()
	have[1] = writeBatch(t, d, p, mib)
	for _, b := range have {
		wantRead(t, b, 0, p)
		b.Remove()
	}
}

func testDiskRandom(t *testing.T, d objectstore.Disk) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d; again with -storetest.seed=%[1]d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	type twin struct {
		b       objectstore.Batch
		p       []byte
		punched [][2]int
	}
	var have []*twin
	for range 60 {
		switch op := rng.IntN(3); {
		case op == 0 || len(have) == 0:
			p := pattern(rng.Uint64(), 1+rng.IntN(mib))
			have = append(have, &twin{b: writeBatch(t, d, p, 1+rng.IntN(mib)), p: p})
		case op == 1:
			x := have[rng.IntN(len(have))]
			off := rng.IntN(len(x.p))
			n := 1 + rng.IntN(len(x.p)-off)
			for _, h := range x.punched {
				if off < h[1] && h[0] < off+n {
					n = 0
				}
			}
			if n == 0 {
				continue
			}
			wantRead(t, x.b, int64(off), x.p[off:off+n])
			if rng.IntN(4) == 0 {
				x.b.Punch(int64(off), int64(n))
				x.punched = append(x.punched, [2]int{off, off + n})
			}
		default:
			i := rng.IntN(len(have))
			have[i].b.Remove()
			have = append(have[:i], have[i+1:]...)
		}
	}
	for _, x := range have {
		x.b.Remove()
	}
	if d.Used() != 0 {
		t.Errorf("%d bytes are taken by nothing", d.Used())
	}
}

func testDiskReaders(t *testing.T, d objectstore.Disk) {
	p := pattern(3, mib)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			q := bytes.Clone(p)
			q[0] = byte(i)
			b, err := d.Create(mib)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := b.Write(q); err != nil {
				t.Error(err)
			}
			if err := b.Seal(); err != nil {
				t.Error(err)
			}
			var readers sync.WaitGroup
			for range 3 {
				readers.Go(func() { wantRead(t, b, 0, q) })
			}
			readers.Wait()
			b.Remove()
		})
	}
	all.Wait()
}
