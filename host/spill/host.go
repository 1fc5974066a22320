package spill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/fd"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/objectstore"
)

// retryPlace is how long a place that failed is left alone.
const retryPlace = 10 * time.Second

// maxBatches bounds the batches of one tenant, each of which takes a descriptor
// in the process that keeps them.
const maxBatches = 16 << 10

// Place keeps batches: a directory, or a bucket.
type Place interface {
	// Name returns what a person calls the place.
	Name() string
	// Remote reports whether the place is for what no other takes.
	Remote() bool
	// Create begins a batch of at most n bytes.
	Create(n int64) (Pen, error)
}

// Pen is a batch in a Place. Its methods are called by one goroutine at a time,
// but for Read.
type Pen interface {
	// String returns where the batch is.
	String() string
	// File returns a file to read the batch from, which others close, and which
	// cannot be written to; nil where there is none, and Read is there.
	File() (*os.File, error)
	// Write appends, and with last completes the batch. Where it keeps, what it was
	// given since it last did not is needed until a Write that does not, or Remove.
	// Files are closed by others after that; they are memory, and may change or end
	// at any time.
	Write(ctx context.Context, w []Chunk, last bool) (keeps bool, err error)
	// Read reads of a batch that is complete, as io.ReaderAt.
	Read(ctx context.Context, p []byte, off int64) (int, error)
	// Punch gives a range back.
	Punch(off, n int64)
	// Size returns the bytes that the batch, of which so many were written, takes.
	Size(written int64) int64
	// Remove gives the batch back, whoever has its file.
	Remove()
}

// Chunk is a part of what a batch is to hold: bytes, or a range of a file.
type Chunk struct {
	Data []byte
	File *os.File
	Off  int64
	Len  int64
}

// Host keeps the batches of one tenant, whose process asks for everything and
// may lie. It counts their bytes itself, by what was written to places that the
// process cannot write to. Close it.
type Host struct {
	places []Place
	limit  int64
	quota  error     // why no more is taken where limit is; nil: it is that of Config
	shared *Budget   // of all hosts; may be nil
	fds    *fd.Share // descriptors of batches, and of files that are kept for them; may be nil

	mu      sync.Mutex
	used    int64 // guarded by mu, as is all that follows
	batches map[uint64]*kept
	last    uint64
	next    int
	bad     map[int]placeFailure
	closed  bool
	open    int // batches that are not complete
	reads   chan struct{}
}

type placeFailure struct {
	at  time.Time
	err error
}

// kept is a batch.
type kept struct {
	h     *Host
	place int

	mu       sync.RWMutex // held for reading by those who read
	pen      Pen          // guarded by mu, as is all that follows; nil: it is removed
	promised int64        // the most bytes that it may have
	written  int64
	taken    int64 // counted in Host.used
	complete bool
	files    []*os.File // that the pen may still read
}

// maxReads is how many reads by message are served at once.
const maxReads = 8

// Budget is what several hosts may take together.
type Budget struct {
	limit int64

	mu   sync.Mutex
	used int64 // guarded by mu
}

// NewBudget returns a budget of so many bytes.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// take takes n bytes if there are so many. A nil budget has them.
func (b *Budget) take(n int64) (used int64, ok bool) {
	if b == nil {
		return 0, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > b.limit-b.used {
		return b.used, false
	}
	b.used += n
	return b.used, true
}

// settle takes n bytes more, or gives them back.
func (b *Budget) settle(n int64) {
	if b != nil {
		b.mu.Lock()
		b.used += n
		b.mu.Unlock()
	}
}

// Within bounds a host that keeps nothing yet: it takes part of what shared has,
// and more than limit bytes are refused with the error quota.
func (h *Host) Within(shared *Budget, limit int64, quota error) *Host {
	h.shared = shared
	if limit > 0 && limit < h.limit {
		h.limit, h.quota = limit, quota
	}
	return h
}

// Holding has a host that keeps nothing yet take its descriptors of fds.
func (h *Host) Holding(fds *fd.Share) *Host {
	h.fds = fds
	return h
}

// NewHost returns a host that keeps at most limit bytes in places, in turn, and
// in those that are remote when no other takes more.
func NewHost(places []Place, limit int64) *Host {
	return &Host{places: places, limit: limit, batches: map[uint64]*kept{}, bad: map[int]placeFailure{}, reads: make(chan struct{}, maxReads)}
}

// Used returns the bytes that are taken.
func (h *Host) Used() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.used
}

// Close gives all batches back.
func (h *Host) Close() {
	h.mu.Lock()
	h.closed = true
	all := h.batches
	h.batches = map[uint64]*kept{}
	h.mu.Unlock()
	for _, k := range all {
		k.remove()
	}
}

// Call serves a request of this process. It is a Call.
func (h *Host) Call(r Request, files []*os.File) (Reply, []*os.File, error) {
	// Serve owns files; these stay their owner's.
	var mine []*os.File
	for _, f := range files {
		d, err := again(f)
		if err != nil {
			closeAll(mine)
			return Reply{}, nil, err
		}
		mine = append(mine, d)
	}
	reply, out, err := h.Serve(context.Background(), r, mine)
	if out == nil {
		return reply, nil, err
	}
	return reply, []*os.File{out}, err
}

