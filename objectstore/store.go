// Package objectstore keeps the immutable objects of one tenant on one node.
//
// An object is a payload of bytes, an encoding and references to other
// objects. It is declared pending by whoever submits the task that makes it,
// or put whole; it ends sealed or failed and never changes again. Payloads
// below [InlineMax] live in the heap and are copied; larger ones have a memfd
// of their own, so that a sandbox maps them instead of copying. Reference
// counts are exact: memory comes back when the last reference and the last
// window of an object are gone, and no earlier.
//
// The package knows bytes and references. It knows no task, no sandbox and no
// WebAssembly: a sandbox is the owner of a [Handles] table.
//
// # Locks
//
// What an object is (its payload, encoding and references) is written before
// its state becomes final and never after, so reading it takes no lock; its
// reference count is atomic. The locks, each taken alone unless said:
//
//   - Object.mu guards the watches of one object.
//   - Stream.mu guards one stream.
//   - indexShard.mu guards one shard of the table from IDs to objects.
//   - space.mu guards the queue of those who wait for room. pool.mu is taken
//     inside it.
//   - pool.mu guards the segments that are free, and the counts of all.
//   - spiller.mu guards the order in which objects are moved to disk. The
//     payload of an object that may be is guarded by Object.mu, and changes its
//     place; everything else of it stays as said above.
//
// No lock is held while a callback runs, so a callback may call the store.
// Callbacks run in the goroutine that caused them and must not block.
package objectstore

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	wray "github.com/wray-project/wray"
	"github.com/wray-project/wray/wasm/abi"
)

// Bounds and defaults.
const (
	// InlineMax is the length in bytes from which a payload has a segment of
	// its own and can be mapped. Shorter ones live in the heap.
	InlineMax = 64 << 10

	// Align is the alignment in bytes of what can be mapped: windows are laid
	// in units of it. It is the size of a WebAssembly page.
	Align = abi.MapAlign

	// MaxPayload is the greatest length in bytes of a payload.
	MaxPayload = abi.MaxPayload

	// MaxRefs is the greatest number of references in one value.
	MaxRefs = 1 << 20

	// DefaultCapacity is the capacity in bytes of a store whose Config names
	// none.
	DefaultCapacity = 2 << 30

	// DefaultIdleTrim is how long a segment stays in the pool unused.
	DefaultIdleTrim = 30 * time.Second

	// CapacityFlag is the flag that errors name as the remedy for a full store.
	CapacityFlag = "--object-store-memory"
)

// Errors that callers branch on.
var (
	// ErrFull says that there is no room now. [Store.WaitSpace] and
	// [Store.OnSpace] tell when there is; [Store.FullError] is what to tell a
	// user who will not wait.
	ErrFull = errors.New("objectstore: full")

	// ErrSealed says that the object is not pending: somebody sealed or failed
	// it before. The earlier result stands.
	ErrSealed = errors.New("objectstore: object is not pending")

	// ErrExists says that an object of that ID is there already.
	ErrExists = errors.New("objectstore: object exists")

	// ErrClosed says that the store is closed.
	ErrClosed = errors.New("objectstore: closed")

	// ErrNotReady says that what was asked for is pending.
	ErrNotReady = errors.New("objectstore: not ready")

	// ErrNotMappable says that the payload has no segment of its own, so that
	// it is to be copied.
	ErrNotMappable = errors.New("objectstore: object is not mappable")
)

// Config says how a store is to be. The zero value of a field is its default.
type Config struct {
	// Capacity bounds the bytes of all objects and pooled segments together,
	// counted as what they reserve (a segment is up to an eighth larger than
	// its payload, or one Align for small ones). 0: DefaultCapacity.
	Capacity int64

	// MaxObjects bounds the objects, of all states, that are there; ErrObjects is
	// the error of one more, which may be another of the caller's. 0: no bound.
	MaxObjects int64
	ErrObjects error

	// MaxSegments bounds the segments alive at a time, each of which takes a
	// file descriptor and a mapping of the process. Past it, payloads live in
	// the heap and cannot be mapped. 0: what the process's limits allow.
	MaxSegments int

	// IdleTrim is how long a free segment waits for reuse before its memory
	// goes back to the system. 0: DefaultIdleTrim. Negative: for ever.
	IdleTrim time.Duration

	// OnPressure, when set, is told that need bytes were asked for and not
	// there, so that holders of handles can be made to drop some. It is called
	// for each refusal and each new waiter, from any goroutine.
	OnPressure func(need int64)

	// Heap keeps segments in the heap, as platforms without memfd do: nothing
	// can be mapped.
	Heap bool

	// Disk, when set, takes objects that memory has no room for. It stays the
	// caller's, and open for as long as there are objects.
	Disk Disk
}

