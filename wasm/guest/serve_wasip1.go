package guest

import (
	"runtime"
	"time"
	"unsafe"

	"github.com/wray-project/wray/wasm/abi"
)

// serving is the calls that are under way in an actor that takes several at
// once. Each has a goroutine for as long as it runs, in one operation SERVE:
// exports that overlap would return to each other's callers.
var serving struct {
	calls  []*Call       // that have begun
	starts numbers       // of calls that have not, the oldest first
	count  int           // of calls, begun or not
	none   chan struct{} // holds a token when count came down to zero
	picked uint64        // the call that the host thinks of; 0: none

	// idle are the servers that wait, the last one first, which has run most
	// recently. While there are starts one server is on its way to them: whoever
	// takes a call and leaves others sees to that. So calls that do not wait run
	// one after the other on one goroutine, and one that waits holds up nobody.
	idle   *server
	idling int
	coming int // servers that will look at the starts when they have a turn
}

// A server is a goroutine that runs calls, one after the other. A new one for
// each call would cost several times what a small call does: its stack begins
// small and is moved whenever it grows.
type server struct {
	next *server
	wake chan struct{}
	buf  [serverBuf]byte // what task_input gave, where it fits
}

const (
	serverBuf = 256
	// mostIdle is how many servers are kept for the next calls.
	mostIdle = 64
	// turnCalls is how many calls a server runs before others have a turn, where
	// there may be others.
	turnCalls = 16
)

// numbers is a queue.
type numbers struct {
	items []uint64
	head  int
}

func (q *numbers) len() int { return len(q.items) - q.head }

func (q *numbers) push(n uint64) { q.items = append(q.items, n) }

func (q *numbers) pop() uint64 {
	n := q.items[q.head]
	if q.head++; q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
	return n
}

// start has a call run. Goroutines begin in another order than the one in which
// they were made, so each takes the call whose turn it is when it begins.
func start(number uint64) {
	serving.count++
	serving.starts.push(number)
	sendServer()
}

// sendServer sees to it that a server is on its way to the starts.
func sendServer() {
	if serving.coming > 0 {
		return
	}
	serving.coming++
	if s := serving.idle; s != nil {
		serving.idle = s.next
		serving.idling--
		s.wake <- struct{}{} // holds one, and s has none
		return
	}
	go newServer().run()
}

func newServer() *server { return &server{wake: make(chan struct{}, 1)} }

func (s *server) run() {
	for {
		serving.coming--
		for n := 1; serving.starts.len() > 0; n++ {
			number := serving.starts.pop()
			if serving.starts.len() > 0 {
				sendServer()
			}
			s.serve(number)
			if len(serving.calls) > 0 || n%turnCalls == 0 {
				// Who waits may go on, and so may what a call left running.
				serving.coming++
				runtime.Gosched()
				serving.coming--
			}
			if serving.starts.len() == 0 || n%turnCalls == 0 {
				drain()
			}
		}
		if serving.idling == mostIdle {
			return
		}
		serving.idling++
		s.next, serving.idle = serving.idle, s
		<-s.wake
	}
}

// serve runs calls until none is under way.
func serve() uint32 {
	isActor = true
	if serving.none == nil {
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

// serve runs a call.
func (s *server) serve(number uint64) {
	c := &Call{number: number, served: true}
	c.ctx = newContext()
	c.at, serving.calls = len(serving.calls), append(serving.calls, c)
	defer c.over() // a method may call runtime.Goexit
	c.pick()
	x := takeScratch()
	e := c.read(x, importTaskInput(unsafe.Pointer(&x.buf), inputMax, &x.out))
	if ok(e) && c.input != nil {
		// Many calls may wait, so none keeps a scratch.
		into, own := s.buf[:0], false
		if len(c.buf) > len(s.buf) {
			into, own = allocate(len(c.buf))[:0], true
		}
		c.buf, c.owned = append(into, c.buf...), own
		c.input = nil
		c.parse()
	}
	x.give()
	if ok(e) {
		c.ctx.limit(time.Duration(c.head.timeout))
		c.invoke()
	}
}

// over ends a call that was served.
func (c *Call) over() {
	c.ctx.end()
	c.pick()
	importCallEnd()
	serving.picked = 0
	last := len(serving.calls) - 1
	moved := serving.calls[last]
	serving.calls[c.at], moved.at = moved, c.at
	serving.calls[last] = nil
	serving.calls = serving.calls[:last]
	c.buf, c.args, c.name = nil, nil, nil
	if serving.count--; serving.count == 0 {
		select {
		case serving.none <- struct{}{}:
		default:
		}
	}
}

// servedCall returns the call of a number, which has begun, or nil.
func servedCall(number uint64) *Call {
	for _, c := range serving.calls {
		if c.number == number {
			return c
		}
	}
	return nil
}

// pick makes c the call that the host's imports of tasks mean. No other
// goroutine runs between that and the import.
func (c *Call) pick() {
	if c.served && serving.picked != c.number {
		importCallSelect(c.number)
		serving.picked = c.number
	}
}
