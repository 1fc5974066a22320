package objectstore

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of what is written at once.
const (
	// spillBatch is the length that a batch is to have: long enough for a disk
	// to be fast, short enough that memory comes back while the next is
	// written. An object that is longer is a batch by itself.
	spillBatch = 64 << 20

	// spillGrace is what holders of handles have, when memory gets short, to
	// drop what they do not need: what is garbage need not be written.
	spillGrace = 10 * time.Millisecond

	// spillQuiet ends a time of short memory. Within it there is no grace.
	spillQuiet = time.Second

	// spillPresses is how long after memory was short checksums are taken of what
	// is put, as it is likely to go to disk.
	spillPresses = 10 * time.Second

	// spillAhead is how long after memory was short objects are moved out before
	// somebody waits for it.
	spillAhead = 250 * time.Millisecond

	// spillRetry is how long a Disk that refused is left alone, unless it got
	// room back.
	spillRetry = time.Second

	// spillReaders is how many payloads are read at once.
	spillReaders = 4
)

// SpillDirFlag and SpillLimitFlag are the flags that errors name as the remedy
// for a full disk.
const (
	SpillDirFlag   = "--spill-dir"
	SpillLimitFlag = "--spill-limit"
)

// spiller moves cold objects to disk. It knows them by their residences, in
// order of use, roughly: a new one is the youngest, and one that was used since
// the spiller came by is made the youngest then (the clock algorithm).
type spiller struct {
	readers  chan struct{} // holds one token for each restore that reads
	spilled  atomic.Int64  // bytes of payloads moved out, ever
	restored atomic.Int64  // bytes of payloads read back, ever
	away     atomic.Int64  // objects that are on disk alone
	pressed  atomic.Int64  // when memory was last short, in nanoseconds; 0: never
	lost     atomic.Int64  // objects that disk did not keep

	mu       sync.Mutex
	oldest   *residence // guarded by mu, as is all that follows
	youngest *residence
	n        int
	running  bool // a goroutine moves objects
	again    bool // it is to look once more
	dead     []diskCopy
	sweeping bool  // a goroutine gives dead copies back
	failure  error // why the last attempt to write failed; nil after one that did not

	// Batches of which no part can be given back (compact.go), and the bytes of
	// them and of what is of use in them.
	wholes               map[*diskBatch]struct{}
	wholeSize, wholeUsed int64

	// Of the goroutine that gives dead copies back.
	refused time.Time // when the disk took no batch of records written anew

	// Of the goroutine that moves objects.
	calm    time.Time // when memory was last short
	failed  time.Time
	usedAt  int64 // what the Disk had taken then
	packer  packer
	stopped chan struct{} // closed when the store closes
}

// diskBatch is a batch and how many of its records are of use.
type diskBatch struct {
	Batch
	live  atomic.Int64 // and one for who writes them anew
	whole *whole       // nil: parts of it can be given back; set before others know of it
}

// diskCopy is where a payload lies on disk. The zero diskCopy is nowhere.
type diskCopy struct {
	batch            *diskBatch
	off, data, index int64
}

// presses reports whether somebody found no room within the last d.
func (p *spiller) presses(d time.Duration) bool {
	at := p.pressed.Load()
	return at != 0 && time.Now().UnixNano()-at < int64(d)
}

func (p *spiller) init() {
	p.readers = make(chan struct{}, spillReaders)
	p.stopped = make(chan struct{})
}

// forget takes r out of the list.
func (p *spiller) forget(r *residence) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.listed {
		p.unlinkLocked(r)
	}
}

// enter makes r the youngest, where it can be moved to disk.
func (p *spiller) enter(r *residence) {
	p.mu.Lock()
	p.enterLocked(r)
	p.mu.Unlock()
}

func (p *spiller) enterLocked(r *residence) {
	if r.object.store.cfg.Disk == nil || r.lost.Load() != nil {
		return // it goes nowhere
	}
	r.listed, r.prev, r.next = true, p.youngest, nil
	if p.youngest == nil {
		p.oldest = r
	} else {
		p.youngest.next = r
	}
	p.youngest = r
	p.n++
}

