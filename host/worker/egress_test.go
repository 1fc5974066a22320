package worker

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/egress"
	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// askedNode is a node that answers HTTP requests.
type askedNode struct {
	mu     sync.Mutex
	steps  []FetchBody // guarded by mu
	sent   string      // guarded by mu; of bodies
	parts  []string    // of the answer
	fail   error       // of the last part
	hangs  bool        // it says nothing more after the parts
	served int         // guarded by mu; parts

	all   chan struct{} // closed when all of the body is sent
	reads chan struct{} // has a token when the answer is read
	ended chan struct{} // closed with FetchEnd
}

func (s *askedNode) start() {
	s.all, s.reads, s.ended = make(chan struct{}), make(chan struct{}, 1), make(chan struct{})
}

func (s *askedNode) fetch(ctx context.Context, b FetchBody) (out FetchReply, err error) {
	if b.Op == FetchHead {
		select {
		case <-s.all:
		case <-ctx.Done():
			return out, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps = append(s.steps, b)
	switch b.Op {
	case FetchBegin:
		if b.Length == 0 {
			close(s.all)
		}
		return FetchReply{ID: 5}, nil
	case FetchSend:
		if s.sent += string(b.Data); int64(len(s.sent)) == s.steps[0].Length {
			close(s.all)
		}
		return out, nil
	case FetchHead:
		return FetchReply{Status: 203, Header: []egress.Header{{Name: "X", Value: "y"}}}, nil
	case FetchEnd:
		close(s.ended)
		return out, nil
	}
	select {
	case s.reads <- struct{}{}:
	default:
	}
	if s.served < len(s.parts) {
		s.served++
		return FetchReply{Data: []byte(s.parts[s.served-1])}, nil
	}
	if s.hangs {
		s.mu.Unlock()
		<-ctx.Done()
		s.mu.Lock()
		return out, ctx.Err()
	}
	return FetchReply{End: s.fail == nil}, s.fail
}

// ask has g begin a request, with a body where there is a handle of one.
func ask(t *testing.T, g *guest, url string, body uint32) *objectstore.Stream {
	t.Helper()
	mem := g.sb.Memory()
	clear(mem[:256])
	putU32(mem, abi.HTTPRequestURLPtr, 64)
	putU32(mem, abi.HTTPRequestURLLen, uint32(copy(mem[64:], url)))
	putU32(mem, abi.HTTPRequestMethodPtr, 192)
	putU32(mem, abi.HTTPRequestMethodLen, uint32(copy(mem[192:], "POST")))
	putU32(mem, abi.HTTPRequestHeadersPtr, 200)
	putU32(mem, abi.HTTPRequestHeadersLen, uint32(copy(mem[200:], "A\x00b\x00C\x00\x00")))
	putU32(mem, abi.HTTPRequestBody, body)
	if e := g.call("http_fetch", 0, 248); e != abi.Success {
		t.Fatalf("http_fetch: errno %d", e)
	}
	st, ok := g.handles.Stream(u32(mem, 248))
	if !ok {
		t.Fatal("no stream")
	}
	return st
}

// items reads a stream to its end.
func items(t *testing.T, st *objectstore.Stream) (list []*objectstore.Object) {
	t.Helper()
	for {
		ready := make(chan struct{}, 1)
		o, err := st.Next()
		switch {
		case err == nil:
			list = append(list, o)
			t.Cleanup(o.Release) // before the job ends, as tests begin with that
			continue
		case errors.Is(err, objectstore.ErrNotReady):
			st.Watch(streamWatcher(func() { ready <- struct{}{} }))
			<-ready
		default:
			return list
		}
	}
}

// TestHTTPFetch holds what becomes of a request: the head, the parts of the body as
// they come, and the end, or the failure.
func TestHTTPFetch(t *testing.T) {
	h := newJobs(t, tinyGuest())
	denied := &wray.Error{Code: wray.CodeDenied, Message: "no", Hint: "do"}
	for name, n := range map[string]*askedNode{
		"whole":  {parts: []string{"ab", "c"}},
		"empty":  {},
		"fails":  {parts: []string{"ab"}, fail: denied},
		"longer": {parts: strings.Split(strings.Repeat("x", 3*fetchWindow), "")},
	} {
		t.Run(name, func(t *testing.T) {
			n.start()
			g, stop := h.start(t)
			t.Cleanup(func() {
				if err := stop(); err != nil {
					t.Error(err)
				}
			})
			g.job.spec.Fetch = n.fetch
			body := strings.Repeat("b", FetchChunk+1)
			o, err := g.w.store.TryPut(g.w.newID(), objectstore.Value{Encoding: abi.EncodingRaw, Payload: []byte(body)})
			if err != nil {
				t.Fatal(err)
			}
			bh, err := g.handles.Add(o)
			if err != nil {
				t.Fatal(err)
			}
			st := ask(t, g, "https://a.b/", bh)
			list := items(t, st)
			<-n.ended
			var head struct {
				Status int      `cbor:"1,keyasint"`
				Header []string `cbor:"2,keyasint"`
			}
			if len(list) == 0 || cbor.Unmarshal(list[0].Bytes(), &head) != nil || head.Status != 203 || strings.Join(head.Header, "|") != "X|y" {
				t.Fatalf("%d items, the head is %+v", len(list), head)
			}
			last := list[len(list)-1]
			if n.fail != nil {
				if !errors.Is(last.Err(), wray.ErrDenied) {
					t.Errorf("it ended with %v", last.Err())
				}
				list = list[:len(list)-1]
			}
			text := ""
			for _, o := range list[1:] {
				text += string(o.Bytes())
			}
			if text != strings.Join(n.parts, "") {
				t.Errorf("the body is %q", text)
			}
			n.mu.Lock()
			defer n.mu.Unlock()
			if b := n.steps[0]; n.sent != body || b.Method != "POST" || b.URL != "https://a.b/" || len(b.Header) != 2 || b.Header[0] != (egress.Header{Name: "A", Value: "b"}) || b.Length != int64(len(body)) {
				t.Errorf("it was asked %+v, with a body of %d bytes", b, len(n.sent))
			}
		})
	}
}

// TestHTTPFetchDropped holds that a request ends with its stream, and with its job.
func TestHTTPFetchDropped(t *testing.T) {
	h := newJobs(t, tinyGuest())
	for _, drop := range []bool{true, false} {
		n := &askedNode{hangs: true}
		n.start()
		g, stop := h.start(t)
		g.job.spec.Fetch = n.fetch
		ask(t, g, "https://a.b/", 0)
		<-n.reads
		if drop {
			g.handles.Drop(u32(g.sb.Memory(), 248))
			<-n.ended
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		select {
		case <-n.ended:
		default:
			t.Errorf("dropped %v: the node was not told", drop)
		}
	}
}

// TestHTTPFetchesBounded holds that a job's requests that are not over are bounded,
// and that each gives its place back.
func TestHTTPFetchesBounded(t *testing.T) {
	h := newJobs(t, tinyGuest())
	n := &askedNode{hangs: true}
	n.start()
	g, stop := h.start(t)
	g.job.spec.Fetch = n.fetch
	f := g.job.fetching
	f.asked.Store(maxAsked - 1)
	ask(t, g, "https://a.b/", 0)
	if e := g.call("http_fetch", 0, 248); e != abi.ENOSPC || f.asked.Load() != maxAsked {
		t.Errorf("one more than may wait: errno %d, and %d wait", e, f.asked.Load())
	}
	<-n.reads
	if err := stop(); err != nil {
		t.Error(err)
	}
	if got := f.asked.Load(); got != maxAsked-1 {
		t.Errorf("%d wait after the end, want %d", got, maxAsked-1)
	}
}

// TestNarrowed holds that a task asks no server that it, or who submitted it, was not
// granted, and touches no such directory.
func TestNarrowed(t *testing.T) {
	h := newJobs(t, tinyGuest())
	g, stop := h.start(t)
	t.Cleanup(func() {
		g.holder = nil
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	only := func(outer *narrowing, grants ...string) *narrowing {
		n := &narrowing{grants: &wray.Grants{}, outer: outer}
		for _, text := range grants {
			if err := n.grants.ParseGrant(text); err != nil {
				t.Fatal(err)
			}
		}
		return n
	}
	outer := only(nil, "egress=*.b", "dir=/data", "dir=/src:ro")
	f := &narrowFS{g: g}
	for _, c := range []struct {
		only        *narrowing
		url         string
		asked       bool
		data, src   wasi.Errno
		dataW, srcW wasi.Errno
	}{
		{nil, "https://x.c/", true, 0, 0, 0, 0},
		{outer, "https://a.b/", true, 0, 0, 0, wasi.EROFS},
		{outer, "https://x.c/", false, 0, 0, 0, wasi.EROFS},
		{only(nil), "https://a.b/", false, wasi.EACCES, wasi.EACCES, wasi.EACCES, wasi.EACCES},
		{only(outer), "https://a.b/", false, wasi.EACCES, wasi.EACCES, wasi.EACCES, wasi.EACCES},
		{only(outer, "egress=*:*", "dir=/src", "dir=/data:ro"), "https://a.b/", true, 0, 0, wasi.EROFS, wasi.EROFS},
		{only(outer, "egress=*:*", "dir=/src", "dir=/etc"), "https://x.c/", false, wasi.EACCES, 0, wasi.EACCES, wasi.EROFS},
		{only(outer, "egress=*:*"), "http://a.b@x.c/", false, wasi.EACCES, wasi.EACCES, wasi.EACCES, wasi.EACCES},
	} {
		n := &askedNode{}
		n.start()
		g.job.spec.Fetch = n.fetch
		g.holder = &task{only: c.only}
		st := ask(t, g, c.url, 0)
		list := items(t, st)
		n.mu.Lock()
		if asked := len(n.steps) > 0; asked != c.asked || !asked && (len(list) != 1 || list[0].Err() == nil) {
			t.Errorf("%s of %+v: %d steps, %d items", c.url, c.only, len(n.steps), len(list))
		}
		n.mu.Unlock()
		for dir, want := range map[string][2]wasi.Errno{"/data": {c.data, c.dataW}, "/src": {c.src, c.srcW}} {
			if f.guest = dir; f.may(false) != want[0] || f.may(true) != want[1] {
				t.Errorf("%s of %+v: %v %v, want %v", dir, c.only, f.may(false), f.may(true), want)
			}
		}
	}
}