// Serve carries out a request, whatever it says, and closes its files. A file
// that it returns is the caller's. What no honest process asks for is an error
// that wraps link.ErrProtocol.
func (h *Host) Serve(ctx context.Context, r Request, files []*os.File) (reply Reply, file *os.File, err error) {
	held := false
	defer func() {
		if !held {
			closeAll(files)
		}
	}()
	if r.Op == OpCreate {
		return h.create(r.N)
	}
	h.mu.Lock()
	k := h.batches[r.Batch]
	if r.Op == OpRemove {
		delete(h.batches, r.Batch)
	}
	h.mu.Unlock()
	if k == nil {
		return Reply{}, nil, lie("there is no batch %d", r.Batch)
	}
	switch r.Op {
	case OpWrite:
		var w []Chunk
		if w, err = chunksOf(r, files); err == nil {
			held, err = k.write(ctx, w, r.Last, files)
		}
	case OpRead:
		if r.Off < 0 || r.N <= 0 || r.N > maxRead {
			return Reply{}, nil, lie("a read of %d bytes at %d", r.N, r.Off)
		}
		select {
		case h.reads <- struct{}{}:
		case <-ctx.Done():
			return Reply{}, nil, ctx.Err()
		}
		defer func() { <-h.reads }()
		reply.Data, err = k.read(ctx, r.Off, r.N)
	case OpPunch:
		err = k.punch(r.Off, r.N)
	case OpRemove:
		k.remove()
	default:
		return Reply{}, nil, lie("operation %d", r.Op)
	}
	k.mu.RLock()
	reply.N = k.taken
	k.mu.RUnlock()
	return reply, nil, err
}

func lie(format string, args ...any) error {
	return fmt.Errorf("%w: objects on disk: "+format, append([]any{link.ErrProtocol}, args...)...)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// chunksOf checks what a write says of its pieces and files.
func chunksOf(r Request, files []*os.File) ([]Chunk, error) {
	if len(r.Pieces) > maxPieces || len(files) > maxFiles || len(r.Data) > maxData {
		return nil, lie("a write of %d pieces, %d files and %d bytes", len(r.Pieces), len(files), len(r.Data))
	}
	for _, f := range files {
		if err := checkMemory(f); err != nil {
			return nil, lie("%v", err)
		}
	}
	w := make([]Chunk, 0, len(r.Pieces))
	data, total := r.Data, int64(0)
	for _, p := range r.Pieces {
		if p.Len <= 0 || p.Len > maxWrite || p.File < -1 || p.File >= len(files) || p.Off < 0 || p.Off > objectstore.MaxPayload {
			return nil, lie("a piece of %d bytes at %d of file %d", p.Len, p.Off, p.File)
		}
		if total += p.Len; total > maxWrite+maxData {
			return nil, lie("a write of more than %d bytes", total)
		}
		c := Chunk{Len: p.Len, Off: p.Off}
		if p.File < 0 {
			if p.Len > int64(len(data)) {
				return nil, lie("a piece of %d bytes of %d", p.Len, len(data))
			}
			c.Data, data = data[:p.Len], data[p.Len:]
		} else {
			c.File = files[p.File]
		}
		w = append(w, c)
	}
	if len(data) > 0 {
		return nil, lie("%d bytes that are in no piece", len(data))
	}
	return w, nil
}

// full is the error of a tenant that has all it may have.
func full(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{objectstore.ErrDiskFull}, args...)...)
}

