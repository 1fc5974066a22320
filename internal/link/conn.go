package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
)

// transport is the socket below a Conn. read and write are each called by one
// goroutine at a time; close by any, also while the others run, which it ends.
type transport interface {
	// read returns bytes in a buffer that stays valid until the next read, and
	// the descriptors that came with them, which the caller then owns. An end
	// of stream is io.EOF.
	read() ([]byte, []*os.File, error)
	// write writes head and body, with files on the first byte. errUnsent means
	// that nothing was written.
	write(head, body []byte, files []*os.File) error
	close()
}

// errNoRoom means that descriptors came with the bytes that were read, and are
// lost, as this process has no room for them.
var errNoRoom = errors.New("no room for descriptors")

// errUnsent means that a message was refused before its first byte was written.
var errUnsent = errors.New("message not sent")

// Conn is one end of a link. All methods may be called concurrently, except
// that messages are read either by Recv, one call at a time, or by one Serve.
//
// A Conn has no goroutine of its own: Serve's caller is the reader, and Serve
// waits for the handlers that it started.
type Conn struct {
	opt Options
	tr  transport

	writeLock chan struct{} // of capacity 1; held while a frame is written
	out, in   budget        // credit of calls made here, and of those served here

	dec     decoder // used by the reader only
	backlog []frame // decoded and not yet received; used by the reader only

	lastID atomic.Uint64

	mu      sync.Mutex
	pending map[uint64]*call              // guarded by mu; calls made here
	serving map[uint64]context.CancelFunc // guarded by mu; calls served here
	cause   error                         // guarded by mu; why the link ended
	server  chan struct{}                 // guarded by mu; closed when Serve has returned
	done    chan struct{}                 // closed when the link has ended

	canceled chan struct{} // of capacity 1; some pending call is gone
}

// call is a call that waits for its reply.
type call struct {
	size  int
	reply chan frame // of capacity 1; closed when the link ends
	// gone is set, under Conn.mu, when the caller has left: the reply only
	// gives the credit back.
	gone bool
	told bool // guarded by Conn.mu; the peer was told that the caller is gone
}

func newConn(tr transport, opt Options) *Conn {
	return &Conn{
		opt:       opt,
		tr:        tr,
		writeLock: make(chan struct{}, 1),
		out:       budget{calls: opt.MaxCalls, bytes: opt.MaxCallBytes},
		in:        budget{calls: opt.MaxCalls, bytes: opt.MaxCallBytes},
		dec:       decoder{maxBody: opt.MaxBody, maxFiles: opt.MaxFiles},
		pending:   map[uint64]*call{},
		serving:   map[uint64]context.CancelFunc{},
		done:      make(chan struct{}),
		canceled:  make(chan struct{}, 1),
	}
}

// Done is closed when the link has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err returns nil while the link is open, and afterwards why it ended: an
// error that wraps ErrClosed.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// fail ends the link for cause, the first one given, and returns that.
func (c *Conn) fail(cause error) error {
	c.mu.Lock()
	if c.cause != nil {
		defer c.mu.Unlock()
		return c.cause
	}
	switch {
	case cause == nil:
		cause = ErrClosed
	case errors.Is(cause, io.EOF):
		cause = fmt.Errorf("%w by the peer", ErrClosed)
	case !errors.Is(cause, ErrClosed):
		cause = fmt.Errorf("%w: %w", ErrClosed, cause)
	}
	c.cause = cause
	for id, p := range c.pending {
		close(p.reply)
		delete(c.pending, id)
	}
	for _, cancel := range c.serving {
		cancel()
	}
	c.mu.Unlock()

	c.tr.close()
	c.out.close(cause)
	close(c.done)
	return cause
}

// Close ends the link: blocked calls return ErrClosed, handlers' contexts end,
// and Close returns when Serve has returned. It may be called any number of
// times, but not from a handler, for which it would wait.
func (c *Conn) Close() error {
	c.fail(nil)
	c.mu.Lock()
	server := c.server
	c.mu.Unlock()
	if server != nil {
		<-server
	}
	return nil
}

// Send sends a notice: a message without a reply. Notices of one goroutine
// arrive in order. It returns when the kernel has the whole message.
func (c *Conn) Send(m Message) error {
	return c.writeFrame(context.Background(), classNotice, 0, m, nil)
}

