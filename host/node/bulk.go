package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/bulk"
	"github.com/wray-project/wray/host/peer"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/fd"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/internal/rpc"
)

// Bounds of large payloads between nodes.
const (
	// bulkServing is the memory of chunks that go to others.
	bulkServing = 64 << 20
	// bulkTransfer is what a transfer to here takes beside the payload's own
	// memory, and bulkTransfers what all may: others wait.
	bulkTransfer  = 3 << 20
	bulkTransfers = 32 * bulkTransfer
	// bulkEach is how many transfers of one tenant from one node are under way, and
	// bulkOfOne how many of one tenant are in all: there is room for others' beside.
	bulkEach, bulkOfOne = 4, 16
	// bulkServed is how many connections of one node are served, as many as it may
	// have transfers, and lendMost how many payloads one tenant lends to it.
	bulkServed, lendMost = 2 * bulkTransfers / bulkTransfer, 16
	// lendLimit is how long a worker may take to lend a payload: less than who asks
	// waits for an answer, and takes for a node that gives none.
	lendLimit = 5 * time.Second
	// bulkPause is how long a node is asked nothing in this way after it could not
	// be reached in it.
	bulkPause = 10 * time.Second
)

// bulkData moves large payloads between the memory of workers here and
// elsewhere.
type bulkData struct {
	p      *peering
	holder *bulk.Holder
	client *bulk.Client
	dial   func(ctx context.Context, node string) (net.Conn, error)

	refers bulk.Referrals // of payloads that workers here have

	came atomic.Int64 // bytes of payloads that were filled

	mu     sync.Mutex
	relays map[string]*relay         // guarded by mu; large payloads that come, or came lately, by their names
	served map[string]int            // guarded by mu, as is all that follows; connections, by who asks
	lends  map[dealing]int           // payloads that are lent, or that workers are asked for, by who has them
	from   map[dealing]chan struct{} // slots of transfers, by who is asked
	failed map[dealing]time.Time

	lendLimit time.Duration // lendLimit; tests set it
}

// dealing is a tenant's with another node. What one has to do with its own
// workers there, which may answer nothing, keeps no other from that node.
type dealing struct {
	node string
	of   *tenantPeers
}

func newBulkData(p *peering) *bulkData {
	d := &bulkData{p: p, served: map[string]int{}, lends: map[dealing]int{}, from: map[dealing]chan struct{}{}, failed: map[dealing]time.Time{},
		relays: map[string]*relay{}, lendLimit: lendLimit}
	d.holder = bulk.NewHolder(bulkServing, d.open)
	d.holder.Refer = d.refer
	d.dial = d.dialNode
	d.client = bulk.NewClient(bulkTransfers, func(ctx context.Context, node string) (net.Conn, error) { return d.dial(ctx, node) })
	return d
}

// dialNode connects to a node of the cluster.
func (d *bulkData) dialNode(ctx context.Context, node string) (net.Conn, error) {
	e, ok := d.p.m.Nodes().Node(node)
	if !ok {
		return nil, fmt.Errorf("node %s is not known", node)
	}
	return rpc.Dial(ctx, d.p.m.Guard(), node, e.Node.Addr, bulk.Protocol)
}

// accept serves a node over a connection of its.
func (d *bulkData) accept(ctx context.Context, c *rpc.Conn) { d.serve(ctx, c, c.Identity().Name) }

func (d *bulkData) serve(ctx context.Context, c net.Conn, from string) {
	select {
	case <-d.p.ready:
	case <-ctx.Done():
		return
	}
	d.mu.Lock()
	if d.p.mesh == nil || d.served[from] >= bulkServed {
		d.mu.Unlock()
		return // no node opens so many
	}
	d.served[from]++
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.served[from]--; d.served[from] == 0 {
			delete(d.served, from)
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.p.ctx, cancel)()
	_ = d.holder.Serve(ctx, c, from) // who asks is told, or has left
}

// bulkName is what a payload is asked for by: the worker and the object's ID.
func bulkName(to uint64, object wray.ID) []byte {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, bulkNameSize), to)
	b = binary.LittleEndian.AppendUint64(b, object.Owner)
	return binary.LittleEndian.AppendUint64(b, object.Seq)
}