// ensureDefaults fills in what was left zero.
func (c *Config) ensureDefaults() {
	if c.Capacity == 0 {
		c.Capacity = DefaultCapacity
	}
	if c.MaxSegments == 0 {
		c.MaxSegments = defaultMaxSegments()
	}
	if c.IdleTrim == 0 {
		c.IdleTrim = DefaultIdleTrim
	}
}

// validate reports what cannot be.
func (c *Config) validate() error {
	if c.Capacity < 0 || c.Capacity > MaxPayload {
		return fmt.Errorf("objectstore: capacity %d is outside 0 to %d", c.Capacity, int64(MaxPayload))
	}
	if c.MaxObjects < 0 || c.MaxObjects > 0 && c.ErrObjects == nil {
		return fmt.Errorf("objectstore: MaxObjects %d with the error %v", c.MaxObjects, c.ErrObjects)
	}
	if c.MaxSegments < 0 {
		return fmt.Errorf("objectstore: MaxSegments %d is negative", c.MaxSegments)
	}
	return nil
}

// Store holds the objects of one tenant. Its methods may be called by many
// goroutines at once.
type Store struct {
	cfg   Config
	mem   memory
	index index
	pool  pool
	space space
	spill spiller

	// inHeap counts payloads that would have a segment but for MaxSegments or
	// a refusal of the system.
	inHeap  atomic.Int64
	windows atomic.Int64
	clock   Clock

	closed    atomic.Bool
	closeOnce sync.Once
	background
}

// New returns a store for cfg. It fails for a Config that cannot be.
func New(cfg Config) (*Store, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg.ensureDefaults()
	s := &Store{cfg: cfg}
	s.mem = heapMemory{}
	if !cfg.Heap {
		s.mem = systemMemory()
	}
	s.index.init()
	s.index.counts = cfg.MaxObjects > 0
	s.pool.init()
	s.spill.init()
	s.space.limit = cfg.Capacity
	return s, nil
}

// Close refuses further puts, fails those who wait for room with ErrClosed,
// gives the pooled segments back to the system and waits for the store's
// goroutines. Objects that are still referenced stay readable, but for those on
// disk; their memory goes back as they are released. Close is idempotent, and every call returns
// only when the store is closed. It must not be called from a callback.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.closed.Store(true)
		close(s.spill.stopped)
		s.failWaiters()
		s.closePool()
		s.background.stop()
	})
	return nil
}

// Declare makes the pending object id and returns it with one reference,
// which the caller owns. ErrExists: there is one. A pending object takes no
// part of the capacity.
func (s *Store) Declare(id wray.ID) (*Object, error) { return s.DeclareFor(id, nil) }

// DeclareFor is Declare for an object that stands for a.
func (s *Store) DeclareFor(id wray.ID, a Attachment) (*Object, error) {
	if s.closed.Load() {
		return nil, ErrClosed
	}
	if err := s.crowded(); err != nil {
		return nil, err
	}
	o := &Object{id: id, store: s, attached: a, born: s.clock.Now()}
	o.refs.Store(1)
	if !s.index.add(o) {
		return nil, fmt.Errorf("%w: %v", ErrExists, id)
	}
	return o, nil
}

// TryPut stores v as the sealed object id and returns it with one reference,
// which the caller owns. The payload is copied, and every object in v.Refs
// gets one more reference, before TryPut returns; on an error nothing is kept.
//
// Errors: ErrFull, when there is no room now; a *wray.Error of CodeStoreFull,
// when there can never be; one of CodeBadArgument, when v is not valid;
// ErrExists; ErrClosed.
func (s *Store) TryPut(id wray.ID, v Value) (*Object, error) {
	if err := s.admits(&v); err != nil {
		return nil, err
	}
	if err := s.crowded(); err != nil {
		return nil, err
	}
	v.hold()
	kept := false
	defer func() {
		if !kept {
			v.letGo()
		}
	}()
	r, err := s.take(v.Size())
	if err != nil {
		return nil, err
	}
	o, err := s.putInto(id, v, r)
	kept = true // by the object, or they went with it
	return o, err
}

