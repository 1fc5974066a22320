package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// client is a native program that drives a job over a socket, in place of a
// driver in a sandbox. To the rest of the worker it is a guest: its handles are
// a guest's, and its submissions are read by what reads those of guests, with
// the message in place of linear memory. What it sends is as hostile.
//
// Two goroutines work for it: the one that runs serve reads and carries out
// commands, and a second writes answers to what was not there at once.
type client struct {
	g    *guest
	conn *link.Conn

	// mu guards the guest's handles, mapped and watches. It is not held while
	// anything waits, nor by callbacks of the store.
	mu      sync.Mutex
	mapped  map[uint32]*objectstore.Window // by the number of the answer
	watches []*clientWatch
	bye     bool

	writing sync.Mutex    // held by whoever writes answers
	wake    chan struct{} // holds one token when there are answers to write
	space   chan struct{} // holds one token when what was refused is worth a try

	out struct {
		sync.Mutex
		queue  []answer
		later  map[*latePut]struct{}
		held   int64 // bytes of the payloads in later that are in memory
		files  int   // of those in later
		closed bool
	}
	owed atomic.Int64 // answers that were asked for and not written
}

// answer is a record to be written. It owns one reference on object and stream.
type answer struct {
	op     clientwire.Op
	a, b   uint32
	errno  abi.Errno
	err    *wray.Error
	object *objectstore.Object
	stream *objectstore.Stream
	view   objectstore.View // of object, where it was on disk
}

func (a *answer) release() {
	a.view.Close()
	if a.object != nil {
		a.object.Release()
	}
	if a.stream != nil {
		a.stream.Release()
	}
}

// maxHeld bounds the bytes that wait in memory for room in the store, for a
// client that puts on although it was told that there is none.
const maxHeld = 8 << 20

// runClient serves the job's client until it goes.
func (j *job) runClient(ctx context.Context, file *os.File) error {
	opt := clientwire.SessionOptions()
	conn, err := link.FromFile(file, opt)
	if err != nil {
		return err
	}
	c := &client{conn: conn, mapped: map[uint32]*objectstore.Window{}, wake: make(chan struct{}, 1), space: make(chan struct{}, 1)}
	c.out.later = map[*latePut]struct{}{}
	c.g = &guest{w: j.w, job: j, module: j.byName[""], client: c, driver: true, windows: map[uint32]*window{}}
	c.g.handles = j.newHandles()
	j.enter(c.g)
	defer j.leave(c.g)
	j.driver.Store(c.g)
	defer j.driver.Store(nil)
	if t := j.spec.Limits.Timeout; t > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t)
		defer cancel()
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	var writer sync.WaitGroup
	writer.Go(c.writer)
	c.enqueue(answer{op: clientwire.OpWelcome, a: uint32(j.maxHandles()), b: clientwire.MaxRequests})
	err = c.serve()
	stop()
	linger := err == nil && c.bye
	if err != nil {
		var e *wray.Error
		if errors.As(err, &e) {
			c.enqueue(answer{op: clientwire.OpEnd, err: e})
			c.flush()
		}
	}
	c.drop()
	if !linger || !j.w.linger(c) {
		conn.Close()
		c.unmapAll()
	}
	c.poke()
	writer.Wait()
	if why := context.Cause(ctx); why != nil {
		if errors.Is(why, context.DeadlineExceeded) {
			return &wray.Error{Code: wray.CodeTimeout, Message: "the session was open longer than its timeout",
				Hint: "give it more time, or none"}
		}
		return wray.Errorf(wray.CodeCanceled, "the session was canceled")
	}
	return err
}

// kill ends the guest with what it runs.
func (g *guest) kill(err *wray.Error) {
	if g.client != nil {
		g.client.conn.Close()
		return
	}
	g.sb.Kill(err)
}

// serve carries out commands until the client has gone, nil, or sends what no
// client sends.
func (c *client) serve() error {
	for {
		m, err := c.conn.Recv()
		if errors.Is(err, link.ErrProtocol) {
			return protocolError(err)
		}
		if err != nil {
			return nil // it has gone, and so has whoever would want to know how
		}
		err = c.batch(m)
		m.CloseFiles()
		c.flush()
		switch {
		case errors.Is(err, link.ErrClosed) || err == io.EOF:
			return nil
		case err != nil:
			return protocolError(err)
		}
	}
}

func protocolError(err error) error {
	return &wray.Error{Code: wray.CodeBadArgument, Message: "the session was ended: " + err.Error(),
		Hint: "client and node must be of the same version of wray"}
}

