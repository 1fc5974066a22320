package objectstore

import (
	"sync"
	"sync/atomic"

	wray "github.com/wray-project/wray"
)

// indexShards is a power of two, large enough that goroutines seldom meet.
const (
	indexShardBits = 6
	indexShards    = 1 << indexShardBits
	indexMinimum   = 16 // buckets of a shard
)

// index finds live objects by ID. It holds no reference: an object leaves it
// as its last reference is released.
//
// It is a hash table chained through the objects themselves, because a put
// must not cost what two lookups in a map of 16-byte keys do (measured: 25% of
// a put), and because it shrinks. IDs are made by hosts, not guests, so nobody
// chooses them to collide.
type index struct {
	shards [indexShards]indexShard
	counts bool         // live is kept
	live   atomic.Int64 // objects that are in
}

type indexShard struct {
	mu      sync.Mutex
	buckets []*Object // guarded by mu, as are n and Object.sameBucket; a power of two of them
	n       int
	_       [64 - 40]byte // a cache line for each shard
}

func (x *index) init() {
	for i := range x.shards {
		x.shards[i].buckets = make([]*Object, indexMinimum)
	}
}

// hash spreads IDs: by multiplication with 2^64 divided by the golden ratio,
// Knuth, The Art of Computer Programming, vol. 3, section 6.4.
func hash(id wray.ID) uint64 { return (id.Seq ^ id.Owner<<1) * 0x9e3779b97f4a7c15 }

// shard and bucket use different bits of the hash.
func (x *index) shard(h uint64) *indexShard { return &x.shards[h>>(64-indexShardBits)] }

func (sh *indexShard) bucket(h uint64) **Object {
	return &sh.buckets[h>>20&uint64(len(sh.buckets)-1)]
}

// add enters o under its ID. It reports false when a live object is there; one
// that is being released is left to leave by itself.
func (x *index) add(o *Object) bool {
	h := hash(o.id)
	sh := x.shard(h)
	sh.mu.Lock()
	b := sh.bucket(h)
	for p := *b; p != nil; p = p.sameBucket {
		if p.id == o.id && p.refs.Load() > 0 {
			sh.mu.Unlock()
			return false
		}
	}
	o.sameBucket = *b
	*b = o
	o.indexed = true
	if x.counts {
		x.live.Add(1)
	}
	if sh.n++; sh.n > len(sh.buckets) {
		sh.resize(2 * len(sh.buckets))
	}
	sh.mu.Unlock()
	return true
}

// lookup returns the live object id with a reference more, or nil.
func (x *index) lookup(id wray.ID) *Object {
	h := hash(id)
	sh := x.shard(h)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for p := *sh.bucket(h); p != nil; p = p.sameBucket {
		if p.id == id && p.tryRetain() {
			return p
		}
	}
	return nil
}

// remove takes o out, if it is in.
func (x *index) remove(o *Object) {
	h := hash(o.id)
	sh := x.shard(h)
	sh.mu.Lock()
	if o.indexed {
		p := sh.bucket(h)
		for *p != o {
			p = &(*p).sameBucket
		}
		*p = o.sameBucket
		o.sameBucket, o.indexed = nil, false
		if x.counts {
			x.live.Add(-1)
		}
		if sh.n--; sh.n < len(sh.buckets)/8 && len(sh.buckets) > indexMinimum {
			sh.resize(len(sh.buckets) / 2)
		}
	}
	sh.mu.Unlock()
}

// resize spreads the shard's objects over n buckets. mu is held.
func (sh *indexShard) resize(n int) {
	old := sh.buckets
	sh.buckets = make([]*Object, n)
	for _, o := range old {
		for o != nil {
			next := o.sameBucket
			b := sh.bucket(hash(o.id))
			o.sameBucket = *b
			*b = o
			o = next
		}
	}
}

func (x *index) len() int {
	n := 0
	for i := range x.shards {
		sh := &x.shards[i]
		sh.mu.Lock()
		n += sh.n
		sh.mu.Unlock()
	}
	return n
}
