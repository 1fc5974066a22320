package link

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/wray-project/wray"
)

// Handler handles what the peer sends. It owns the message's body and files.
//
// For a request it runs on a goroutine of its own; what it returns becomes the
// reply, whose files are closed once sent, or the failure: a *wray.Error as it
// is, anything else as CodeInternal. ctx ends when the caller gives up or the
// link ends.
//
// For a notice it runs on the reading goroutine, in order: it must not block
// for long, must not Call (the reply could not be read), and an error it
// returns ends the link. The message it returns is ignored.
type Handler func(ctx context.Context, m Message) (Message, error)

// Serve reads messages until the link ends, gives requests and notices to h,
// and replies to the calls that wait for them. It returns when every handler
// has: nil if either side closed the link between two messages, else why it
// ended. When ctx ends, the link is closed.
func (c *Conn) Serve(ctx context.Context, h Handler) error {
	server := make(chan struct{})
	c.mu.Lock()
	if c.server != nil {
		c.mu.Unlock()
		panic("BUG: link: Serve called twice")
	}
	c.server = server
	c.mu.Unlock()
	defer close(server)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { c.fail(fmt.Errorf("%w: %w", ErrClosed, context.Cause(ctx))) })
	defer stop()

	var handlers sync.WaitGroup
	handlers.Go(c.tellCanceled)
	var err error
	for err == nil {
		err = c.readSome(func(f frame) error { return c.dispatch(ctx, h, f, &handlers) })
	}
	err = c.fail(err)
	cancel()
	handlers.Wait()
	if cause := errors.Unwrap(err); err == ErrClosed || cause == ErrClosed {
		return nil
	}
	return err
}

// dispatch does with one frame what its class asks for. It owns f's files.
func (c *Conn) dispatch(ctx context.Context, h Handler, f frame, handlers *sync.WaitGroup) error {
	switch f.class {
	case classNotice:
		if f.lost {
			return ErrDescriptors // the sender will hear of it in no other way
		}
		m, err := h(ctx, f.Message)
		m.CloseFiles() // of a handler that took the notice for a request
		return err
	case classRequest:
		return c.dispatchRequest(ctx, h, f, handlers)
	case classCancel:
		c.mu.Lock()
		cancel := c.serving[f.id]
		c.mu.Unlock()
		if cancel != nil { // else the reply has crossed the cancel
			cancel()
		}
		return nil
	default:
		return c.dispatchReply(f)
	}
}

func (c *Conn) dispatchRequest(ctx context.Context, h Handler, f frame, handlers *sync.WaitGroup) error {
	if !c.in.tryAcquire(len(f.Body)) {
		f.CloseFiles()
		return protocolError("more than %d calls or %d bytes of calls at once", c.opt.MaxCalls, c.opt.MaxCallBytes)
	}
	ctx, cancel := context.WithCancel(ctx)
	c.mu.Lock()
	_, twice := c.serving[f.id]
	if !twice {
		c.serving[f.id] = cancel
	}
	c.mu.Unlock()
	if twice {
		cancel()
		f.CloseFiles()
		return protocolError("call %d twice", f.id)
	}
	size := len(f.Body)
	files := len(f.Files)
	err := c.take(files)
	if err != nil {
		f.CloseFiles()
		f.Files, files = nil, 0
	}
	if f.lost {
		err = noDescriptors()
	}
	if err != nil {
		h = func(context.Context, Message) (Message, error) { return Message{}, err }
	}
	handlers.Go(func() {
		defer cancel()
		reply, cl := c.handle(ctx, h, f.Message)
		c.give(files)
		if err := c.take(len(reply.Files)); err != nil {
			reply.CloseFiles()
			reply, cl = c.handle(ctx, func(context.Context, Message) (Message, error) { return Message{}, err }, f.Message)
		}
		defer c.give(len(reply.Files))
		defer reply.CloseFiles()
		reply.Kind = f.Kind
		// The credit goes back when the reply is next to be written: before the
		// caller can use it again, and not so early that a peer which reads no
		// replies could pile them up.
		begun := sync.OnceFunc(func() {
			c.mu.Lock()
			delete(c.serving, f.id)
			c.mu.Unlock()
			c.in.release(size)
		})
		err := c.writeFrame(context.Background(), cl, f.id, reply, begun)
		if errors.Is(err, ErrTooLarge) || errors.Is(err, errUnsent) {
			failure := c.failure(wray.Errorf(wray.CodeInternal, "reply to message kind %d: %v", f.Kind, err))
			failure.Kind = f.Kind
			// Any other error has ended the link, and the reader says so.
			_ = c.writeFrame(context.Background(), classFailure, f.id, failure, begun)
		}
	})
	return nil
}