// writeFrame writes one frame. begun, if not nil, runs when the frame is next
// to be written; ctx can end the wait before that, not later: half a frame
// would be the end of the link.
func (c *Conn) writeFrame(ctx context.Context, cl class, id uint64, m Message, begun func()) error {
	if len(m.Body) > c.opt.MaxBody || len(m.Files) > c.opt.MaxFiles {
		return fmt.Errorf("%w: %d bytes and %d files, at most %d and %d",
			ErrTooLarge, len(m.Body), len(m.Files), c.opt.MaxBody, c.opt.MaxFiles)
	}
	select {
	case c.writeLock <- struct{}{}:
	case <-c.done:
		return c.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-c.writeLock }()
	if begun != nil {
		begun()
	}
	if err := c.Err(); err != nil {
		return err
	}
	var head [headerSize]byte
	putHeader(&head, m.Kind, cl, len(m.Files), len(m.Body), id)
	if err := c.tr.write(head[:], m.Body, m.Files); errors.Is(err, errUnsent) {
		return err
	} else if err != nil {
		return c.fail(err)
	}
	return nil
}

// Call sends a request and waits for its reply. Serve must be running on both
// ends. The failure of the peer's handler is a *wray.Error; the end of the link
// is ErrClosed. When ctx ends first, the handler's context is canceled and its
// late reply dropped. The caller owns the reply's body and files.
func (c *Conn) Call(ctx context.Context, m Message) (Message, error) {
	if err := c.out.acquire(ctx, len(m.Body)); err != nil {
		return Message{}, err
	}
	id := c.lastID.Add(1)
	p := &call{size: len(m.Body), reply: make(chan frame, 1)}
	c.mu.Lock()
	if c.cause != nil {
		defer c.mu.Unlock()
		return Message{}, c.cause
	}
	c.pending[id] = p
	c.mu.Unlock()

	if err := c.writeFrame(ctx, classRequest, id, m, nil); err != nil {
		// Nothing was written, or the link has ended.
		c.mu.Lock()
		delete(c.pending, id)
		c.mu.Unlock()
		c.out.release(p.size)
		return Message{}, err
	}
	select {
	case f, ok := <-p.reply:
		return c.finish(f, ok)
	case <-ctx.Done():
	}
	c.mu.Lock()
	_, waiting := c.pending[id]
	p.gone = true
	c.mu.Unlock()
	if !waiting { // the reply came, or the link ended, between the two
		f, ok := <-p.reply
		return c.finish(f, ok)
	}
	// A peer that does not read must not hold this caller, so Serve's
	// goroutine tells it.
	select {
	case c.canceled <- struct{}{}:
	default: // already signaled
	}
	return Message{}, ctx.Err()
}

// finish returns the outcome of a call.
func (c *Conn) finish(f frame, ok bool) (Message, error) {
	if !ok {
		return Message{}, c.Err()
	}
	if f.lost {
		return Message{}, noDescriptors()
	}
	if f.class == classReply {
		return f.Message, nil
	}
	e, err := decodeFailure(f.Body)
	if err != nil {
		return Message{}, c.fail(err)
	}
	return Message{}, e
}

// Recv returns the next message, for an end that makes no calls and serves
// none: notices only; anything else ends the link. The caller owns the
// message's body and files.
func (c *Conn) Recv() (Message, error) {
	for len(c.backlog) == 0 {
		err := c.readSome(func(f frame) error {
			if f.class != classNotice {
				f.CloseFiles()
				return protocolError("class %d, where only notices are received", f.class)
			}
			if f.lost {
				return ErrDescriptors
			}
			c.backlog = append(c.backlog, f)
			return nil
		})
		if err != nil {
			c.dropBacklog()
			return Message{}, c.fail(err)
		}
	}
	m := c.backlog[0].Message
	c.backlog = c.backlog[1:]
	return m, nil
}

// readSome reads once and decodes what came. On an error the decoder's files
// are closed.
func (c *Conn) readSome(emit func(frame) error) error {
	p, files, err := c.tr.read()
	if err == errNoRoom {
		c.dec.lost, err = true, nil
	}
	if len(p) > 0 || len(files) > 0 {
		if ferr := c.dec.feed(p, files, emit); ferr != nil {
			err = ferr
		}
	}
	if err == io.EOF && c.dec.nhead > 0 {
		err = fmt.Errorf("%w: the stream ends inside a message", io.ErrUnexpectedEOF)
	}
	if err != nil {
		c.dec.close()
	}
	return err
}

func (c *Conn) dropBacklog() {
	for _, f := range c.backlog {
		f.CloseFiles()
	}
	c.backlog = nil
}
