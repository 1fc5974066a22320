package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/wray-project/wray/host/control"
	pb "github.com/wray-project/wray/internal/rpc/internal/controlpb"
)

// Control is the control state, for a node that is no head: a [control.Store]
// that asks one head after the other. Which heads there are may change. Close
// it; the clients it was given are not its own.
type Control struct {
	ctx  context.Context // ends with Close
	stop context.CancelFunc

	mu    sync.Mutex
	heads []*Client     // guarded by mu; the one that answered last is first
	known chan struct{} // guarded by mu; closed when heads changes
}

var _ control.Store = (*Control)(nil)

// controlTime is how long a request without a deadline may take, and headTime
// how long one head has to answer before the next is asked.
const (
	controlTime = 10 * time.Second
	headTime    = 3 * time.Second
)

// NewControl returns the control state that these heads have.
func NewControl(heads ...*Client) *Control {
	c := &Control{known: make(chan struct{})}
	c.ctx, c.stop = context.WithCancel(context.Background())
	c.SetHeads(heads...)
	return c
}

// SetHeads says which heads there are now.
func (c *Control) SetHeads(heads ...*Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heads = slices.Clone(heads)
	close(c.known)
	c.known = make(chan struct{})
}

// Close implements control.Store.
func (c *Control) Close() error {
	c.stop()
	return nil
}

// order returns the heads, in the order in which to ask them.
func (c *Control) order() ([]*Client, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.heads), c.known
}

// answered makes a head the first to ask.
func (c *Control) answered(h *Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.heads, h); i > 0 {
		c.heads = slices.Insert(slices.Delete(c.heads, i, i+1), 0, h)
	}
}

// ask has one head after the other do something, until one answers or the time
// is over. Each has headTime, if there are others. once: what is asked must not
// be asked twice, as it may have been done; then the next head is asked only
// where there was no connection to the one before.
func (c *Control) ask(ctx context.Context, doing string, once bool, do func(context.Context, pb.ControlClient) (*pb.Failure, error)) error {
	if c.ctx.Err() != nil {
		return fmt.Errorf("%s: %w", doing, control.ErrClosed)
	}
	ctx, cancel := context.WithTimeout(ctx, controlTime)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	why := errors.New("no head is known")
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		heads, known := c.order()
		for _, h := range heads {
			limit := headTime
			if len(heads) == 1 {
				limit = controlTime
			}
			asked, err := h.askOnce(ctx, limit, do)
			if err == nil {
				c.answered(h)
				return nil
			}
			var failure *failure
			if errors.As(err, &failure) && (once || !errors.Is(err, control.ErrUnavailable)) {
				c.answered(h)
				return failure.error
			}
			why = fmt.Errorf("head %s: %w", h.name, err)
			if ctx.Err() != nil || once && asked {
				return c.ended(doing, why)
			}
			switch status.Code(err) {
			case codes.InvalidArgument, codes.ResourceExhausted, codes.Internal:
				return fmt.Errorf("%s: %w", doing, why)
			}
		}
		select {
		case <-ctx.Done():
			return c.ended(doing, why)
		case <-known:
		case <-time.After(pause):
		}
	}
}

// failure is an error of the store, as opposed to one of the way to it.
type failure struct{ error }

func (f *failure) Unwrap() error { return f.error }

// askOnce asks this head. asked: it may have got the question.
func (c *Client) askOnce(ctx context.Context, limit time.Duration, do func(context.Context, pb.ControlClient) (*pb.Failure, error)) (asked bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := c.ready(ctx); err != nil {
		return false, err
	}
	f, err := do(ctx, pb.NewControlClient(c.conn))
	if err != nil {
		return status.Code(err) != codes.Unimplemented, err // else it is a head no more
	}
	if f != nil {
		return true, &failure{failed(f)}
	}
	return true, nil
}

// ready waits for a connection, or until it is known that there is none now.
func (c *Client) ready(ctx context.Context) error {
	for {
		s := c.conn.GetState()
		switch s {
		case connectivity.Ready:
			return nil
		case connectivity.TransientFailure, connectivity.Shutdown:
			return c.why(ctx)
		}
		c.conn.Connect()
		if !c.conn.WaitForStateChange(ctx, s) {
			return ctx.Err()
		}
	}
}

// why says why there is no connection now: what the handshake had against the
// other, or, by a call that nobody knows, what the other had against this node.
func (c *Client) why(ctx context.Context) error {
	if last := c.last.Load(); last != nil {
		return fmt.Errorf("there is no connection: %w", *last)
	}
	err := c.conn.Invoke(ctx, "/wray.none/None", &emptypb.Empty{}, &emptypb.Empty{})
	if status.Code(err) == codes.Unavailable {
		return fmt.Errorf("there is no connection: %s (one that closes at once may not accept this node's certificate: was it revoked?)", status.Convert(err).Message())
	}
	return errors.New("there is no connection")
}