func (c *Conn) take(files int) error {
	if files == 0 || c.opt.Descriptors == nil {
		return nil
	}
	return c.opt.Descriptors.Take(files)
}

func (c *Conn) give(files int) {
	if files > 0 && c.opt.Descriptors != nil {
		c.opt.Descriptors.Give(files)
	}
}

// handle runs h and returns what to reply. A panic is a bug of the handler,
// not of the link: it becomes the failure of this one call.
func (c *Conn) handle(ctx context.Context, h Handler, m Message) (reply Message, cl class) {
	defer func() {
		if r := recover(); r != nil {
			reply.CloseFiles()
			e := wray.Errorf(wray.CodeInternal, "handler of message kind %d panicked: %v", m.Kind, r)
			e.Trace = string(debug.Stack())
			reply, cl = c.failure(e), classFailure
		}
	}()
	reply, err := h(ctx, m)
	if err == nil {
		return reply, classReply
	}
	reply.CloseFiles()
	var e *wray.Error
	if !errors.As(err, &e) {
		code := wray.CodeInternal
		if errors.Is(err, context.Canceled) {
			code = wray.CodeCanceled
		} else if errors.Is(err, context.DeadlineExceeded) {
			code = wray.CodeTimeout
		}
		e = wray.Errorf(code, "%v", err)
	}
	return c.failure(e), classFailure
}

// maxFailureText bounds each text of an error that is sent.
const maxFailureText = 64 << 10

// failure encodes e, cut down to what the peer accepts.
func (c *Conn) failure(e *wray.Error) Message {
	body := must(Marshal(clean(e, 1)))
	if len(body) > c.opt.MaxBody {
		body = must(Marshal(&wray.Error{Code: max(e.Code, wray.CodeInternal), Message: clip(e.Message, c.opt.MaxBody/2)}))
	}
	return Message{Body: body}
}

// clean returns a copy of e with a code, valid and bounded texts, and at most
// maxCauses errors in its chain, of which e is the depth'th.
func clean(e *wray.Error, depth int) *wray.Error {
	n := *e
	n.Code = max(n.Code, wray.CodeInternal) // a failure without a code would be none
	for _, s := range []*string{&n.Message, &n.Task, &n.Node, &n.Trace, &n.Hint} {
		*s = clip(*s, maxFailureText)
	}
	n.Sentinels = nil
	for _, s := range e.Sentinels {
		n.Sentinels = append(n.Sentinels, clip(s, maxFailureText))
	}
	if l := e.Limit; l != nil {
		n.Limit = &wray.Limit{
			Name: clip(l.Name, maxFailureText), Value: l.Value,
			Unit: clip(l.Unit, maxFailureText), Flag: clip(l.Flag, maxFailureText),
		}
	}
	n.Cause = nil
	if e.Cause != nil && depth < maxCauses {
		n.Cause = clean(e.Cause, depth+1)
	}
	return &n
}

// clip returns valid UTF-8 of at most n bytes.
func clip(s string, n int) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "")
	}
	return s
}

func (c *Conn) dispatchReply(f frame) error {
	c.mu.Lock()
	p := c.pending[f.id]
	delete(c.pending, f.id)
	gone := p != nil && p.gone
	c.mu.Unlock()
	if p == nil {
		f.CloseFiles()
		return protocolError("reply to call %d, which nobody made", f.id)
	}
	c.out.release(p.size)
	if gone {
		f.CloseFiles()
		return nil
	}
	p.reply <- f
	return nil
}

// tellCanceled tells the peer which callers have gone, until the link ends.
func (c *Conn) tellCanceled() {
	for {
		select {
		case <-c.done:
			return
		case <-c.canceled:
		}
		var ids []uint64
		c.mu.Lock()
		for id, p := range c.pending {
			if p.gone && !p.told {
				p.told = true
				ids = append(ids, id)
			}
		}
		c.mu.Unlock()
		for _, id := range ids {
			// An error has ended the link; the loop sees it.
			_ = c.writeFrame(context.Background(), classCancel, id, Message{}, nil)
		}
	}
}
