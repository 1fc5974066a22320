package worker

import (
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/objectstore"
)

// stash keeps the states of actors: those that sleep, and checkpoints. They are
// in memory, in order of age; where they take more there than they may, the
// oldest are moved to disk, many at once. What disk they take is at most twice
// what is of use in them, and a batch or two.
//
// A batch is nothing but states, one after the other: where each lies, and its
// checksum, is known to this process alone, whose end is the end of the batches,
// too. So nothing can be found torn.
type stash struct {
	disk   objectstore.Disk // nil: there is none
	budget int64            // of bytes in memory
	batch  int64            // how long a batch is to be
	slack  int64            // what batches may take beyond twice what is of use
	retry  time.Duration    // how long a disk that refused is left alone, unless it got room back
	start  func(func())     // runs a goroutine that the worker waits for

	collector *collector

	mu               sync.Mutex
	roomy            *sync.Cond // signaled when a write has ended, well or not
	oldest, youngest *kept      // guarded by mu, as is all that follows; those in memory
	bytes            int64      // of those, and of files of checkpoints
	batches          map[*stashBatch]struct{}
	size, live       int64 // bytes of all batches, and of what is of use in them
	writing          bool  // a goroutine moves states
	failure          error // why the last write failed; nil after one that did not
	failed           time.Time
	usedAt           int64 // what the disk had taken then
}

// kept is a state in a stash.
type kept struct {
	// All guarded by stash.mu.
	state      *sandbox.State // nil: it is on disk
	held       int64          // counted in stash.bytes while state is there
	refs       int32          // of who keeps it
	listed     bool
	prev, next *kept

	batch *stashBatch // where it is on disk
	off   int64
	len   uint32
	sum   uint32 // CRC-32C
}

// stashBatch is a batch of states on disk.
type stashBatch struct {
	objectstore.Batch
	states     []*kept
	size, live int64 // guarded by stash.mu
	readers    int   // guarded by stash.mu; who removes it waits for them
	gone       bool  // guarded by stash.mu; it is removed when there are no readers
}

// defaultStates is what states may take of memory where tasks may hold so much.
func defaultStates(memory int64) int64 { return max(memory/32, 64<<20) }

// errStateLost says that a state is not what was kept.
var errStateLost = errors.New("the state is lost")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func newStash(disk objectstore.Disk, budget int64, c *collector, start func(func())) *stash {
	s := &stash{collector: c, disk: disk, budget: budget, batch: 4 << 20, slack: 16 << 20, retry: time.Second, start: start, batches: map[*stashBatch]struct{}{}}
	s.roomy = sync.NewCond(&s.mu)
	return s
}

// most is how many bytes are kept in memory where the disk takes no more.
func (s *stash) most() int64 {
	if s.disk == nil {
		return 16 * s.budget
	}
	return 2 * s.budget
}

// admit waits until there is room for one more state. The error is what keeps
// an actor from sleeping.
func (s *stash) admit() *wray.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.disk != nil && s.bytes > s.budget+s.budget/2 && s.relieveLocked() {
		s.roomy.Wait()
	}
	return s.fullLocked()
}

// full returns why no state is taken in, nil where one is.
func (s *stash) full() *wray.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fullLocked()
}

func (s *stash) fullLocked() *wray.Error {
	if s.bytes < s.most() || s.disk != nil && s.failure == nil {
		return nil
	}
	why := "there is no disk to move them to"
	if s.failure != nil {
		why = s.failure.Error()
	}
	return &wray.Error{Code: wray.CodeLimitExceeded,
		Message: fmt.Sprintf("the states of actors that sleep take %d bytes of memory: %s", s.bytes, why),
		Limit:   &wray.Limit{Name: "memory for actors that sleep", Value: s.most(), Unit: "bytes", Flag: objectstore.SpillLimitFlag},
		Hint: "free room on the disk, name another with " + objectstore.SpillDirFlag + ", raise " + objectstore.SpillLimitFlag +
			", or have fewer actors"}
}

// keep takes a state in. The caller drops it.
func (s *stash) keep(state *sandbox.State) *kept {
	k := &kept{state: state, held: int64(state.Held()), refs: 1}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.countLocked(k.held)
	if s.disk != nil && state.Kept() == 0 { // else it is a file, and no bytes of the heap
		s.listLocked(k)
		s.relieveLocked()
	}
	return k
}

// share has one more who keeps k.
func (s *stash) share(k *kept) *kept {
	s.mu.Lock()
	k.refs++
	s.mu.Unlock()
	return k
}

// countLocked takes note of n more bytes in memory.
func (s *stash) countLocked(n int64) {
	s.bytes += n
	s.collector.stays(n)
}

// collector sets how much the heap grows between two collections. What actors
// take of it stays long and is collected in vain, so where that is most of it,
// that is less than usual.
type collector struct{ bytes atomic.Int64 }

// What an actor takes beside its state, and a sandbox, of the heap, about.
const (
	actorHeap   = 3 << 10
	sandboxHeap = 120 << 10
)