func (p *spiller) unlinkLocked(r *residence) {
	if r.prev == nil {
		p.oldest = r.next
	} else {
		r.prev.next = r.next
	}
	if r.next == nil {
		p.youngest = r.prev
	} else {
		r.next.prev = r.prev
	}
	r.prev, r.next, r.listed = nil, nil, false
	p.n--
}

// take returns the oldest residence that was not used of late, with a
// reference on its object, out of the list; or nil. steps is how many it may
// look at, and is counted down.
func (p *spiller) take(steps *int) *residence {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.oldest != nil && *steps > 0 {
		*steps--
		r := p.oldest
		p.unlinkLocked(r)
		if r.touched.Swap(false) {
			p.enterLocked(r)
		} else if r.object.tryRetain() {
			return r
		} // else it is going
	}
	return nil
}

// leave takes an object that is going out of the list and gives back its place
// on disk. Nobody else has a reference.
func (s *Store) leave(o *Object) {
	s.spill.forget(o.residence)
	o.mu.Lock()
	o.isBackLocked()
	o.mu.Unlock()
	s.discard(o.residence.copy)
}

// discard gives a place on disk back, in a goroutine: whoever drops an object
// need not wait for a disk.
func (s *Store) discard(c diskCopy) {
	if c.batch == nil {
		return
	}
	p := &s.spill
	p.mu.Lock()
	p.dead = append(p.dead, c)
	if p.sweeping {
		p.mu.Unlock()
		return
	}
	p.sweeping = true
	p.mu.Unlock()
	if !s.start(s.sweep) {
		s.sweep() // the store is closing and starts nothing
	}
}

func (s *Store) sweep() {
	p := &s.spill
	for {
		p.mu.Lock()
		dead := p.dead
		p.dead = nil
		p.sweeping = len(dead) > 0
		p.mu.Unlock()
		if len(dead) == 0 {
			return
		}
		for _, c := range dead {
			s.freeCopy(c)
		}
		s.compact()
	}
}

// relieve has objects moved to disk, if there is one, until there is room for
// those who wait.
func (s *Store) relieve() {
	if s.cfg.Disk == nil {
		return
	}
	p := &s.spill
	p.mu.Lock()
	if p.running {
		p.again = true
		p.mu.Unlock()
		return
	}
	p.running = true
	p.mu.Unlock()
	if !s.start(s.spillAll) {
		p.mu.Lock()
		p.running = false
		p.mu.Unlock()
	}
}