// ended is the error of a request that nobody answered.
func (c *Control) ended(doing string, why error) error {
	if c.ctx.Err() != nil {
		return fmt.Errorf("%s: %w", doing, control.ErrClosed)
	}
	return control.Unavailable(doing, why)
}

// Get implements control.Store.
func (c *Control) Get(ctx context.Context, key string) (control.Record, error) {
	if err := control.CheckKey(key); err != nil {
		return control.Record{}, err
	}
	var reply *pb.GetReply
	if err := c.ask(ctx, "read the control state", false, func(ctx context.Context, h pb.ControlClient) (f *pb.Failure, err error) {
		reply, err = h.Get(ctx, &pb.GetRequest{Key: []byte(key)})
		return reply.GetFailure(), err
	}); err != nil {
		return control.Record{}, err
	}
	return recordOf(reply.Record), nil
}

// List implements control.Store.
func (c *Control) List(ctx context.Context, req control.ListRequest) (control.Page, error) {
	req, err := control.CheckList(req)
	if err != nil {
		return control.Page{}, err
	}
	var reply *pb.ListReply
	if err := c.ask(ctx, "list the control state", false, func(ctx context.Context, h pb.ControlClient) (f *pb.Failure, err error) {
		reply, err = h.List(ctx, &pb.ListRequest{Prefix: []byte(req.Prefix), After: []byte(req.After), Limit: int32(req.Limit), At: int64(req.At)})
		return reply.GetFailure(), err
	}); err != nil {
		return control.Page{}, err
	}
	p := control.Page{Revision: control.Revision(reply.Revision), More: reply.More}
	for _, r := range reply.Records {
		p.Records = append(p.Records, recordOf(r))
	}
	return p, nil
}

// Commit implements control.Store.
func (c *Control) Commit(ctx context.Context, txn control.Txn) (control.Revision, error) {
	if err := control.CheckTxn(txn); err != nil {
		return 0, err
	}
	req := &pb.CommitRequest{}
	for _, x := range txn.If {
		req.Conditions = append(req.Conditions, pbCond(x))
	}
	for _, o := range txn.Do {
		req.Ops = append(req.Ops, &pb.Op{Key: []byte(o.Key), Value: o.Value, Lease: int64(o.Lease), Delete: o.Delete})
	}
	var reply *pb.CommitReply
	if err := c.ask(ctx, "write the control state", true, func(ctx context.Context, h pb.ControlClient) (f *pb.Failure, err error) {
		reply, err = h.Commit(ctx, req)
		return reply.GetFailure(), err
	}); err != nil {
		return 0, err
	}
	return control.Revision(reply.Revision), nil
}

// Grant implements control.Store. A lease that was granted and not heard of
// lapses by itself.
func (c *Control) Grant(ctx context.Context, ttl time.Duration) (control.Lease, error) {
	ttl, err := control.CheckTTL(ttl)
	if err != nil {
		return control.Lease{}, err
	}
	var reply *pb.GrantReply
	if err := c.ask(ctx, "make a lease", false, func(ctx context.Context, h pb.ControlClient) (f *pb.Failure, err error) {
		reply, err = h.Grant(ctx, &pb.GrantRequest{Ttl: int64(ttl)})
		return reply.GetFailure(), err
	}); err != nil {
		return control.Lease{}, err
	}
	return control.Lease{ID: control.LeaseID(reply.Lease), TTL: time.Duration(reply.Ttl)}, nil
}

// KeepAlive implements control.Store.
func (c *Control) KeepAlive(ctx context.Context, id control.LeaseID) error {
	return c.lease(ctx, "keep a lease", func(ctx context.Context, h pb.ControlClient) (*pb.LeaseReply, error) {
		return h.KeepAlive(ctx, &pb.LeaseRequest{Lease: int64(id)})
	})
}

// Revoke implements control.Store.
func (c *Control) Revoke(ctx context.Context, id control.LeaseID) error {
	return c.lease(ctx, "end a lease", func(ctx context.Context, h pb.ControlClient) (*pb.LeaseReply, error) {
		return h.Revoke(ctx, &pb.LeaseRequest{Lease: int64(id)})
	})
}

