package node

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/bulk"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/link"
)

// bulkCrowd is nodes with connections between them, of which the worker of the
// first has a payload.
type bulkCrowd struct {
	t     *testing.T
	nodes map[string]*fakeNode
	data  []byte
	ends  sync.WaitGroup

	left  map[string]*atomic.Int64 // bytes that left each node
	lends map[string]*atomic.Int64 // payloads that each worker lent

	mu  sync.Mutex
	has map[string][]byte         // guarded by mu; what the workers have
	due map[string]chan struct{}  // guarded by mu; of workers that fetch it: closed when they have it
	cut func(from, to string) int // guarded by mu; after how many bytes a connection is lost; nil: never
}

func newBulkCrowd(t *testing.T, size int, names ...string) *bulkCrowd {
	network := newFakeNetwork()
	c := &bulkCrowd{t: t, nodes: map[string]*fakeNode{}, data: make([]byte, size), left: map[string]*atomic.Int64{},
		lends: map[string]*atomic.Int64{}, has: map[string][]byte{}, due: map[string]chan struct{}{}}
	t.Cleanup(c.ends.Wait)
	r := rand.NewChaCha8([32]byte{7})
	_, _ = r.Read(c.data)
	var all []*fakeNode
	for i, name := range names {
		f := newFakeNode(t, network, name, uint64(i+1))
		all = append(all, f)
		c.nodes[name], c.left[name], c.lends[name] = f, &atomic.Int64{}, &atomic.Int64{}
		f.p.bulk.dial = func(ctx context.Context, to string) (net.Conn, error) { return c.dial(ctx, name, to) }
		f.mu.Lock()
		f.serves = func(m link.Message) (link.Message, error) { return c.serve(name, m) }
		f.mu.Unlock()
	}
	c.has[names[0]] = c.data
	meet(all...)
	for i := range all {
		for j := range all {
			if i != j {
				all[i].awaitEvent(uint64(j+1), worker.PeerIsUp)
			}
		}
	}
	return c
}

// serve is the worker of a node, which lends what it has, and waits for what it
// fetches, as the real one does.
func (c *bulkCrowd) serve(name string, m link.Message) (link.Message, error) {
	switch m.Kind {
	case worker.KindPeerUnlend:
		return link.Message{}, nil
	case worker.KindPeerLend:
		var b worker.PeerFetchBody
		c.mu.Lock()
		due := c.due[name]
		c.mu.Unlock()
		if due != nil {
			<-due
		}
		c.mu.Lock()
		data := c.has[name]
		c.mu.Unlock()
		if err := link.Unmarshal(m.Body, &b); err != nil || (wray.ID{Owner: b.Owner, Seq: b.Seq}) != bulkObject || data == nil {
			return link.Message{}, &wray.Error{Code: wray.CodeObjectLost, Message: "there is no such object"}
		}
		c.lends[name].Add(1)
		body, err := link.Marshal(worker.PeerLentBody{Number: 1, Size: int64(len(data))})
		return link.Message{Body: body, Files: []*os.File{memoryOf(c.t, data)}}, err
	}
	return link.Message{}, errors.New("not asked for here")
}

// counting counts what leaves a node, and loses a connection.
type counting struct {
	net.Conn
	n    *atomic.Int64
	left int
}

func (c *counting) Write(b []byte) (int, error) {
	if c.left -= len(b); c.left < 0 {
		c.Close()
		return 0, io.ErrClosedPipe
	}
	c.n.Add(int64(len(b)))
	return c.Conn.Write(b)
}

func (c *bulkCrowd) dial(_ context.Context, from, to string) (net.Conn, error) {
	here, there, err := loopback()
	if err != nil {
		return nil, err
	}
	left := 1 << 60
	c.mu.Lock()
	if c.cut != nil {
		left = c.cut(to, from)
	}
	c.mu.Unlock()
	c.ends.Go(func() {
		defer there.Close()
		c.nodes[to].p.bulk.serve(c.t.Context(), &counting{there, c.left[to], left}, from)
	})
	return here, nil
}