// spillAll moves objects to disk until nobody waits for room and some is left
// besides, or nothing can be moved.
func (s *Store) spillAll() {
	p := &s.spill
	if time.Since(p.calm) > spillQuiet {
		grace := time.NewTimer(spillGrace)
		defer grace.Stop()
		select {
		case <-grace.C:
		case <-p.stopped:
		}
	}
	for {
		p.mu.Lock()
		p.again = false
		p.mu.Unlock()
		for !s.closed.Load() {
			n := s.shortfall()
			if n <= 0 || !s.spillSome(n) {
				break
			}
			s.serve()
		}
		s.serve()
		p.calm = time.Now()
		p.mu.Lock()
		if !p.again || s.closed.Load() {
			p.running = false
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
	}
}

// batchSize returns how long a batch is to be: in a small store a part of it,
// so that what is being written is not all there is.
func (s *Store) batchSize() int64 { return max(min(spillBatch, s.cfg.Capacity/8), InlineMax) }

// shortfall returns how many bytes are to be moved out of memory: what the
// first of those who wait needs, and room for a batch or two ahead, so that
// writing goes on while puts take what the last batch gave.
func (s *Store) shortfall() int64 {
	s.space.mu.Lock()
	need := int64(0)
	if w := s.space.head; w != nil {
		r := s.want(w.size)
		need = r.charge + r.length
	}
	s.space.mu.Unlock()
	s.pool.mu.Lock()
	pooled := s.pool.bytes
	s.pool.mu.Unlock()
	free := s.cfg.Capacity - s.space.committed.Load() + pooled
	return max(need, min(3*s.batchSize(), s.cfg.Capacity*3/8)) - free
}

// victim is an object that is being written.
type victim struct {
	r    *residence
	view View
	copy diskCopy
}

// spillSome moves objects of about n bytes, one batch at most, out of memory.
// It reports false where there was nothing to move, or no place for it.
func (s *Store) spillSome(n int64) bool {
	p := &s.spill
	n = min(max(n, s.batchSize()/4), s.batchSize())
	moved := false
	var batch []victim
	p.mu.Lock()
	steps := 2 * p.n // everything once, and once more what was used of late
	p.mu.Unlock()
	for n > 0 {
		r := p.take(&steps)
		if r == nil {
			break
		}
		o := r.object
		if o.detach(0) { // it has been on disk before
			n -= o.length
			moved = true
			o.Release()
			continue
		}
		if v, ok := o.forDisk(); ok {
			n -= o.length
			batch = append(batch, victim{r: r, view: v})
			continue
		}
		p.enter(r)
		o.Release()
	}
	if len(batch) == 0 {
		return moved
	}
	err := s.writeBatch(batch)
	p.mu.Lock()
	p.failure = err
	p.mu.Unlock()
	for i := range batch {
		v := &batch[i]
		o := v.r.object
		if err == nil {
			o.mu.Lock()
			freed := v.r.lost.Load() != nil
			if !freed {
				v.r.copy = v.copy
			}
			o.mu.Unlock()
			if freed {
				s.discard(v.copy)
			}
		}
		views := int32(0)
		if v.view.segment != nil {
			views = 1
		}
		if err == nil && o.detach(views) {
			moved = true
			p.spilled.Add(o.length)
		} else {
			p.enter(v.r) // somebody uses it now
		}
		if v.view.segment != nil {
			s.unuse(v.view.segment) // the caller serves who waits
		}
		o.Release()
	}
	return moved
}

// forDisk returns a view of a payload that may be moved out of memory.
func (o *Object) forDisk() (View, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.residence.kept || o.lost() != nil || o.segment != nil && o.segment.users.Load() > 1 {
		return View{}, false
	}
	v := o.viewLocked()
	o.residence.touched.Store(false)
	return v, true
}

// writeBatch writes the victims to a new batch and notes where they are.
func (s *Store) writeBatch(victims []victim) error {
	p := &s.spill
	if p.failure != nil && time.Since(p.failed) < spillRetry && s.cfg.Disk.Used() >= p.usedAt {
		return p.failure
	}
	bound := int64(0)
	for i := range victims {
		o := victims[i].r.object
		bound += recordBound(uint64(o.length), len(o.table))
	}
	var err error
	// Each failure makes the disk choose another place, until it has none.
	for range 64 {
		var b Batch
		b, err = s.cfg.Disk.Create(bound)
		if err != nil {
			break
		}
		if err = s.writeTo(b, victims); err == nil {
			return nil
		}
	}
	if !errors.Is(err, ErrDiskFull) {
		err = fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	p.failed, p.usedAt = time.Now(), s.cfg.Disk.Used()
	return err
}

// writeTo writes the victims to b and seals it, or removes it.
func (s *Store) writeTo(b Batch, victims []victim) (err error) {
	to := &diskBatch{Batch: b}
	at := int64(0)
	_, takesFiles := b.(FileWriter)
	var files []*os.File
	defer func() {
		if err != nil {
			b.Remove()
		}
		for _, f := range files {
			f.Close()
		}
	}()
	for i := range victims {
		v := &victims[i]
		o := v.r.object
		h := Header{Encoding: o.encoding, Meta: o.meta, Len: uint64(o.length)}
		for _, r := range o.table {
			h.Refs = append(h.Refs, r.id)
		}
		from := source{p: v.view.payload, sums: v.r.sums}
		if g := v.view.segment; takesFiles && g.mappable() {
			if f, err := duplicate(g.fd); err == nil {
				files = append(files, f)
				from.file = f
			}
		}
		data, index, err := s.spill.packer.write(b, o.id, h, from)
		if err != nil {
			return err
		}
		v.copy = diskCopy{batch: to, off: at, data: data, index: index}
		at += data + index
	}
	to.live.Store(int64(len(victims)))
	// The files are read until here, or until b was removed.
	if err := b.Seal(); err != nil {
		return err
	}
	members := make([]*residence, len(victims))
	for i := range victims {
		members[i] = victims[i].r
	}
	s.enlist(to, at, members)
	return nil
}