// stays takes note of so many more bytes.
func (c *collector) stays(n int64) {
	now := c.bytes.Add(n)
	if p := growth(now); p != growth(now-n) {
		debug.SetGCPercent(p)
	}
}

// growth is how much the heap may grow between two collections, in percent, where
// so many bytes of it stay. A collection costs time for what is live, and there
// are about log(live)/log(1+growth) on the way to it: a million actors cost 16 s
// of processor time at 15%, 8 s at 30%, and a gigabyte less.
func growth(stays int64) int {
	switch {
	case stays < 64<<20:
		return 200 // a heap without actors is small, and what tasks leave in it much
	case stays < 256<<20:
		return 100
	case stays < 1<<30:
		return 30
	default:
		return 15
	}
}

func (s *stash) listLocked(k *kept) {
	k.listed, k.prev, k.next = true, s.youngest, nil
	if s.youngest == nil {
		s.oldest = k
	} else {
		s.youngest.next = k
	}
	s.youngest = k
}

func (s *stash) unlistLocked(k *kept) {
	if !k.listed {
		return
	}
	if k.prev == nil {
		s.oldest = k.next
	} else {
		k.prev.next = k.next
	}
	if k.next == nil {
		s.youngest = k.prev
	} else {
		k.next.prev = k.prev
	}
	k.prev, k.next, k.listed = nil, nil, false
}

// held returns the bytes that k takes of memory, 0 where it is on disk.
func (s *stash) held(k *kept) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k.state == nil {
		return 0
	}
	return k.held
}

// figures returns the bytes of memory and of disk that are of use.
func (s *stash) figures() (memory, disk int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes, s.live
}

// get returns the state that k is, from wherever it is. Errors wrap
// errStateLost.
func (s *stash) get(k *kept) (*sandbox.State, error) {
	s.mu.Lock()
	if k.state != nil {
		defer s.mu.Unlock()
		return k.state, nil
	}
	b, off, n, sum := k.batch, k.off, k.len, k.sum
	b.readers++
	s.mu.Unlock()
	p, err := b.read(off, n, sum)
	s.mu.Lock()
	b.readers--
	s.removeLocked(b)
	s.mu.Unlock()
	if err == nil {
		var state *sandbox.State
		if state, err = sandbox.UnmarshalState(p); err == nil {
			return state, nil
		}
	}
	return nil, fmt.Errorf("%w: it was moved to disk (%s) for want of memory, and cannot be read back: %w", errStateLost, b.name(), err)
}

func (b *stashBatch) name() string {
	if n, ok := b.Batch.(fmt.Stringer); ok {
		return n.String()
	}
	return "a batch"
}

// read returns the n bytes at off, whose checksum is to be sum.
func (b *stashBatch) read(off int64, n, sum uint32) ([]byte, error) {
	p := make([]byte, n)
	if m, err := b.ReadAt(p, off); m < len(p) {
		return nil, fmt.Errorf("%d bytes of %d are there: %w", m, n, err)
	}
	if got := crc32.Checksum(p, castagnoli); got != sum {
		return nil, fmt.Errorf("the checksum is %#08x: expected %#08x", got, sum)
	}
	return p, nil
}

// free drops k, which is a checkpoint, and closes the file that it may lie in.
func (s *stash) free(k *kept) {
	s.mu.Lock()
	state := k.state
	s.mu.Unlock()
	if state != nil && state.Kept() > 0 {
		state.Free()
	}
	s.drop(k)
}

// drop lets go of k.
func (s *stash) drop(k *kept) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k.refs--; k.refs > 0 {
		return
	}
	if k.state != nil {
		s.unlistLocked(k)
		s.countLocked(-k.held)
		k.state = nil
		s.roomy.Broadcast()
	}
	if k.batch != nil {
		s.diesLocked(k.batch, int64(k.len))
		k.batch = nil
		s.relieveLocked()
	}
}

// diesLocked takes note that n bytes of b are of no use any more.
func (s *stash) diesLocked(b *stashBatch, n int64) {
	b.live -= n
	s.live -= n
	if b.live == 0 && !b.gone {
		b.gone = true
		delete(s.batches, b)
		s.size -= b.size
		s.removeLocked(b)
	}
}

// removeLocked gives a batch back of which nothing is of use, and that nobody
// reads.
func (s *stash) removeLocked(b *stashBatch) {
	if b.gone && b.readers == 0 {
		b.readers = -1 // once
		s.start(b.Remove)
	}
}

// wastesLocked reports whether batches are to be written anew, for what is of
// no use in them.
func (s *stash) wastesLocked() bool { return s.size-s.live > s.live+s.slack }