const bulkNameSize = 24

// open is the Open of the holder.
func (d *bulkData) open(_ context.Context, from string, name []byte) (bulk.Object, error) {
	if len(name) != bulkNameSize {
		return nil, fmt.Errorf("a name of %d bytes", len(name))
	}
	if w := d.readBy(from, binary.LittleEndian.Uint64(name)); w != nil {
		return d.lend(from, w, name)
	}
	return d.openRelay(from, name)
}

// readBy returns the worker of that number here, if a node may read its payloads.
func (d *bulkData) readBy(from string, worker uint64) *workerProcess {
	d.p.mu.Lock()
	defer d.p.mu.Unlock()
	return d.p.readsLocked(worker, func(at peer.Node) bool { return at.Name == from })
}

// lend opens the payload of a name's object that a worker here has, for a node.
func (d *bulkData) lend(from string, w *workerProcess, name []byte) (bulk.Object, error) {
	body, err := link.Marshal(worker.PeerFetchBody{Owner: binary.LittleEndian.Uint64(name[8:]), Seq: binary.LittleEndian.Uint64(name[16:])})
	if err != nil {
		return nil, err
	}
	who := dealing{from, w.peers}
	d.mu.Lock()
	if d.lends[who] >= lendMost {
		d.mu.Unlock()
		return nil, fmt.Errorf("node %s has %d payloads of the tenant's worker, or waits for them", from, lendMost)
	}
	d.lends[who]++
	d.mu.Unlock()
	over := sync.OnceFunc(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.lends[who]--; d.lends[who] == 0 {
			delete(d.lends, who)
		}
	})
	type answer struct {
		o   *lentObject
		err error
	}
	// Not the connection's context, nor a limit: what was lent to nobody would never
	// be given back. A worker that answers late is given it back at once.
	answers := make(chan answer)
	late := make(chan struct{})
	go func() { // ends when the worker answers, or its link has ended
		o, err := d.lentBy(w, body, over)
		select {
		case answers <- answer{o, err}:
		case <-late:
			if o != nil {
				_ = o.Close()
			}
		}
	}()
	limit := time.NewTimer(d.lendLimit)
	defer limit.Stop()
	select {
	case a := <-answers:
		if a.err != nil {
			return nil, a.err
		}
		return a.o, nil
	case <-limit.C:
		close(late)
		return nil, fmt.Errorf("the worker that has the object has not lent it for %v", d.lendLimit)
	}
}

// lentBy asks a worker for a payload. over is called when that is given back, or
// was not lent.
func (d *bulkData) lentBy(w *workerProcess, body []byte, over func()) (_ *lentObject, err error) {
	defer func() {
		if err != nil {
			over()
		}
	}()
	m, err := w.conn.Call(d.p.ctx, link.Message{Kind: worker.KindPeerLend, Body: body})
	if err != nil {
		return nil, err
	}
	var lent worker.PeerLentBody
	if err = link.Unmarshal(m.Body, &lent); err == nil && len(m.Files) != 1 {
		err = fmt.Errorf("%w: a payload came with %d files", link.ErrProtocol, len(m.Files))
	}
	if err != nil {
		m.CloseFiles()
		return nil, err
	}
	o := &lentObject{w: w, f: m.Files[0], lent: lent, over: over}
	// It is never mapped: who may shorten it could kill who reads it so.
	size, _, err := fd.Memory(o.f)
	if err == nil && (lent.Size < 0 || lent.Size > size) {
		err = fmt.Errorf("%w: a payload of %d bytes in memory of %d", link.ErrProtocol, lent.Size, size)
	}
	if err != nil {
		o.Close()
		return nil, err
	}
	return o, nil
}

// lentObject is a payload of this node's worker, which may lie.
type lentObject struct {
	w    *workerProcess
	f    *os.File
	lent worker.PeerLentBody
	over func()
}

func (o *lentObject) ReadAt(p []byte, off int64) (int, error) { return o.f.ReadAt(p, off) }

func (o *lentObject) Size() int64 { return o.lent.Size }