// create begins a batch of n bytes in the next place that takes one.
func (h *Host) create(n int64) (Reply, *os.File, error) {
	if n <= 0 || n > 2*objectstore.MaxPayload {
		return Reply{}, nil, lie("a batch of %d bytes", n)
	}
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return Reply{}, nil, wray.Errorf(wray.CodeCanceled, "the node is closing")
	}
	room := (n + block - 1) / block * block
	if room > h.limit-h.used {
		defer h.mu.Unlock()
		if h.quota != nil {
			return Reply{}, nil, full("%d of %d bytes are taken: %w", h.used, h.limit, h.quota)
		}
		return Reply{}, nil, full("%d of %d bytes are taken (%s)", h.used, h.limit, objectstore.SpillLimitFlag)
	}
	if len(h.batches) >= maxBatches {
		defer h.mu.Unlock()
		return Reply{}, nil, full("there are %d batches", len(h.batches))
	}
	if h.open >= maxOpen {
		defer h.mu.Unlock()
		return Reply{}, nil, full("%d batches are not complete", h.open)
	}
	if err := h.fds.Take(1); err != nil {
		defer h.mu.Unlock()
		return Reply{}, nil, full("%w", err)
	}
	if used, ok := h.shared.take(room); !ok {
		h.fds.Give(1)
		defer h.mu.Unlock()
		return Reply{}, nil, full("all tenants together have taken %d of %d bytes (%s)", used, h.shared.limit, objectstore.SpillLimitFlag)
	}
	h.open++
	h.last++
	id := h.last
	k := &kept{h: h, promised: n, taken: room}
	k.mu.Lock()
	defer k.mu.Unlock()
	h.batches[id] = k // takes its room and its number while there is no pen
	h.used += room
	h.next++
	first := h.next
	h.mu.Unlock()

	errs := []error{}
	for _, remote := range []bool{false, true} {
		for i := range h.places {
			at := (first + i) % len(h.places)
			if h.places[at].Remote() != remote {
				continue
			}
			if err := h.failed(at); err != nil {
				errs = append(errs, err)
				continue
			}
			pen, err := h.places[at].Create(n)
			if err != nil {
				errs = append(errs, h.fail(at, err))
				continue
			}
			f, err := pen.File()
			if err != nil {
				pen.Remove()
				errs = append(errs, h.fail(at, err))
				continue
			}
			k.place, k.pen = at, pen
			h.mu.Lock()
			closed := h.closed
			h.mu.Unlock()
			if closed { // Close may have passed by
				k.removeLocked()
				if f != nil {
					f.Close()
				}
				return Reply{}, nil, wray.Errorf(wray.CodeCanceled, "the node is closing")
			}
			return Reply{Batch: id, Name: pen.String(), N: room}, f, nil
		}
	}
	h.mu.Lock()
	delete(h.batches, id)
	h.open--
	h.mu.Unlock()
	h.fds.Give(1)
	k.settleLocked(0)
	return Reply{}, nil, full("%w", errors.Join(errs...))
}

// failed returns why a place is left alone, nil where it is not.
func (h *Host) failed(place int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	f, ok := h.bad[place]
	if ok && time.Since(f.at) < retryPlace {
		return f.err
	}
	delete(h.bad, place)
	return nil
}

// fail has a place left alone for a while.
func (h *Host) fail(place int, err error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	err = fmt.Errorf("%s: %w", h.places[place].Name(), err)
	h.bad[place] = placeFailure{at: time.Now(), err: err}
	return err
}

// settleLocked takes note that the batch takes n bytes. mu is held.
func (k *kept) settleLocked(n int64) {
	k.h.mu.Lock()
	defer k.h.mu.Unlock()
	k.h.used += n - k.taken
	k.h.shared.settle(n - k.taken)
	k.taken = n
}

// write appends w. held: the files are in use still, and are closed later.
func (k *kept) write(ctx context.Context, w []Chunk, last bool, files []*os.File) (held bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := int64(0)
	for _, c := range w {
		n += c.Len
	}
	switch {
	case k.pen == nil:
		return false, lie("a write to a batch that is gone")
	case k.complete:
		return false, lie("a write to a batch that is complete")
	case n > k.promised-k.written:
		return false, lie("a batch of %d bytes that was to have %d", k.written+n, k.promised)
	}
	if len(k.files) > maxKept {
		return false, lie("%d files are to be kept open", len(k.files))
	}
	if err := k.h.fds.Take(len(files)); err != nil {
		return false, full("%w", err)
	}
	k.files = append(k.files, files...)
	keeps, err := k.pen.Write(ctx, w, last)
	if err != nil {
		return true, k.h.fail(k.place, err)
	}
	if !keeps {
		k.closeFilesLocked()
	}
	k.written += n
	if last {
		k.complete = true
		k.h.mu.Lock()
		k.h.open--
		k.h.mu.Unlock()
		k.settleLocked(k.pen.Size(k.written))
	}
	return true, nil
}

// maxKept bounds the files of a batch that are kept open, and maxOpen the batches
// of a tenant that are not complete.
const (
	maxKept = 256
	maxOpen = 16
)

func (k *kept) read(ctx context.Context, off, n int64) ([]byte, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.pen == nil || !k.complete {
		return nil, lie("a read of a batch that is not complete, or gone")
	}
	if off >= k.written {
		return nil, nil
	}
	p := make([]byte, min(n, k.written-off))
	n2, err := k.pen.Read(ctx, p, off)
	return p[:n2], err
}

func (k *kept) punch(off, n int64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pen == nil || !k.complete || off < 0 || n <= 0 || off > k.written || n > k.written-off {
		return lie("%d bytes at %d given back, of %d", n, off, k.written)
	}
	k.pen.Punch(off, n)
	k.settleLocked(k.pen.Size(k.written))
	return nil
}

func (k *kept) remove() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.removeLocked()
}

func (k *kept) removeLocked() {
	if k.pen == nil {
		return
	}
	k.pen.Remove()
	k.pen = nil
	if !k.complete {
		k.h.mu.Lock()
		k.h.open--
		k.h.mu.Unlock()
	}
	k.closeFilesLocked()
	k.h.fds.Give(1)
	k.settleLocked(0)
}

// closeFilesLocked closes the files that the pen no longer reads.
func (k *kept) closeFilesLocked() {
	closeAll(k.files)
	k.h.fds.Give(len(k.files))
	k.files = nil
}
