package worker

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/scheduler"
)

// Large payloads do not pass through messages. The worker that has one lends its
// node a descriptor of the memory, the node of the one that wants it gets a
// descriptor of the memory that it is to be in, and the two nodes move the bytes
// between them over a connection of their own.

// The messages of large payloads.
const (
	KindPeerFill   link.Kind = 31 // worker: request PeerFetchBody with a file, replied to when its first Len bytes are there
	KindPeerLend   link.Kind = 32 // node: request PeerFetchBody, Off and Len 0; reply PeerLentBody with a file
	KindPeerUnlend link.Kind = 33 // node: notice PeerLentBody: it has closed the file
)

// PeerLentBody is a payload that the node may read.
type PeerLentBody struct {
	Number uint64 `cbor:"1,keyasint"`
	Size   int64  `cbor:"2,keyasint,omitempty"` // bytes, from the beginning of the file
}

// maxLoans bounds the payloads that are lent at one time, each of which takes a
// descriptor and stays in memory.
const maxLoans = 512

// LendObject returns a descriptor of the payload of an object of this worker,
// which it keeps in memory until end is called. The caller closes the file.
func (w *Worker) LendObject(ctx context.Context, object wray.ID) (f *os.File, size int64, end func(), err error) {
	o, v, err := w.viewObject(ctx, object)
	if err != nil {
		return nil, 0, nil, err
	}
	defer o.Release()
	defer v.Close() // it stays while it is pinned
	win, err := o.Pin()
	if err != nil {
		return nil, 0, nil, err
	}
	if f, err = win.Lend(); err != nil {
		win.Unpin()
		return nil, 0, nil, err
	}
	return f, win.Len(), win.Unpin, nil
}

// loans are the payloads that the node may read.
type loans struct {
	mu   sync.Mutex
	last uint64            // guarded by mu, as is ends
	ends map[uint64]func() // nil when the link has ended
}

// peerLend lends the node a payload.
func (s *server) peerLend(ctx context.Context, w *Worker, m link.Message) (link.Message, error) {
	m.CloseFiles()
	var b PeerFetchBody
	if err := link.Unmarshal(m.Body, &b); err != nil {
		return link.Message{}, err
	}
	f, size, end, err := w.LendObject(ctx, wray.ID{Owner: b.Owner, Seq: b.Seq})
	if err != nil {
		return link.Message{}, err
	}
	refuse := func(err error) (link.Message, error) {
		f.Close()
		end()
		return link.Message{}, err
	}
	l := &s.loans
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case ctx.Err() != nil: // the node would not know what to give back
		return refuse(ctx.Err())
	case l.ends == nil, len(l.ends) >= maxLoans:
		return refuse(fmt.Errorf("%d payloads are lent, and no more can be", len(l.ends)))
	}
	body, err := link.Marshal(PeerLentBody{Number: l.last + 1, Size: size})
	if err != nil {
		return refuse(err)
	}
	l.last++
	l.ends[l.last] = end
	return link.Message{Body: body, Files: []*os.File{f}}, nil
}

// peerUnlend takes a payload back.
func (s *server) peerUnlend(m link.Message) error {
	m.CloseFiles()
	var b PeerLentBody
	if err := link.Unmarshal(m.Body, &b); err != nil {
		return err
	}
	l := &s.loans
	l.mu.Lock()
	end := l.ends[b.Number]
	delete(l.ends, b.Number)
	l.mu.Unlock()
	if end != nil {
		end()
	}
	return nil
}

// none reports whether nothing is lent.
func (l *loans) none() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.ends) == 0
}

// close takes everything back.
func (l *loans) close() {
	l.mu.Lock()
	ends := l.ends
	l.ends = nil
	l.mu.Unlock()
	for _, end := range ends {
		end()
	}
}

// Fill implements Peering.
func (p *nodePeering) Fill(from scheduler.PeerID, object wray.ID, f *os.File, n int64) error {
	body, err := link.Marshal(PeerFetchBody{Peer: uint64(from), Owner: object.Owner, Seq: object.Seq, Len: n})
	if err != nil {
		return err
	}
	// The node may write until it has replied, so this waits for that, or for the
	// link's end, which is this process's.
	m, err := p.conn.Call(context.Background(), link.Message{Kind: KindPeerFill, Body: body, Files: []*os.File{f}})
	m.CloseFiles()
	return err
}

var _ objectstore.FileSource = (*remote)(nil)

// Fill implements objectstore.FileSource.
func (r *remote) Fill(f *os.File, n int64) error {
	if err := r.set.ctx.Err(); err != nil {
		return err
	}
	return r.set.net.Fill(r.peer.id, r.object, f, n)
}