// Close gives the payload back to the worker.
func (o *lentObject) Close() error {
	defer o.over()
	err := o.f.Close()
	body, merr := link.Marshal(worker.PeerLentBody{Number: o.lent.Number})
	if merr != nil {
		return errors.Join(err, merr)
	}
	return errors.Join(err, o.w.conn.Send(link.Message{Kind: worker.KindPeerUnlend, Body: body}))
}

// fill has memory of the worker filled with a payload that a peer has.
func (d *bulkData) fill(ctx context.Context, k *tenantPeers, w *workerProcess, b worker.PeerFetchBody, files []*os.File) error {
	if len(files) != 1 || b.Off != 0 || b.Len <= 0 || b.Len > math.MaxInt64/2 {
		return fmt.Errorf("%w: %d files for %d bytes at %d", link.ErrProtocol, len(files), b.Len, b.Off)
	}
	at, _, err := k.nodeOf(w, b.Peer)
	if err != nil {
		return err
	}
	// The pages are the worker's, and count among what it may have.
	size, pages, err := fd.Memory(files[0])
	if err == nil && min(size, pages) < b.Len {
		err = fmt.Errorf("%w: %d bytes are to go to memory of %d, with pages for %d", link.ErrProtocol, b.Len, size, pages)
	}
	if err != nil {
		return err
	}
	name := bulkName(b.Peer, wray.ID{Owner: b.Owner, Seq: b.Seq})
	t, err := bulk.NewTransfer(name, 0, b.Len, files[0])
	if err != nil {
		return err
	}
	ctx, cancel, err := d.p.within(ctx, at)
	if err != nil {
		return err
	}
	defer cancel(nil)
	slots, err := d.slots(dealing{at.Name, k})
	if err != nil {
		return err
	}
	for _, c := range []chan struct{}{slots, k.fills} {
		select {
		case c <- struct{}{}:
			defer func() { <-c }()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	release, err := d.client.Admit(ctx, bulkTransfer)
	if err != nil {
		return err
	}
	defer release()
	whole := false
	over := d.relay(k, w, name, t, files[0])
	defer func() { over(whole) }() // before the worker hears, whose memory it is
	if err := d.run(ctx, k, at, t); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return err
	}
	whole = true
	d.came.Add(b.Len)
	return nil
}

// run fetches until all is there, as long as some comes or the node is expected
// back.
func (d *bulkData) run(ctx context.Context, k *tenantPeers, from peer.Node, t *bulk.Transfer) error {
	for {
		missing := t.Missing()
		err := d.client.RunReferred(ctx, t, from.Name)
		switch {
		case err == nil, ctx.Err() != nil:
			return err
		case errors.Is(err, bulk.ErrNotFound), errors.Is(err, bulk.ErrRange), errors.Is(err, bulk.ErrHolder):
			return err // the worker there says why, when it is asked
		case t.Missing() < missing:
		case d.p.answers(from):
			d.mu.Lock()
			d.failed[dealing{from.Name, k}] = time.Now()
			d.mu.Unlock()
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// slots are those of a tenant's transfers from a node. An error says that it could
// not be reached a moment ago.
func (d *bulkData) slots(of dealing) (chan struct{}, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if since, bad := d.failed[of]; bad {
		if time.Since(since) < bulkPause {
			return nil, fmt.Errorf("node %s gave no bulk data a moment ago", of.node)
		}
		delete(d.failed, of)
	}
	c := d.from[of]
	if c == nil {
		c = make(chan struct{}, bulkEach)
		d.from[of] = c
	}
	return c, nil
}

// forget drops what is kept of a node that is gone.
func (d *bulkData) forget(node string) {
	d.drop(func(of dealing) bool { return of.node == node }) // whose transfers end
	d.refers.Forget(node)
}

// forgetTenant drops what is kept of a tenant that was removed.
func (d *bulkData) forgetTenant(k *tenantPeers) {
	d.drop(func(of dealing) bool { return of.of == k })
}

func (d *bulkData) drop(which func(dealing) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.from, func(of dealing, _ chan struct{}) bool { return which(of) })
	maps.DeleteFunc(d.failed, func(of dealing, _ time.Time) bool { return which(of) })
}