// batch carries out the commands of one notice.
func (c *client) batch(m link.Message) error {
	if m.Kind != clientwire.KindCommands {
		return fmt.Errorf("%w: message %d", link.ErrProtocol, m.Kind)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.g.release() // the task that is held runs, as a guest's does that waits
	body, files := m.Body, m.Files
	for len(body) > 0 {
		r, rest, err := clientwire.Next(body)
		if err != nil {
			return err
		}
		body = rest
		if c.owed.Load() > clientwire.MaxRequests {
			return fmt.Errorf("%w: more than %d answers are waited for", link.ErrProtocol, clientwire.MaxRequests)
		}
		switch r.Op {
		case clientwire.OpPutFile:
			if len(files) == 0 {
				return fmt.Errorf("%w: a value without its file", link.ErrProtocol)
			}
			err = c.putFile(r, files[0])
			files = files[1:]
		case clientwire.OpBye:
			c.bye = true
			return io.EOF
		default:
			err = c.command(r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// enqueue has an answer written. It takes over what a refers to. Any goroutine,
// callbacks of the store included.
func (c *client) enqueue(a answer) {
	c.out.Lock()
	closed := c.out.closed
	if !closed {
		c.out.queue = append(c.out.queue, a)
	}
	c.out.Unlock()
	if closed {
		a.release()
		return
	}
	c.poke()
}

func (c *client) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// event takes an event that a guest would get.
func (c *client) event(e sandbox.Event) {
	switch e.Kind {
	case abi.EventSpace:
		c.hasSpace()
	case abi.EventReclaim:
		c.enqueue(answer{op: clientwire.OpReclaim})
	}
}

func (c *client) hasSpace() {
	select {
	case c.space <- struct{}{}:
	default:
	}
}

// awaitSpace lets c.mu go and waits until what was refused is worth a try.
func (c *client) awaitSpace() error {
	c.g.release()
	c.mu.Unlock()
	defer c.mu.Lock()
	c.flush()
	select {
	case <-c.space:
		return nil
	case <-c.conn.Done():
		return link.ErrClosed
	}
}

// writer writes the answers that come while nothing is read.
func (c *client) writer() {
	for {
		select {
		case <-c.wake:
		case <-c.conn.Done():
			return
		}
		c.out.Lock()
		closed := c.out.closed
		c.out.Unlock()
		if closed {
			return
		}
		c.flush()
	}
}

// drop ends everything that the client holds or waits for, but what it has
// mapped.
func (c *client) drop() {
	c.out.Lock()
	c.out.closed = true
	queue := c.out.queue
	c.out.queue = nil
	var later []*latePut
	for p := range c.out.later {
		later = append(later, p)
	}
	c.out.Unlock()
	for i := range queue {
		queue[i].release()
	}
	for _, p := range later {
		p.abandon()
	}
	c.writing.Lock() // whoever writes has let go of what it took
	defer c.writing.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.watches {
		w.cancel()
	}
	c.watches = nil
	c.g.drop()
}

// unmapAll lets go of what the client had mapped: it is gone, and so are its
// mappings, or it lies.
func (c *client) unmapAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n, w := range c.mapped {
		w.Unpin()
		delete(c.mapped, n)
	}
}

// linger keeps what a client has mapped after its session until it says that it
// has unmapped it, or is gone. False: there is nothing to keep.
func (w *Worker) linger(c *client) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || len(c.mapped) == 0 {
		return false
	}
	if w.lingering == nil {
		w.lingering = map[*client]struct{}{}
	}
	w.lingering[c] = struct{}{}
	w.wg.Go(func() {
		for {
			m, err := c.conn.Recv()
			if err == nil {
				err = c.batchAfterBye(m)
				m.CloseFiles()
			}
			if err != nil {
				break
			}
		}
		c.conn.Close()
		c.unmapAll()
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.lingering, c)
	})
	return true
}

func (c *client) batchAfterBye(m link.Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for body := m.Body; len(body) > 0; {
		r, rest, err := clientwire.Next(body)
		if err == nil && r.Op != clientwire.OpUnmap {
			err = link.ErrProtocol
		}
		if err == nil {
			err = c.unmap(r)
		}
		if err != nil {
			return err
		}
		body = rest
	}
	return nil
}

// clientWatch is a wait for an object or a stream. Whoever sets done has its
// reference.
type clientWatch struct {
	c      *client
	answer answer
	w      *objectstore.Watch
	sw     *objectstore.StreamWatch
	fetch  func() bool // withdraws a fetch
	done   atomic.Bool
}

// ObjectReady implements objectstore.Watcher.
func (w *clientWatch) ObjectReady(*objectstore.Object) { w.fire() }

// StreamReady implements objectstore.StreamWatcher.
func (w *clientWatch) StreamReady(*objectstore.Stream) { w.fire() }

func (w *clientWatch) fire() {
	if !w.done.Swap(true) {
		w.c.enqueue(w.answer)
	}
}

func (w *clientWatch) cancel() {
	w.w.Cancel()
	w.sw.Cancel()
	if w.fetch != nil && !w.fetch() {
		return // it was told, and has let go itself
	}
	if !w.done.Swap(true) {
		w.answer.release()
	}
}

// await has a written when o, or a's stream where o is nil, is there. c.mu is
// held.
func (c *client) await(o *objectstore.Object, a answer) {
	w := &clientWatch{c: c, answer: a}
	if o != nil {
		w.w = o.Watch(w)
	} else {
		w.sw = a.stream.Watch(w)
	}
	c.watch(w)
}

// awaitFetch has a written when its object was read from disk. c.mu is held.
func (c *client) awaitFetch(a answer) {
	w := &clientWatch{c: c, answer: a}
	w.fetch = a.object.Fetch(func(v objectstore.View, err error) {
		w.done.Store(true)
		a.view = v
		if err != nil {
			a.err = c.g.job.named(err, "", 0)
		}
		c.enqueue(a)
	})
	c.watch(w)
}

// watch keeps w, so that it can be canceled.
func (c *client) watch(w *clientWatch) {
	if w.done.Load() {
		return
	}
	if len(c.watches) >= 64 && len(c.watches) == cap(c.watches) {
		c.watches = slices.DeleteFunc(c.watches, func(w *clientWatch) bool { return w.done.Load() })
	}
	c.watches = append(c.watches, w)
}
