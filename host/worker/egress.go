package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/egress"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// A guest's HTTP requests are made by the node: the worker has no network. Each is
// a goroutine here, which asks the node for one part after the other and fills a
// stream that the guest reads; who drops the stream ends the request. What may be
// asked the node knows by itself. That a task may less than its job is seen to here.

// KindFetch is a step of a guest's HTTP request.
const KindFetch link.Kind = 20 // worker: request FetchBody, reply FetchReply

// FetchOp is a step.
type FetchOp uint8

// The steps. The node answers the first with the number of the request, which the
// others name. FetchSend as often as it takes, FetchHead once, FetchRead until the
// end; FetchEnd at any time, and once.
const (
	FetchBegin FetchOp = iota + 1
	FetchSend          // replied to when the bytes are taken
	FetchHead          // replied to when the answer has begun
	FetchRead          // replied to when there are bytes, or no more
	FetchEnd
)

// FetchChunk is the most bytes of a body in one message.
const FetchChunk = 256 << 10

// FetchBody asks for a step.
type FetchBody struct {
	Run  uint64  `cbor:"1,keyasint"`
	Op   FetchOp `cbor:"2,keyasint"`
	ID   uint64  `cbor:"3,keyasint,omitempty"`
	Data []byte  `cbor:"4,keyasint,omitempty"` // FetchSend

	// FetchBegin:
	Task    string          `cbor:"5,keyasint,omitempty"` // the task's name, for people
	Method  string          `cbor:"6,keyasint,omitempty"`
	URL     string          `cbor:"7,keyasint,omitempty"`
	Header  []egress.Header `cbor:"8,keyasint,omitempty"`
	Length  int64           `cbor:"9,keyasint,omitempty"`  // bytes of the body
	Timeout int64           `cbor:"10,keyasint,omitempty"` // ns; 0: the node's
}

// FetchReply is what came of it.
type FetchReply struct {
	ID     uint64          `cbor:"1,keyasint,omitempty"` // FetchBegin
	Status int             `cbor:"2,keyasint,omitempty"` // FetchHead
	Header []egress.Header `cbor:"3,keyasint,omitempty"`
	Data   []byte          `cbor:"4,keyasint,omitempty"` // FetchRead
	End    bool            `cbor:"5,keyasint,omitempty"`
}

// Bounds of requests, of one tenant on one node and of one job. Others wait.
const (
	MaxFetches    = 64
	maxJobFetches = 32
	fetchWindow   = 8 // unread items of an answer, before its reading waits
)

// fetching is what a job has of HTTP requests.
type fetching struct {
	life  context.Context // ends with the job
	end   context.CancelFunc
	slots chan struct{}
	asked atomic.Int32 // requests that are not over
	wg    sync.WaitGroup
}

func newFetching() *fetching {
	f := &fetching{slots: make(chan struct{}, maxJobFetches)}
	f.life, f.end = context.WithCancel(context.Background())
	return f
}

// close ends what is under way, and waits for it. No guest of the job runs. It is
// idempotent, and there is nothing of a nil one.
func (f *fetching) close() {
	if f == nil {
		return
	}
	f.end()
	f.wg.Wait()
}

// maxAsked bounds the requests of a job that wait, or whose answers are under way:
// each keeps up to maxFetchText of the worker's memory.
const maxAsked = 1024

// maxFetchText bounds the bytes of a request but for its body.
const maxFetchText = egress.MaxURL + egress.MaxHeaderBytes + 4<<10

// httpFetch is the import that begins an HTTP request.
func httpFetch(g *guest, v view, s []uint64) abi.Errno {
	b, ok := v.bytes(uint32(s[0]), abi.HTTPRequestSize)
	if !ok {
		return abi.EFAULT
	}
	out, ok := v.bytes(uint32(s[1]), 4)
	if !ok {
		return abi.EFAULT
	}
	r := &request{g: g}
	if e := r.read(v, b); e != abi.Success {
		return e
	}
	switch {
	case g.job.mirror != nil:
		return g.notHere("an HTTP request was made")
	case g.durable != nil || g.holder != nil && g.holder.makes != nil && g.holder.makes.durable:
		return g.refuse(&wray.Error{Code: wray.CodeDenied, Message: "a durable actor makes no HTTP requests: what is asked again when it is recovered may be answered in another way",
			Hint: "have a task make the request, and pass its result to the actor"}, abi.EPERM)
	case g.job.fetching == nil:
		return g.refuse(wray.Errorf(wray.CodeDenied, "HTTP requests are made by sandboxes alone"), abi.EPERM)
	}
	if g.job.fetching.asked.Add(1) > maxAsked {
		g.job.fetching.asked.Add(-1)
		return g.refuse(&wray.Error{Code: wray.CodeLimitExceeded, Message: fmt.Sprintf("the job has %d HTTP requests that are not over", maxAsked),
			Limit: &wray.Limit{Name: "HTTP requests of a job that wait", Value: maxAsked}, Hint: "read or close the answers of some before more are asked for"}, abi.ENOSPC)
	}
	if h := u32(b, abi.HTTPRequestBody); h != 0 {
		if e := r.take(h); e != abi.Success {
			g.job.fetching.asked.Add(-1)
			return e
		}
	}
	ctx, cancel := context.WithCancel(g.job.fetching.life)
	r.cancel = cancel
	r.to = objectstore.NewStream(g.w.newID(), fetchWindow, cancel)
	h, err := g.handles.Add(r.to)
	if err != nil {
		r.to.Release()
		r.free()
		g.job.fetching.asked.Add(-1)
		return g.refuse(err, abi.ENOMEM)
	}
	putU32(out, 0, h)
	r.w, r.job, r.only = g.w, g.job, g.narrowed()
	r.begin.Task = g.name()
	r.g = nil // which may be another's soon
	r.job.fetching.wg.Go(func() {
		defer r.job.fetching.asked.Add(-1)
		r.run(ctx)
	})
	return abi.Success
}

