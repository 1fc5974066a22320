package node

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/bulk"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/objectstore"
)

// bulkPair is two nodes, of which the worker of a has a payload, and the
// connections between them.
type bulkPair struct {
	t    testing.TB
	a, b *fakeNode
	data []byte

	dials atomic.Int64
	ends  sync.WaitGroup // of a's side of the connections

	mu      sync.Mutex
	changed *sync.Cond
	lent    map[uint64]*os.File // guarded by mu; what a's worker has lent
	last    uint64
	wrap    func(net.Conn) net.Conn                 // guarded by mu; a's end of a connection; nil: as it is
	instead func(context.Context) (net.Conn, error) // guarded by mu; what is done where b dials; nil: as it is
}

// set changes what becomes of connections from now on.
func (p *bulkPair) set(wrap func(net.Conn) net.Conn, instead func(context.Context) (net.Conn, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wrap, p.instead = wrap, instead
}

var bulkObject = wray.ID{Owner: 1, Seq: 77}

func newBulkPair(t testing.TB, size int) *bulkPair {
	net := newFakeNetwork()
	p := &bulkPair{t: t, a: newFakeNode(t, net, "a", 1), b: newFakeNode(t, net, "b", 2), data: make([]byte, size), lent: map[uint64]*os.File{}}
	p.changed = sync.NewCond(&p.mu)
	t.Cleanup(p.ends.Wait)
	r := rand.NewChaCha8([32]byte{5})
	_, _ = r.Read(p.data)
	p.b.p.bulk.dial = p.dial
	p.serve(func() (*os.File, int64) { return memoryOf(t, p.data), int64(size) })
	meet(p.a, p.b)
	p.a.awaitEvent(2, worker.PeerIsUp)
	p.b.awaitEvent(1, worker.PeerIsUp)
	return p
}

// memoryOf returns memory with a payload.
func memoryOf(t testing.TB, b []byte) *os.File {
	f, err := objectstore.Copy(b)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// serve has a's worker lend what give returns.
func (p *bulkPair) serve(give func() (*os.File, int64)) {
	p.a.mu.Lock()
	defer p.a.mu.Unlock()
	p.a.serves = func(m link.Message) (link.Message, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		switch m.Kind {
		case worker.KindPeerLend:
			var b worker.PeerFetchBody
			if err := link.Unmarshal(m.Body, &b); err != nil || (wray.ID{Owner: b.Owner, Seq: b.Seq}) != bulkObject {
				return link.Message{}, &wray.Error{Code: wray.CodeObjectLost, Message: "there is no such object"}
			}
			f, size := give()
			p.last++
			p.lent[p.last] = f
			body, err := link.Marshal(worker.PeerLentBody{Number: p.last, Size: size})
			return link.Message{Body: body, Files: []*os.File{f}}, err
		case worker.KindPeerUnlend:
			var b worker.PeerLentBody
			if err := link.Unmarshal(m.Body, &b); err != nil || p.lent[b.Number] == nil {
				p.t.Errorf("payload %d is given back: %v", b.Number, err)
			}
			delete(p.lent, b.Number)
			p.changed.Broadcast()
			return link.Message{}, nil
		}
		return link.Message{}, errors.New("not asked for here")
	}
}

// back waits until everything was given back.
func (p *bulkPair) back() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.lent) > 0 {
		p.changed.Wait()
	}
}

// loopback returns both ends of a connection.
func loopback() (here, there net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if here, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	if there, err = l.Accept(); err != nil {
		here.Close()
		return nil, nil, err
	}
	return here, there, nil
}

func (p *bulkPair) dial(ctx context.Context, _ string) (net.Conn, error) {
	p.dials.Add(1)
	p.mu.Lock()
	wrap, instead := p.wrap, p.instead
	p.mu.Unlock()
	if instead != nil {
		return instead(ctx)
	}
	here, there, err := loopback()
	if err != nil {
		return nil, err
	}
	if wrap != nil {
		there = wrap(there)
	}
	p.ends.Go(func() {
		defer there.Close()
		p.a.p.bulk.serve(p.t.Context(), there, "b")
	})
	return here, nil
}