// fill has the worker of a node fetch the first's payload.
func (c *bulkCrowd) fill(name string) {
	due := make(chan struct{})
	c.mu.Lock()
	c.due[name] = due
	c.mu.Unlock()
	defer close(due)
	f := memoryOf(c.t, make([]byte, len(c.data)))
	defer f.Close()
	body, err := link.Marshal(worker.PeerFetchBody{Peer: 1, Owner: bulkObject.Owner, Seq: bulkObject.Seq, Len: int64(len(c.data))})
	if err != nil {
		c.t.Error(err)
		return
	}
	if _, err := c.nodes[name].conn.Call(context.Background(), link.Message{Kind: worker.KindPeerFill, Body: body, Files: []*os.File{f}}); err != nil {
		c.t.Errorf("node %s: %v", name, err)
		return
	}
	got := make([]byte, len(c.data))
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, c.data) {
		c.t.Errorf("node %s: other bytes came, %v", name, err)
	}
	c.mu.Lock()
	c.has[name] = got
	c.mu.Unlock()
}

// TestBulkCrowd has six nodes fetch one payload at one time, and a seventh later:
// the bytes leave who has it about once, and the seventh gets them of a worker
// that fetched them.
func TestBulkCrowd(t *testing.T) {
	const size = 16 << 20
	c := newBulkCrowd(t, size, "a", "b", "c", "d", "e", "f", "g", "h")
	var wait sync.WaitGroup
	for _, name := range []string{"b", "c", "d", "e", "f", "g"} {
		wait.Go(func() { c.fill(name) })
	}
	wait.Wait()
	c.fill("h")
	if got := float64(c.left["a"].Load()) / size; got > 1.3 {
		t.Errorf("%.2f copies left the node that has it", got)
	}
	lends := int64(0)
	for name, n := range c.lends {
		if name != "a" {
			lends += n.Load()
		}
	}
	if lends == 0 {
		t.Error("no worker lent what it had fetched")
	}
}

// TestBulkCrowdLost has nodes be sent to others that lose every connection, or no
// longer have what they fetched: each gets its payload all the same.
func TestBulkCrowdLost(t *testing.T) {
	c := newBulkCrowd(t, 12<<20, "a", "b", "c", "d")
	c.mu.Lock()
	c.cut = func(of, _ string) int {
		if of == "a" {
			return 1 << 60
		}
		return 2<<20 + 100
	}
	c.mu.Unlock()
	var wait sync.WaitGroup
	for _, name := range []string{"b", "c"} {
		wait.Go(func() { c.fill(name) })
	}
	wait.Wait()
	c.mu.Lock()
	clear(c.has)
	c.has["a"] = c.data
	c.mu.Unlock()
	c.fill("d")
}

// TestRelayRefused asks a node that was sent a payload for it, as somebody who may
// not have it, under a name that did not come, and after it has lost its worker.
func TestRelayRefused(t *testing.T) {
	c := newBulkCrowd(t, bulk.ReferMin, "a", "b", "c")
	c.fill("b")
	b := c.nodes["b"].p.bulk
	name := bulkName(1, bulkObject)
	if o, err := b.open(t.Context(), "c", name); err != nil {
		t.Fatalf("who may have it: %v", err)
	} else if err := o.Close(); err != nil {
		t.Error(err)
	}
	refused := func(what, from string, name []byte) {
		t.Helper()
		if o, err := b.open(t.Context(), from, name); err == nil {
			t.Errorf("%s is given a payload", what)
			o.Close()
		}
	}
	refused("a node without a worker", "x", name)
	refused("another object", "c", bulkName(1, wray.ID{Owner: 1, Seq: 3}))
	refused("another worker's", "c", bulkName(3, bulkObject))
	if to, err := c.nodes["a"].p.bulk.refer("x", name, bulk.ReferMin, nil); err == nil {
		t.Errorf("a node without a worker is sent to %v", to)
	}
	if err := c.nodes["b"].call(worker.KindPeerSever, worker.PeerSeverBody{Peer: 3, Why: "nonsense"}, nil); err != nil {
		t.Fatal(err)
	}
	c.nodes["b"].awaitEvent(3, worker.PeerIsDown)
	refused("a worker that is severed", "c", name)
}
