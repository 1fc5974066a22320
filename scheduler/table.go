package scheduler

import "github.com/wray-project/wray"

// entry is the part of a record by which a table finds it.
type entry[T any] struct {
	id    wray.ID
	chain *T // in the same bucket
}

func (n *entry[T]) record() *entry[T] { return n }

// table finds records by their ID. It is a hash table chained through the
// records themselves: with maps of 16-byte keys a task takes the scheduler a
// quarter longer, 340 ns against 260 (measure: go test -bench Sync ./scheduler).
// IDs are made by hosts, not guests, so nobody chooses them to collide.
//
// It grows and shrinks by one bucket at a time, so that no event waits for a
// large table to be built anew (linear hashing: Litwin, VLDB 1980). The zero
// table is empty.
type table[T any, P interface {
	*T
	record() *entry[T]
}] struct {
	buckets []P
	mask    uint32 // len(buckets) rounded up to a power of two, less one
	n       int
}

// minBuckets is what a table has at least, once something was in it.
const minBuckets = 16

// hash spreads IDs: by multiplication with 2^64 divided by the golden ratio,
// Knuth, The Art of Computer Programming, vol. 3, section 6.4. The upper bits
// are the good ones.
func hash(id wray.ID) uint32 {
	return uint32((id.Seq ^ id.Owner<<1) * 0x9e3779b97f4a7c15 >> 32)
}

// bucket returns the number of the bucket for id. Those of the upper half that
// are not there yet are part of their counterparts in the lower half.
func (b *table[T, P]) bucket(id wray.ID) uint32 {
	i := hash(id) & b.mask
	if i >= uint32(len(b.buckets)) {
		i &= b.mask >> 1
	}
	return i
}

// get returns the record of id, or nil.
func (b *table[T, P]) get(id wray.ID) P {
	if b.n == 0 {
		return nil
	}
	for p := b.buckets[b.bucket(id)]; p != nil; p = p.record().chain {
		if p.record().id == id {
			return p
		}
	}
	return nil
}

// each calls f with every record, in an order that says nothing.
func (b *table[T, P]) each(f func(P)) {
	for _, p := range b.buckets {
		for ; p != nil; p = p.record().chain {
			f(p)
		}
	}
}

// add enters p, whose ID is not in the table.
func (b *table[T, P]) add(p P) {
	if b.buckets == nil {
		b.buckets, b.mask = make([]P, minBuckets), minBuckets-1
	}
	b.push(p)
	if b.n++; b.n > len(b.buckets) {
		b.split()
	}
}

func (b *table[T, P]) push(p P) {
	i := b.bucket(p.record().id)
	p.record().chain, b.buckets[i] = b.buckets[i], p
}

// remove takes p, which is in the table, out.
func (b *table[T, P]) remove(p P) {
	i := b.bucket(p.record().id)
	if b.buckets[i] == p {
		b.buckets[i] = p.record().chain
	} else {
		q := b.buckets[i].record()
		for P(q.chain) != p {
			q = P(q.chain).record()
		}
		q.chain = p.record().chain
	}
	p.record().chain = nil
	if b.n--; b.n < len(b.buckets)/4 && len(b.buckets) > minBuckets {
		b.merge()
		b.merge() // one alone would not get ahead of the records
	}
}

// split adds a bucket and moves to it what its counterpart keeps for it.
func (b *table[T, P]) split() {
	if uint32(len(b.buckets)) > b.mask {
		b.mask = b.mask<<1 | 1
	}
	from := uint32(len(b.buckets)) & (b.mask >> 1)
	b.buckets = append(b.buckets, nil)
	p := b.buckets[from]
	b.buckets[from] = nil
	b.spread(p)
}

// merge takes away the last bucket and gives what it holds to its counterpart.
func (b *table[T, P]) merge() {
	last := len(b.buckets) - 1
	if last < minBuckets {
		return
	}
	p := b.buckets[last]
	b.buckets[last] = nil
	b.buckets = b.buckets[:last]
	if uint32(last) <= b.mask>>1 {
		b.mask >>= 1
	}
	b.spread(p)
	if cap(b.buckets) > 4*last {
		b.buckets = append(make([]P, 0, 2*last), b.buckets...)
	}
}

// spread enters the records of a chain anew.
func (b *table[T, P]) spread(p P) {
	for p != nil {
		next := p.record().chain
		b.push(p)
		p = next
	}
}

// all calls f for each record, in no order, until it returns false.
func (b *table[T, P]) all(f func(P) bool) {
	for _, p := range b.buckets {
		for ; p != nil; p = p.record().chain {
			if !f(p) {
				return
			}
		}
	}
}