// fill has b's worker ask for n bytes of an object into f.
func (p *bulkPair) fill(f *os.File, object wray.ID, n int64) error {
	body, err := link.Marshal(worker.PeerFetchBody{Peer: 1, Owner: object.Owner, Seq: object.Seq, Len: n})
	if err != nil {
		p.t.Fatal(err)
	}
	_, err = p.b.conn.Call(context.Background(), link.Message{Kind: worker.KindPeerFill, Body: body, Files: []*os.File{f}})
	return err
}

func (p *bulkPair) wants(what string) {
	p.t.Helper()
	f := memoryOf(p.t, make([]byte, len(p.data)))
	defer f.Close()
	if err := p.fill(f, bulkObject, int64(len(p.data))); err != nil {
		p.t.Fatalf("%s: %v", what, err)
	}
	got := make([]byte, len(p.data))
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, p.data) {
		p.t.Errorf("%s: other bytes came, %v", what, err)
	}
}

// A payload goes from memory to memory over a connection of its own, and is
// given back when nobody asks for more.
func TestBulk(t *testing.T) {
	p := newBulkPair(t, 5<<20+7)
	p.wants("first")
	p.wants("second")
	if n := p.dials.Load(); n != 1 {
		t.Errorf("%d connections for two transfers one after the other", n)
	}
	if n := p.b.p.bulk.came.Load(); n != int64(2*len(p.data)) {
		t.Errorf("%d bytes are counted of two payloads of %d", n, len(p.data))
	}
	p.back()
}

// cutting is a connection that is lost after some bytes were written to it.
type cutting struct {
	net.Conn
	left int
}

func (c *cutting) Write(b []byte) (int, error) {
	if c.left -= len(b); c.left < 0 {
		c.Close()
		return 0, io.ErrClosedPipe
	}
	return c.Conn.Write(b)
}

// A transfer goes on where it was when a connection is lost.
func TestBulkCut(t *testing.T) {
	p := newBulkPair(t, 16<<20)
	p.set(func(c net.Conn) net.Conn { return &cutting{c, 5<<20 + 1000} }, nil)
	p.wants("over connections that are lost")
	if n := p.dials.Load(); n < 3 {
		t.Errorf("%d connections, each good for 5 MiB of 16", n)
	}
	p.back()
}

