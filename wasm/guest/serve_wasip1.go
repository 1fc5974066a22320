package guest

import (
	"time"

	"github.com/wray-project/wray/wasm/abi"
)

// serving is the calls that are under way in an actor that takes several at
// once. Each runs on a goroutine of its own, in one operation SERVE: exports
// that overlap would return to each other's callers.
var serving struct {
	calls  map[uint64]*Call // by number
	starts []uint64         // calls to start, the oldest first
	count  int              // of calls, begun or not
	none   chan struct{}    // holds a token when count came down to zero
	picked uint64           // the call that the host thinks of; 0: none
}

// start has a call run. Goroutines begin in another order than the one in which
// they were made, so each takes the call whose turn it is when it begins.
func start(number uint64) {
	serving.count++
	serving.starts = append(serving.starts, number)
	go serveNext()
}

// serve runs calls until none is under way.
func serve() uint32 {
	isActor = true
	if serving.calls == nil {
		serving.calls = make(map[uint64]*Call)
		serving.none = make(chan struct{}, 1)
	}
	if err := openEvents(); err != nil {
		return uint32(abi.EIO)
	}
	for drain(); serving.count > 0; drain() {
		<-serving.none
	}
	flushDrops()
	return 0
}

// serveNext runs the call whose turn it is.
func serveNext() {
	number := serving.starts[0]
	serving.starts = serving.starts[1:]
	c := &Call{number: number, served: true}
	c.ctx = newContext()
	serving.calls[number] = c
	defer func() { // a method may call runtime.Goexit
		c.ctx.end()
		c.pick()
		importCallEnd()
		serving.picked = 0
		delete(serving.calls, number)
		if serving.count--; serving.count == 0 {
			select {
			case serving.none <- struct{}{}:
			default:
			}
		}
	}()
	c.pick()
	s := takeScratch()
	e := c.read(s)
	if ok(e) && c.input != nil {
		// Many calls may wait, so none keeps a scratch.
		c.buf, c.input = append(allocate(len(c.buf))[:0], c.buf...), nil
		c.parse()
	}
	s.give()
	if ok(e) {
		c.ctx.limit(time.Duration(c.head.timeout))
		c.invoke()
	}
}

// pick makes c the call that the host's imports of tasks mean. No other
// goroutine runs between that and the import.
func (c *Call) pick() {
	if c.served && serving.picked != c.number {
		importCallSelect(c.number)
		serving.picked = c.number
	}
}
