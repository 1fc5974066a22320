package guest

import (
	"runtime/debug"
	"runtime/metrics"
)

// A pacer keeps the collector's target what it would be without windows. The
// collector runs next when the heap has grown by GOGC percent of what was
// live, and counts W bytes of windows as live although they hold no garbage.
// With N bytes of other live heap, the growth that GOGC means is
// max(N, 4 MiB)·GOGC/100 (4 MiB is the runtime's least), so the percentage
// to set is that growth over N+W.
type pacer struct {
	goal  int // the program's GOGC
	set   int // what the pacer set, 0 before
	bytes int // of windows, when it did
	busy  bool
}

const minHeap = 4 << 20

// changed is told that windows.bytes changed. The setting stops the world, so
// it is only renewed when windows grew or shrank by a quarter.
func (p *pacer) changed() {
	diff := windows.bytes - p.bytes
	if max(diff, -diff) < max(p.bytes/4, minHeap) || p.busy {
		return
	}
	p.busy = true
	go func() {
		defer func() { p.busy = false }()
		p.adjust()
	}()
}

func (p *pacer) adjust() {
	w := windows.bytes
	p.bytes = w
	prev := debug.SetGCPercent(100)
	if prev != p.set { // the program's own setting
		p.goal = prev
	}
	next := p.goal
	if p.goal > 0 && w >= minHeap {
		other := max(liveHeap()-w, minHeap)
		next = max(1, p.goal*other/(other+w))
	}
	p.set = next
	debug.SetGCPercent(next)
}

// liveHeap is what the last collection found to be live, in bytes.
func liveHeap() int {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return int(s[0].Value.Uint64())
}