// What is no payload of the peer's, no memory, or not whole is refused, and the
// worker that lies harms nobody else.
func TestBulkRefused(t *testing.T) {
	const size = 2 << 20
	p := newBulkPair(t, size)
	good := memoryOf(t, make([]byte, size))
	defer good.Close()
	disk, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	if _, err := disk.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.MemfdCreate("holes", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	holes := os.NewFile(uintptr(fd), "holes")
	defer holes.Close()
	if err := holes.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []struct {
		what   string
		f      *os.File
		object wray.ID
		n      int64
	}{
		{"a file on disk", disk, bulkObject, size}, {"memory without pages", holes, bulkObject, size},
		{"memory that is too short", good, bulkObject, size + 1}, {"nothing", good, bulkObject, 0},
		{"another object", good, wray.ID{Owner: 1, Seq: 3}, size},
	} {
		if err := p.fill(bad.f, bad.object, bad.n); err == nil {
			t.Errorf("%s is filled", bad.what)
		}
	}
	p.serve(func() (*os.File, int64) { return memoryOf(t, p.data[:size/2]), size })
	if p.fill(good, bulkObject, size) == nil {
		t.Error("memory that is shorter than it was said to be is a payload")
	}
	p.serve(func() (*os.File, int64) {
		f, err := os.Open(disk.Name())
		if err != nil {
			t.Error(err)
		}
		return f, size
	})
	if p.fill(good, bulkObject, size) == nil {
		t.Error("a file on disk is a payload")
	}
	p.back()
	p.serve(func() (*os.File, int64) { return memoryOf(t, p.data), size })
	p.wants("after all that")
	for what, ask := range map[string]func() (bulk.Object, error){
		"a node without a worker": func() (bulk.Object, error) { return p.a.p.bulk.open(t.Context(), "c", bulkName(1, bulkObject)) },
		"another worker's":        func() (bulk.Object, error) { return p.a.p.bulk.open(t.Context(), "b", bulkName(9, bulkObject)) },
		"a name of nothing":       func() (bulk.Object, error) { return p.a.p.bulk.open(t.Context(), "b", nil) },
		"a worker that is severed": func() (bulk.Object, error) {
			if err := p.a.call(worker.KindPeerSever, worker.PeerSeverBody{Peer: 2, Why: "nonsense"}, nil); err != nil {
				t.Fatal(err)
			}
			p.a.awaitEvent(2, worker.PeerIsDown)
			return p.a.p.bulk.open(t.Context(), "b", bulkName(1, bulkObject))
		},
	} {
		if o, err := ask(); err == nil {
			t.Errorf("%s is given a payload", what)
			o.Close()
		}
	}
}

// A transfer ends with the node that it comes from, and where no connection can
// be had the worker is told at once, the next time too.
func TestBulkLost(t *testing.T) {
	p := newBulkPair(t, 2<<20)
	f := memoryOf(t, make([]byte, len(p.data)))
	defer f.Close()
	p.set(nil, func(context.Context) (net.Conn, error) { return nil, errors.New("no such protocol") })
	for range 3 {
		if p.fill(f, bulkObject, int64(len(p.data))) == nil {
			t.Fatal("filled without a connection")
		}
	}
	if n := p.dials.Load(); n != 3 { // of the first, at bulk.Client
		t.Errorf("%d connections were tried", n)
	}
	dialed := make(chan struct{})
	p.b.p.bulk.forget("a")
	p.set(nil, func(ctx context.Context) (net.Conn, error) {
		close(dialed)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	ended := make(chan error, 1)
	go func() { ended <- p.fill(f, bulkObject, int64(len(p.data))) }()
	<-dialed
	p.b.mesh.Dead(p.a.self, "killed")
	var e *wray.Error
	if err := <-ended; !errors.As(err, &e) || e.Code != wray.CodeWorkerDied {
		t.Errorf("a transfer from a node that has died: %v", err)
	}
}

// A worker that lends nothing keeps who asks waiting for a moment, and after so
// many questions not at all; what it lends too late is given back to it; and what
// a tenant has to do with its workers on a node takes nothing from another's.
func TestLendStuck(t *testing.T) {
	p := newBulkPair(t, 1<<20)
	held := make(chan struct{})
	p.serve(func() (*os.File, int64) { <-held; return memoryOf(t, p.data), int64(len(p.data)) })
	d := p.a.p.bulk
	d.lendLimit = 10 * time.Millisecond
	ask := func(want string) {
		t.Helper()
		o, err := d.open(t.Context(), "b", bulkName(1, bulkObject))
		if err == nil {
			o.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("a payload of a worker that lends none: %v, want %q", err, want)
		}
	}
	for range lendMost {
		ask("has not lent it")
	}
	d.lendLimit = time.Hour
	ask("payloads of the tenant's worker")
	close(held)
	for { // there is no event to wait for
		d.mu.Lock()
		left := len(d.lends)
		d.mu.Unlock()
		if left == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	p.back()
	p.wants("after it lends again")

	of, other := dealing{"a", p.b.p}, dealing{"a", p.a.p} // of two tenants, to the node
	mine, err := p.b.p.bulk.slots(of)
	if err != nil {
		t.Fatal(err)
	}
	for range bulkEach {
		mine <- struct{}{}
	}
	p.b.p.bulk.mu.Lock()
	p.b.p.bulk.failed[of] = time.Now()
	p.b.p.bulk.mu.Unlock()
	theirs, err := p.b.p.bulk.slots(other)
	if err != nil || len(theirs) > 0 {
		t.Errorf("another tenant's transfers from a node wait for one's: %d, %v", len(theirs), err)
	}
	if _, err := p.b.p.bulk.slots(of); err == nil {
		t.Error("a node that gave a tenant nothing is asked again at once")
	}
}