// admits reports what no object of this store may hold. A reference to another
// store's object is a bug of the worker and would cross tenants: it panics.
func (s *Store) admits(v *Value) error {
	for _, r := range v.Refs {
		if r.store != s {
			panic("BUG: objectstore: reference to an object of another store " + r.id.String())
		}
	}
	return checkShape(v.Encoding, v.Meta, uint64(len(v.Payload)), uint64(len(v.Refs)))
}

// crowded is the error of one object more. Several at once may pass the bound by
// as many as there are threads.
func (s *Store) crowded() error {
	if s.cfg.MaxObjects > 0 && s.index.live.Load() >= s.cfg.MaxObjects {
		return s.cfg.ErrObjects
	}
	return nil
}

// putInto makes the sealed object id from v in the room r, which it uses up.
func (s *Store) putInto(id wray.ID, v Value, r room) (*Object, error) {
	o := &Object{id: id, store: s, born: s.clock.Now()}
	o.refs.Store(1)
	o.fillHeld(v.Encoding, v.Meta, v.table(), s.copyIn(o, v.Payload, r, v.Step))
	o.state.Store(uint32(finalState(v.Encoding)))
	if !s.index.add(o) {
		o.Release()
		return nil, fmt.Errorf("%w: %v", ErrExists, id)
	}
	return o, nil
}

// Lookup returns the object id with one more reference, which the caller
// owns, or nil when there is none.
func (s *Store) Lookup(id wray.ID) *Object { return s.index.lookup(id) }

// Stats is a picture of a store. The figures are each exact; they are read one
// after the other, so sums hold only while nothing changes.
type Stats struct {
	Capacity int64 // bytes
	Used     int64 // bytes that objects, and windows of objects gone, reserve
	Pooled   int64 // bytes of segments that are free for reuse
	Peak     int64 // the most that Used and Pooled were together

	Objects        int   // alive, pending ones included
	Segments       int   // alive, in use or pooled
	SegmentsPooled int   // free for reuse
	SegmentsMade   int64 // ever made; those reused are counted once
	Windows        int64 // pins not given back
	Waiting        int   // who wait for room
	InHeap         int64 // large payloads in the heap for want of a segment

	OnDisk   int64 // bytes that the Disk has taken
	Away     int64 // objects that are on disk alone
	Spilled  int64 // bytes of payloads moved to disk, ever
	Restored int64 // bytes of payloads read back, ever
	Lost     int64 // objects that could not be read back
}

// Stats returns the store's figures.
func (s *Store) Stats() Stats {
	st := Stats{
		Capacity: s.cfg.Capacity,
		Peak:     s.space.peak.Load(),
		Objects:  s.index.len(),
		Windows:  s.windows.Load(),
		InHeap:   s.inHeap.Load(),
		Waiting:  int(s.space.waiting.Load()),
	}
	if s.cfg.Disk != nil {
		st.OnDisk = s.cfg.Disk.Used()
	}
	st.Away, st.Lost = s.spill.away.Load(), s.spill.lost.Load()
	st.Spilled, st.Restored = s.spill.spilled.Load(), s.spill.restored.Load()
	s.pool.mu.Lock()
	st.Segments = s.pool.alive
	st.SegmentsPooled = s.pool.free.n
	st.SegmentsMade = s.pool.made
	st.Pooled = s.pool.bytes
	st.Used = s.space.committed.Load() - st.Pooled
	s.pool.mu.Unlock()
	return st
}

// background counts the store's goroutines, so that Close can wait for them.
type background struct {
	bg struct {
		sync.Mutex
		stopped bool
		wg      sync.WaitGroup
	}
}

// start runs f in a goroutine that Close waits for. It reports false, and does
// not run f, when Close has begun to wait.
func (b *background) start(f func()) bool {
	b.bg.Lock()
	defer b.bg.Unlock()
	if b.bg.stopped {
		return false
	}
	b.bg.wg.Go(f)
	return true
}

// stop refuses new goroutines and waits for those there are.
func (b *background) stop() {
	b.bg.Lock()
	b.bg.stopped = true
	b.bg.Unlock()
	b.bg.wg.Wait()
}
