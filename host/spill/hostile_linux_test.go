package spill

import (
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/objectstore"
)

var seedFlag = flag.Uint64("spill.seed", 0, "of TestHostileLimit; 0: another each time")

func memfd(t testing.TB, n int) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "test")
	if _, err := f.WriteAt(make([]byte, n), 0); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestHostile: each thing that no honest process asks for is refused, takes no
// room, and closes what came with it.
func TestHostile(t *testing.T) {
	h := host(t, 8<<20, t.TempDir())
	serve := func(r Request, files ...*os.File) (Reply, *os.File, error) {
		return h.Serve(t.Context(), r, files)
	}
	reply, file, err := serve(Request{Op: OpCreate, N: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	id := reply.Batch
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	plain, err := os.Create(t.TempDir() + "/plain")
	if err != nil {
		t.Fatal(err)
	}
	piece := func(file int, off, n int64) []Piece { return []Piece{{File: file, Off: off, Len: n}} }
	for name, c := range map[string]struct {
		r     Request
		files []*os.File
	}{
		"operation":         {r: Request{Op: 99, Batch: id}},
		"unknown batch":     {r: Request{Op: OpWrite, Batch: 77}},
		"negative batch":    {r: Request{Op: OpCreate, N: -1}},
		"huge batch":        {r: Request{Op: OpCreate, N: 1 << 62}},
		"pipe":              {Request{Op: OpWrite, Batch: id, Pieces: piece(0, 0, 10)}, []*os.File{r}},
		"file of a disk":    {Request{Op: OpWrite, Batch: id, Pieces: piece(0, 0, 10)}, []*os.File{plain}},
		"no such file":      {Request{Op: OpWrite, Batch: id, Pieces: piece(3, 0, 10)}, []*os.File{memfd(t, 10)}},
		"negative offset":   {Request{Op: OpWrite, Batch: id, Pieces: piece(0, -5, 10)}, []*os.File{memfd(t, 10)}},
		"negative length":   {Request{Op: OpWrite, Batch: id, Pieces: piece(0, 0, -10)}, []*os.File{memfd(t, 10)}},
		"more than it has":  {r: Request{Op: OpWrite, Batch: id, Pieces: piece(-1, 0, 10), Data: []byte("short")}},
		"less than it has":  {r: Request{Op: OpWrite, Batch: id, Pieces: piece(-1, 0, 1), Data: []byte("long")}},
		"more than promise": {Request{Op: OpWrite, Batch: id, Pieces: piece(0, 0, 2<<20)}, []*os.File{memfd(t, 2<<20)}},
		"read too early":    {r: Request{Op: OpRead, Batch: id, N: 10}},
		"punch too early":   {r: Request{Op: OpPunch, Batch: id, N: 10}},
	} {
		if _, _, err := serve(c.r, c.files...); !errors.Is(err, link.ErrProtocol) {
			t.Errorf("%s: %v: expected a violation", name, err)
		}
		for _, f := range c.files {
			if _, err := f.Stat(); err == nil {
				t.Errorf("%s: a file stays open", name)
			}
		}
	}
	// Memory that ends is the process's own loss.
	if _, _, err := serve(Request{Op: OpWrite, Batch: id, Pieces: piece(0, 0, 1000)}, memfd(t, 10)); !errors.Is(err, errShort) {
		t.Errorf("memory that ends early: %v", err)
	}
	if _, err := file.WriteAt([]byte("x"), 0); !errors.Is(err, syscall.EBADF) {
		t.Errorf("the process writes to what it may read: %v", err)
	}
	if err := file.Truncate(1 << 30); err == nil {
		t.Error("the process makes a file longer")
	}
	if h.Used() != 1<<20 {
		t.Errorf("%d bytes are taken: expected what was promised", h.Used())
	}
	if _, _, err := serve(Request{Op: OpCreate, N: 8 << 20}); !errors.Is(err, objectstore.ErrDiskFull) {
		t.Errorf("more than the limit: %v", err)
	}
}

// TestHostileParts: what is wrong with one write, or range to give back, only
// for what came before it, is refused, too.
func TestHostileParts(t *testing.T) {
	h := host(t, 8<<20, t.TempDir())
	serve := func(r Request) error {
		reply, f, err := h.Serve(t.Context(), r, nil)
		if f != nil {
			f.Close()
		}
		if r.Op == OpCreate && reply.Batch != 1 {
			t.Fatalf("the first batch is %d, %v", reply.Batch, err)
		}
		return err
	}
	write := func(n int64, last bool) Request {
		return Request{Op: OpWrite, Batch: 1, Pieces: []Piece{{File: -1, Len: n}}, Data: make([]byte, n), Last: last}
	}
	for i, c := range []struct {
		r  Request
		ok bool
	}{
		{Request{Op: OpCreate, N: 10_000}, true},
		{write(6000, false), true},
		{write(6000, true), false}, // together more than was promised
		{write(3000, true), true},
		{write(1, false), false}, // it is complete, though more was promised
		{Request{Op: OpPunch, Batch: 1, Off: 4096, N: 4905}, false},
		{Request{Op: OpPunch, Batch: 1, Off: 4096, N: 4904}, true},
		{Request{Op: OpPunch, Batch: 1, Off: 9001, N: 1}, false},
		{Request{Op: OpRemove, Batch: 1}, true},
		{write(1, false), false},
	} {
		if err := serve(c.r); c.ok && err != nil || !c.ok && !errors.Is(err, link.ErrProtocol) {
			t.Errorf("step %d: operation %d gave %v", i, c.r.Op, err)
		}
	}
}

// TestOpenBatches: so many batches may be open as is said, and one that is
// complete, or removed, or could not be made, is not.
func TestOpenBatches(t *testing.T) {
	h := host(t, 0, t.TempDir())
	create := func() (uint64, error) {
		reply, f, err := h.Serve(t.Context(), Request{Op: OpCreate, N: 1}, nil)
		if f != nil {
			f.Close()
		}
		return reply.Batch, err
	}
	for range 2 * maxOpen { // removed at once
		id, err := create()
		if err == nil {
			_, _, err = h.Serve(t.Context(), Request{Op: OpRemove, Batch: id}, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	broken := errors.New("the place is broken")
	for range 2 * maxOpen { // not made
		h.fail(0, broken)
		if _, err := create(); !errors.Is(err, objectstore.ErrDiskFull) || !errors.Is(err, broken) {
			t.Fatalf("a batch in a place that has failed: %v", err)
		}
	}
	h.bad[0] = placeFailure{at: time.Now().Add(-retryPlace), err: broken}
	var ids []uint64
	for range maxOpen {
		id, err := create()
		if err != nil {
			t.Fatalf("batch %d of %d, in a place that failed long ago: %v", len(ids)+1, maxOpen, err)
		}
		ids = append(ids, id)
	}
	if _, err := create(); !errors.Is(err, objectstore.ErrDiskFull) {
		t.Errorf("one batch more than %d that are not complete: %v", maxOpen, err)
	}
	if _, _, err := h.Serve(t.Context(), Request{Op: OpWrite, Batch: ids[0], Last: true}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := create(); err != nil {
		t.Errorf("after one was completed: %v", err)
	}
}

// TestHostileLimit: whatever a process asks for, and whatever it keeps open, its
// files never take more of the disk than the limit.
func TestHostileLimit(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d; again with -spill.seed=%[1]d", seed)
	rng := rand.New(rand.NewPCG(seed, 3))
	const limit = 4 << 20
	h := host(t, limit, t.TempDir())
	src := memfd(t, 2<<20)
	defer src.Close()
	var files []*os.File // none is ever closed by the process
	defer func() { closeAll(files) }()
	var ids []uint64
	n := func() int64 { return rng.Int64N(1<<20) + 1 }
	for range 600 {
		id := uint64(rng.IntN(40))
		if len(ids) > 0 && rng.IntN(8) > 0 {
			id = ids[rng.IntN(len(ids))]
		}
		r := Request{Op: Op(1 + rng.IntN(5)), Batch: id, N: n(), Off: n() - 1, Last: rng.IntN(2) == 0}
		var with []*os.File
		if r.Op == OpWrite {
			f, err := again(src)
			if err != nil {
				t.Fatal(err)
			}
			with = append(with, f)
			for range rng.IntN(3) {
				r.Pieces = append(r.Pieces, Piece{Off: n(), Len: n()})
			}
		}
		reply, f, err := h.Serve(t.Context(), r, with)
		if f != nil {
			files = append(files, f)
		}
		if err == nil && r.Op == OpCreate {
			ids = append(ids, reply.Batch)
		}
		taken := int64(0)
		for _, f := range files {
			taken += allocated(f)
		}
		if taken > limit {
			t.Fatalf("%d bytes of the disk are taken, where %d may be, and %d are counted", taken, limit, h.Used())
		}
	}
	h.Close()
	for _, f := range files {
		if n := allocated(f); n != 0 {
			t.Fatalf("a file that the process keeps open takes %d bytes when its batch is gone", n)
		}
	}
	if h.Used() != 0 {
		t.Errorf("%d bytes are taken by nothing", h.Used())
	}
}

// FuzzServe: whatever bytes come for a request, it is served or refused, and the
// bound holds.
func FuzzServe(f *testing.F) {
	for _, r := range []Request{{Op: OpCreate, N: 100}, {Op: OpWrite, Batch: 1, Pieces: []Piece{{File: -1, Len: 2}}, Data: []byte("ab"), Last: true},
		{Op: OpWrite, Batch: 1, Pieces: []Piece{{Len: 5}}}, {Op: OpRead, Batch: 1, N: 10}, {Op: OpPunch, Batch: 1, N: 1}, {Op: OpRemove, Batch: 1}} {
		b, err := link.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	d, err := OpenDir(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Request
		if link.Unmarshal(b, &r) != nil {
			return
		}
		h := NewHost([]Place{d}, 1<<20)
		defer h.Close()
		_, file, err := h.Serve(t.Context(), Request{Op: OpCreate, N: 1000}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		_, file2, _ := h.Serve(t.Context(), r, []*os.File{memfd(t, 100)})
		if file2 != nil {
			file2.Close()
		}
		if h.Used() > 1<<20 {
			t.Errorf("%d bytes are taken", h.Used())
		}
	})
}
