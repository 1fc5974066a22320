package objectstore

import (
	"fmt"
	"hash/crc32"
	"time"
)

// Where a part of a batch cannot be given back (Whole), what of it is of no use
// any more keeps its place until the rest has gone. So such batches are counted,
// and when they take more than twice what is of use in them, and a batch, the
// records of the emptiest are written anew, together, as they are.

// whole is what is known of a batch of which no part can be given back. All is
// guarded by spiller.mu; the batch is in spiller.wholes while a record in it is
// of use.
type whole struct {
	size, used int64        // bytes of it, and of the records that are of use
	members    []*residence // whose records were written to it
	settled    bool         // what could be moved of it has been: it is left alone until it changes
}

// enlist takes note of a batch that was written. Its records are nobody's yet.
func (s *Store) enlist(b *diskBatch, size int64, members []*residence) {
	w, ok := b.Batch.(Whole)
	if !ok || !w.Whole() {
		return
	}
	p := &s.spill
	p.mu.Lock()
	defer p.mu.Unlock()
	b.whole = &whole{size: size, used: size, members: members}
	if p.wholes == nil {
		p.wholes = map[*diskBatch]struct{}{}
	}
	p.wholes[b] = struct{}{}
	p.wholeSize += size
	p.wholeUsed += size
}

// freeCopy gives a place on disk back, now.
func (s *Store) freeCopy(c diskCopy) {
	n := c.data + c.index
	if c.batch.whole != nil {
		p := &s.spill
		p.mu.Lock()
		c.batch.whole.used -= n
		c.batch.whole.settled = false
		p.wholeUsed -= n
		p.mu.Unlock()
	}
	if !s.leaveBatch(c.batch) {
		c.batch.Punch(c.off, n)
	}
}

// leaveBatch has one fewer who needs b, and removes it with the last. It reports
// whether it did.
func (s *Store) leaveBatch(b *diskBatch) bool {
	p := &s.spill
	p.mu.Lock()
	last := b.live.Add(-1) == 0
	if last && b.whole != nil {
		delete(p.wholes, b)
		p.wholeSize -= b.whole.size
		p.wholeUsed -= b.whole.used // of records that nobody got
	}
	p.mu.Unlock()
	if last {
		b.Remove()
	}
	return last
}

// compact writes batches anew while they waste too much. Of sweep's goroutine,
// so that one at a time does.
func (s *Store) compact() {
	p := &s.spill
	if p.refused != (time.Time{}) && time.Since(p.refused) < spillRetry {
		return
	}
	p.refused = time.Time{}
	for !s.closed.Load() {
		from := s.sparse()
		if len(from) == 0 {
			return
		}
		err := s.rewrite(from)
		for _, b := range from {
			s.leaveBatch(b)
		}
		if err != nil { // they stay where they are
			p.refused = time.Now()
			return
		}
	}
}

// sparse returns the batches of which the least is of use, whose records make
// one new batch at most, while too much is wasted. The caller leaves each.
func (s *Store) sparse() (from []*diskBatch) {
	p := &s.spill
	p.mu.Lock()
	defer p.mu.Unlock()
	room := s.batchSize()
	if p.wholeSize-p.wholeUsed <= p.wholeUsed+room {
		return nil
	}
	for {
		var least *diskBatch
		for b := range p.wholes {
			w := b.whole
			if w.settled || w.used > room || w.used > w.size/4*3 {
				continue
			}
			if least == nil || w.used*least.whole.size < least.whole.used*w.size {
				least = b
			}
		}
		if least == nil {
			return from
		}
		least.whole.settled = true
		least.live.Add(1) // it has one record at least, and so has not gone
		room -= least.whole.used
		from = append(from, least)
	}
}

// moving is a record on its way to another batch. A reference on the object is
// held.
type moving struct {
	r        *residence
	from, to diskCopy
}

// rewrite writes the records of batches that are of use to a new batch, which is
// their place from then on. Those that are being read stay.
func (s *Store) rewrite(from []*diskBatch) error {
	var list []moving
	defer func() {
		for _, m := range list {
			m.r.object.Release()
		}
	}()
	bound := int64(0)
	for _, b := range from {
		s.spill.mu.Lock()
		members := b.whole.members
		s.spill.mu.Unlock()
		for _, r := range members {
			o := r.object
			if !o.tryRetain() {
				continue
			}
			o.mu.Lock()
			c, busy := r.copy, r.fetching
			o.mu.Unlock()
			if c.batch != b || busy {
				o.Release()
				continue
			}
			list = append(list, moving{r: r, from: c})
			bound += c.data + c.index
		}
	}
	if len(list) == 0 {
		return nil
	}
	batch, err := s.cfg.Disk.Create(bound)
	if err != nil {
		return err
	}
	to := &diskBatch{Batch: batch}
	size := int64(0)
	var members []*residence
	for i := range list {
		m := &list[i]
		n, err := copyRecord(batch, m.from, m.r.object)
		if err != nil {
			batch.Remove()
			return err
		}
		m.to = diskCopy{batch: to, off: size, data: m.from.data, index: m.from.index}
		size += n
		members = append(members, m.r)
	}
	if err := batch.Seal(); err != nil {
		batch.Remove()
		return err
	}
	to.live.Store(int64(len(list)))
	s.enlist(to, size, members)
	for _, m := range list {
		o := m.r.object
		o.mu.Lock()
		// Who began to read meanwhile has the old place; what was freed has none.
		old := m.to
		if m.r.copy == m.from && !m.r.fetching {
			old, m.r.copy = m.from, m.to
		}
		o.mu.Unlock()
		s.freeCopy(old)
	}
	return nil
}

// copyRecord copies a record as it is, of which every checksum must be right: a
// place that is good is not given up for one that is not.
func copyRecord(w interface{ Write([]byte) (int, error) }, from diskCopy, o *Object) (int64, error) {
	index := make([]byte, from.index)
	if err := readFull(from.batch, index, from.off+from.data); err != nil {
		return 0, err
	}
	rec, err := decodeIndex(index)
	if err != nil {
		return 0, err
	}
	if rec.id != o.id {
		return 0, fmt.Errorf("%w: it is object %v's: expected %v's", ErrBadRecord, rec.id, o.id)
	}
	most := bulkOf(from.batch)
	var buf []byte
	off, left := from.off, from.data
	for i := 0; i < len(rec.chunks); {
		first, n := i, int64(0)
		for i < len(rec.chunks) && (i == first || n+rec.chunks[i].len() <= most) {
			n += rec.chunks[i].len()
			i++
		}
		if left -= n; left < 0 {
			return 0, fmt.Errorf("%w: its chunks take more than %d bytes", ErrBadRecord, from.data)
		}
		if int64(cap(buf)) < n {
			buf = make([]byte, n)
		}
		p := buf[:n]
		if err := readFull(from.batch, p, off); err != nil {
			return 0, err
		}
		off += n
		rest := p
		for k, c := range rec.chunks[first:i] {
			if got := crc32.Checksum(rest[:c.len()], castagnoli); got != c.sum {
				return 0, fmt.Errorf("%w: the checksum of chunk %d is %#08x: expected %#08x", ErrBadRecord, first+k, got, c.sum)
			}
			rest = rest[c.len():]
		}
		if _, err := w.Write(p); err != nil {
			return 0, err
		}
	}
	if left != 0 {
		return 0, fmt.Errorf("%w: its chunks take %d bytes less than %d", ErrBadRecord, left, from.data)
	}
	_, err = w.Write(index)
	return from.data + from.index, err
}
