package bulk

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// Referrals sends nodes that want an object to others that fetch it already, so
// that it leaves who has it about once however many want it at one time: the
// nodes form a chain, each fetching chunks as they come to those before it. It
// belongs to the holder, knows no clock, and may be used from any goroutine.
type Referrals struct {
	mu sync.Mutex
	of map[string]*wanted // guarded by mu; by the object's name
}

// wanted is an object of which nodes have asked for others that have it.
type wanted struct {
	nodes []fetcher // in the order in which they asked first: each is sent to those before it, or they could wait for each other
	last  time.Time
}

type fetcher struct {
	node  string
	given int // how many nodes were sent there
	since time.Time
}

const (
	// ReferMin is the length in bytes from which on it pays to ask for others.
	ReferMin = 8 << 20
	// referMost is how many nodes one is sent to: where one of them is slow or
	// goes, the others give the more.
	referMost = 2
	// referKeep is how long a node is taken for one that has an object: it is
	// asked in vain after it has dropped it.
	referKeep = time.Minute
	// Most objects and nodes that are remembered.
	referObjects, referNodes = 1 << 10, 1 << 10
)

// Refer returns the nodes that from is to fetch an object of; none: of the holder
// itself. without are those that it was sent to and that did not give it.
func (r *Referrals) Refer(now time.Time, from string, name []byte, without []string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.of[string(name)]
	if w == nil {
		if len(r.of) >= referObjects {
			r.dropOldest()
		}
		if r.of == nil {
			r.of = map[string]*wanted{}
		}
		w = &wanted{}
		r.of[string(name)] = w
	}
	w.last = now
	w.nodes = slices.DeleteFunc(w.nodes, func(f fetcher) bool {
		return f.node != from && (now.Sub(f.since) > referKeep || slices.Contains(without, f.node))
	})
	at := slices.IndexFunc(w.nodes, func(f fetcher) bool { return f.node == from })
	switch {
	case at >= 0:
		w.nodes[at].since = now
	case len(w.nodes) >= referNodes:
		return nil
	default:
		at = len(w.nodes)
		w.nodes = append(w.nodes, fetcher{node: from, since: now})
	}
	before := make([]*fetcher, at)
	for i := range before {
		before[i] = &w.nodes[at-1-i] // the last first: it has the fewest that wait for it
	}
	slices.SortStableFunc(before, func(a, b *fetcher) int { return cmp.Compare(a.given, b.given) })
	before = before[:min(len(before), referMost)]
	var to []string
	for _, f := range before {
		f.given++
		to = append(to, f.node)
	}
	return to
}

// Forget drops a node that has gone.
func (r *Referrals) Forget(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.of {
		w.nodes = slices.DeleteFunc(w.nodes, func(f fetcher) bool { return f.node == node })
	}
}

// dropOldest forgets the object that was asked for longest ago. mu is held.
func (r *Referrals) dropOldest() {
	var oldest string
	for name, w := range r.of {
		if oldest == "" || w.last.Before(r.of[oldest].last) {
			oldest = name
		}
	}
	delete(r.of, oldest)
}