func (c *Control) lease(ctx context.Context, doing string, do func(context.Context, pb.ControlClient) (*pb.LeaseReply, error)) error {
	return c.ask(ctx, doing, false, func(ctx context.Context, h pb.ControlClient) (*pb.Failure, error) {
		reply, err := do(ctx, h)
		return reply.GetFailure(), err
	})
}

// Watch implements control.Store.
func (c *Control) Watch(ctx context.Context, prefix string, from control.Revision) (control.Watcher, error) {
	if err := control.CheckWatch(prefix, from); err != nil {
		return nil, err
	}
	if from == 0 {
		// Say where now is, so that a watch that is cut goes on from there.
		p, err := c.List(ctx, control.ListRequest{Prefix: prefix, Limit: 1})
		if err != nil {
			return nil, err
		}
		from = p.Revision + 1
	} else if c.ctx.Err() != nil {
		return nil, fmt.Errorf("watch of %q: %w", prefix, control.ErrClosed)
	}
	w := &watcher{c: c, prefix: prefix, next: from}
	w.ctx, w.stop = context.WithCancel(c.ctx)
	return w, nil
}

// watcher is a place in the order of commits. It has a stream while it is
// waited for, and one of its own that reads ahead.
type watcher struct {
	c      *Control
	prefix string
	next   control.Revision // of Next alone, as is feed
	feed   *feed
	ctx    context.Context // ends with Close
	stop   context.CancelFunc
}

// feed is a stream from a head, read by a goroutine.
type feed struct {
	batches chan control.Batch // closed at the end, for the reason err
	err     error
	stop    context.CancelFunc
}

// Next implements control.Watcher.
func (w *watcher) Next(ctx context.Context) (control.Batch, error) {
	doing := "watch the control state"
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.ctx, cancel)()
	closed := func(err error) error {
		if w.ctx.Err() != nil {
			return fmt.Errorf("watch of %q: %w", w.prefix, control.ErrClosed)
		}
		return err
	}
	for {
		if err := ctx.Err(); err != nil {
			return control.Batch{}, closed(control.Unavailable(doing, err))
		}
		if w.feed == nil {
			if err := w.open(ctx); err != nil {
				return control.Batch{}, closed(err)
			}
		}
		select {
		case b, ok := <-w.feed.batches:
			if ok {
				w.next = b.Revision + 1
				return b, nil
			}
			err := w.feed.err
			w.feed = nil
			if errors.Is(err, control.ErrCompacted) {
				return control.Batch{}, err
			}
			if status.Code(err) == codes.Unavailable || status.Code(err) == codes.Canceled {
				continue // another head, or the same again: opening it waits
			}
			return control.Batch{}, closed(control.Unavailable(doing, err))
		case <-ctx.Done():
			return control.Batch{}, closed(control.Unavailable(doing, ctx.Err()))
		}
	}
}

// open opens a stream from where the watch is.
func (w *watcher) open(ctx context.Context) error {
	return w.c.ask(ctx, "watch the control state", false, func(try context.Context, h pb.ControlClient) (*pb.Failure, error) {
		run, stop := context.WithCancel(w.ctx)
		unhook := context.AfterFunc(try, stop) // until it has begun
		st, err := h.Watch(run, &pb.WatchRequest{Prefix: []byte(w.prefix), From: int64(w.next)})
		var first *pb.WatchReply
		if err == nil {
			first, err = st.Recv()
		}
		if err == nil && !unhook() {
			err = status.FromContextError(try.Err()).Err()
		}
		if err != nil || first.Failure != nil {
			stop()
			return first.GetFailure(), err
		}
		f := &feed{batches: make(chan control.Batch, 1), stop: stop}
		w.feed = f
		go f.read(run, st) // ends with run: with the watcher, at the latest
		return nil, nil
	})
}

// read passes on what comes, a whole batch at a time.
func (f *feed) read(ctx context.Context, st grpc.ServerStreamingClient[pb.WatchReply]) {
	defer f.stop()
	defer close(f.batches)
	var b control.Batch
	for {
		m, err := st.Recv()
		if err == nil {
			err = failed(m.Failure)
		}
		if err != nil {
			f.err = err
			return
		}
		for _, e := range m.Events {
			b.Events = append(b.Events, control.Event{Record: recordOf(e.Record), Deleted: e.Deleted})
		}
		b.Revision = control.Revision(m.Revision)
		if m.More {
			continue
		}
		select {
		case f.batches <- b:
			b = control.Batch{}
		case <-ctx.Done():
			f.err = status.FromContextError(ctx.Err()).Err()
			return
		}
	}
}

// Close implements control.Watcher.
func (w *watcher) Close() error {
	w.stop()
	return nil
}