// request is a guest's HTTP request.
type request struct {
	g      *guest // nil once the import has returned
	w      *Worker
	job    *job
	only   *narrowing
	begin  FetchBody
	body   *objectstore.Object // with a reference; nil: none
	to     *objectstore.Stream
	cancel context.CancelFunc
	id     uint64 // the node's number; 0: none yet
	items  uint64 // of to
}

// read reads what a struct http_request says, but for the body.
func (r *request) read(v view, b []byte) abi.Errno {
	length := uint64(0)
	text := func(at int) (string, bool) {
		n := u32(b, at+4)
		if length += uint64(n); length > maxFetchText {
			return "", false
		}
		p, ok := v.bytes(u32(b, at), n)
		return string(p), ok
	}
	url, ok := text(abi.HTTPRequestURLPtr)
	method, ok2 := text(abi.HTTPRequestMethodPtr)
	headers, ok3 := text(abi.HTTPRequestHeadersPtr)
	timeout := u64(b, abi.HTTPRequestTimeout)
	switch {
	case length > maxFetchText:
		return r.g.tooMany("bytes of a request without its body", uint32(min(length, 1<<32-1)), maxFetchText)
	case !ok || !ok2 || !ok3:
		return abi.EFAULT
	case u32(b, abi.HTTPRequestFlags) != 0 || timeout > 1<<62:
		return abi.EINVAL
	}
	r.g.copied(int(length))
	r.begin = FetchBody{Op: FetchBegin, Method: method, URL: url, Timeout: int64(timeout)}
	for headers != "" {
		name, rest, ok := strings.Cut(headers, "\x00")
		value, rest, ok2 := strings.Cut(rest, "\x00")
		if !ok || !ok2 {
			return abi.EINVAL
		}
		if len(r.begin.Header) == egress.MaxHeaders {
			return r.g.tooMany("headers", egress.MaxHeaders+1, egress.MaxHeaders)
		}
		r.begin.Header = append(r.begin.Header, egress.Header{Name: name, Value: value})
		headers = rest
	}
	return abi.Success
}

// take takes the body, an object that is there.
func (r *request) take(h uint32) abi.Errno {
	o, ok := r.g.handles.Object(h)
	switch {
	case !ok:
		return abi.EBADF
	case !o.Ready():
		return abi.EAGAIN
	}
	i := o.Info()
	switch {
	case i.Encoding == abi.EncodingError || i.Refs > 0:
		return abi.EINVAL
	case i.Len > egress.MaxRequestBytes:
		return r.g.refuse(&wray.Error{Code: wray.CodeLimitExceeded, Message: "the body of a request is too long",
			Limit: &wray.Limit{Name: "bytes of a request's body", Value: egress.MaxRequestBytes, Unit: "bytes"}}, abi.E2BIG)
	}
	o.Retain()
	r.body, r.begin.Length = o, i.Len
	return abi.Success
}

func (r *request) free() {
	if r.body != nil {
		r.body.Release()
		r.body = nil
	}
	if r.cancel != nil {
		r.cancel()
	}
}

// run makes the request. Whatever ends it, the stream has an end.
func (r *request) run(ctx context.Context) {
	defer r.free()
	err := r.fetch(ctx)
	if r.id != 0 {
		// Not by ctx, which may be why: the node is to know at once.
		_, _ = r.job.spec.Fetch(context.Background(), FetchBody{Op: FetchEnd, ID: r.id})
	}
	if err == nil {
		_ = r.to.End()
		return
	}
	if errors.Is(err, context.Canceled) {
		err = wray.Errorf(wray.CodeCanceled, "the request was canceled")
	}
	_ = r.w.store.FailStream(r.to, r.w.newID(), r.job.named(err, r.begin.Task, 0))
}

