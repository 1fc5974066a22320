package worker

import "github.com/wray-project/wray/objectstore"

// watchStream takes note that the guest waits for a stream. False: it does, and
// a READY is on its way.
func (g *guest) watchStream(st *objectstore.Stream) bool {
	g.out.Lock()
	defer g.out.Unlock()
	if _, yes := g.out.streams[st]; yes {
		return false
	}
	if g.out.streams == nil {
		g.out.streams = map[*objectstore.Stream]struct{}{}
	}
	g.out.streams[st] = struct{}{}
	return true
}

func (g *guest) unwatchStream(st *objectstore.Stream) {
	g.out.Lock()
	defer g.out.Unlock()
	delete(g.out.streams, st)
}

// streamWatcher is a function as an objectstore.StreamWatcher.
type streamWatcher func()

// StreamReady calls f.
func (f streamWatcher) StreamReady(*objectstore.Stream) { f() }