// relieveLocked has states moved to disk where that is due, and reports whether
// one more write is to be waited for.
func (s *stash) relieveLocked() bool {
	if s.writing {
		return true
	}
	if s.disk == nil || s.bytes <= s.budget && !s.wastesLocked() || s.oldest == nil && !s.wastesLocked() {
		return false
	}
	if s.failure != nil && time.Since(s.failed) < s.retry && s.disk.Used() >= s.usedAt {
		return false
	}
	s.writing = true
	s.start(s.write)
	return true
}

// write moves the oldest states to disk until those in memory take 7/8 of what
// they may, and writes batches anew of which little is of use.
func (s *stash) write() {
	for {
		s.mu.Lock()
		var moved []*kept
		var from []*stashBatch // whose states are written anew
		n := int64(0)
		for s.bytes-n > s.budget-s.budget/8 && n < s.batch && s.oldest != nil {
			k := s.oldest
			s.unlistLocked(k)
			k.refs++ // given back below
			moved = append(moved, k)
			n += k.held
		}
		if len(moved) == 0 && s.wastesLocked() {
			from, moved = s.sparseLocked()
		}
		if len(moved) == 0 {
			s.writing = false
			s.roomy.Broadcast()
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		err := s.writeBatch(moved, from != nil)
		s.mu.Lock()
		for _, b := range from {
			b.readers--
			s.removeLocked(b)
		}
		s.failure = err
		if err != nil {
			s.failed, s.usedAt = time.Now(), s.disk.Used()
			for i := len(moved) - 1; i >= 0; i-- { // the oldest again
				if k := moved[i]; k.state != nil {
					k.listed, k.next = true, s.oldest
					if s.oldest == nil {
						s.youngest = k
					} else {
						s.oldest.prev = k
					}
					s.oldest = k
				}
			}
			s.writing = false
		}
		s.roomy.Broadcast()
		s.mu.Unlock()
		for _, k := range moved {
			s.drop(k)
		}
		if err != nil {
			return
		}
	}
}

// sparseLocked returns the batches of which the least is of use, for one batch,
// and the states in them. The caller counts as a reader of each, and keeps
// the states.
func (s *stash) sparseLocked() (from []*stashBatch, moved []*kept) {
	n := int64(0)
	for n < s.batch {
		var b *stashBatch
		for c := range s.batches {
			if c.readers == 0 && c.live < c.size/2+c.size/4 && n+c.live <= s.batch && (b == nil || c.live*b.size < b.live*c.size) {
				b = c
			}
		}
		if b == nil {
			return from, moved
		}
		n += b.live
		b.readers++
		from = append(from, b)
		for _, k := range b.states {
			if k.batch == b {
				k.refs++
				moved = append(moved, k)
			}
		}
	}
	return from, moved
}

// placed is where a state lies in a batch.
type placed struct {
	k        *kept
	off      int64
	len, sum uint32
}

// writeBatch writes states to a new batch, which is their place from then on.
// The caller keeps them. again: they are on disk, and the batches they are in
// stay until it returns.
func (s *stash) writeBatch(moved []*kept, again bool) error {
	bound := int64(1)
	s.mu.Lock()
	for _, k := range moved {
		if again {
			bound += int64(k.len)
		} else {
			bound += k.state.EncodedMax()
		}
	}
	s.mu.Unlock()
	var b *stashBatch
	var places []placed
	var err error
	// Each failure makes the disk choose another place, until it has none.
	for range 64 {
		batch, e := s.disk.Create(bound)
		if e != nil {
			return e
		}
		b = &stashBatch{Batch: batch}
		if places, err = s.writeTo(b, moved, again); err == nil {
			break
		}
		batch.Remove()
	}
	if err != nil {
		return err
	}
	b.live = b.size
	b.states = make([]*kept, 0, len(places))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.batches[b] = struct{}{}
	s.size += b.size
	s.live += b.live
	for _, at := range places {
		k := at.k
		if k.state != nil {
			s.countLocked(-k.held)
			k.state = nil
		}
		if k.batch != nil {
			s.diesLocked(k.batch, int64(k.len))
		}
		k.batch, k.off, k.len, k.sum = b, at.off, at.len, at.sum
		b.states = append(b.states, k)
	}
	return nil
}

func (s *stash) writeTo(b *stashBatch, moved []*kept, again bool) ([]placed, error) {
	places := make([]placed, 0, len(moved))
	for _, k := range moved {
		s.mu.Lock()
		state, from, off, n, sum := k.state, k.batch, k.off, k.len, k.sum
		s.mu.Unlock()
		var p []byte
		var err error
		if again {
			p, err = from.read(off, n, sum)
		} else {
			p, err = state.MarshalBinary()
		}
		if err != nil || len(p) > math.MaxUint32 {
			continue // it stays where it is; who wants it is told
		}
		if _, err := b.Write(p); err != nil {
			return nil, err
		}
		places = append(places, placed{k, b.size, uint32(len(p)), crc32.Checksum(p, castagnoli)})
		b.size += int64(len(p))
	}
	if len(places) == 0 {
		return nil, errors.New("nothing of it can be read")
	}
	return places, b.Seal()
}