func (r *request) fetch(ctx context.Context) error {
	if r.job.spec.Fetch == nil {
		return wray.Errorf(wray.CodeDenied, "this worker asks no servers")
	}
	if err := r.mayAsk(); err != nil {
		return err
	}
	for _, slots := range []chan struct{}{r.job.fetching.slots, r.w.fetchSlots} {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	b, err := r.step(ctx, r.begin)
	if err != nil {
		return err
	}
	r.id = b.ID
	// A server may answer before it has all of the body, and take the rest as its
	// answer is read.
	var sent sync.WaitGroup
	ctx, stop := context.WithCancelCause(ctx)
	defer sent.Wait()
	defer stop(nil)
	sent.Go(func() {
		if err := r.send(ctx); err != nil {
			stop(err) // the node waits for the rest
		}
	})
	if b, err = r.step(ctx, FetchBody{Op: FetchHead}); err != nil {
		return err
	}
	head := struct {
		Status int      `cbor:"1,keyasint"`
		Header []string `cbor:"2,keyasint"`
	}{Status: b.Status, Header: make([]string, 0, 2*len(b.Header))}
	for _, h := range b.Header {
		head.Header = append(head.Header, h.Name, strings.ToValidUTF8(h.Value, "\uFFFD"))
	}
	p, err := cbor.Marshal(head)
	if err != nil {
		return err
	}
	if err := r.give(ctx, objectstore.Value{Encoding: abi.EncodingCBOR, Payload: p}); err != nil {
		return err
	}
	for {
		if err := r.room(ctx); err != nil { // what nobody has room for is not asked for
			return err
		}
		if b, err = r.step(ctx, FetchBody{Op: FetchRead}); err != nil {
			return err
		}
		if len(b.Data) > 0 {
			if err := r.give(ctx, objectstore.Value{Encoding: abi.EncodingRaw, Payload: b.Data}); err != nil {
				return err
			}
		}
		if b.End {
			return nil
		}
	}
}

// mayAsk is why the guest's task may not ask, although its job may.
func (r *request) mayAsk() error {
	if r.only == nil {
		return nil
	}
	to, err := egress.ParseURL(r.begin.URL)
	if err != nil {
		return err
	}
	if !r.only.egress(to.Host, to.Port) {
		return &wray.Error{Code: wray.CodeDenied, Message: "the task was not granted egress to " + to.String() + ", or who submitted it was not",
			Hint: "its sdk.Grants take away what they do not name: add " + `"egress=` + to.String() + `", or leave them out`}
	}
	return nil
}

// step has the node do a step.
func (r *request) step(ctx context.Context, b FetchBody) (FetchReply, error) {
	b.ID = r.id
	out, err := r.job.spec.Fetch(ctx, b)
	if why := context.Cause(ctx); err != nil && why != nil {
		err = why
	}
	return out, err
}

// send sends the body.
func (r *request) send(ctx context.Context) error {
	if r.body == nil {
		return nil
	}
	view, err := r.body.WaitView(ctx)
	if err != nil {
		return err
	}
	defer view.Close()
	for p := view.Bytes(); len(p) > 0; {
		n := min(len(p), FetchChunk)
		b, err := r.step(ctx, FetchBody{Op: FetchSend, Data: p[:n]})
		if err != nil {
			return err
		}
		if p = p[n:]; b.End {
			return nil // the server has answered without the rest
		}
	}
	return nil
}

// room waits until the stream has room for an item.
func (r *request) room(ctx context.Context) error {
	room := make(chan struct{}, 1)
	r.to.OnRoom(func() { room <- struct{}{} })
	select {
	case <-room:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// give adds an item to the stream, for which that has room, as soon as the store
// has.
func (r *request) give(ctx context.Context, v objectstore.Value) error {
	for {
		err := r.w.store.PutItem(r.to, r.w.newID(), r.items, v)
		switch {
		case err == nil:
			r.items++
			return nil
		case errors.Is(err, objectstore.ErrDropped):
			return context.Canceled
		case errors.Is(err, objectstore.ErrWindow):
			if err := r.room(ctx); err != nil {
				return err
			}
		case errors.Is(err, objectstore.ErrFull):
			if err := r.space(ctx, v.Size()); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// space waits until the store has room, for as long as a guest's put would.
func (r *request) space(ctx context.Context, size objectstore.Size) error {
	full := time.NewTimer(r.w.cfg.FullAfter)
	defer full.Stop()
	there := make(chan error, 1)
	cancel := r.w.store.OnSpace(size, func(res *objectstore.Reservation, err error) {
		if res != nil {
			res.Cancel()
		}
		there <- err
	})
	select {
	case err := <-there:
		return err
	case <-full.C:
		if cancel() {
			return r.w.store.FullError(size)
		}
		return <-there
	case <-ctx.Done():
		cancel()
		return ctx.Err()
	}
}
