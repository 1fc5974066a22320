package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/scheduler"
)

// The messages between a worker and its node that are about the tenant's workers
// on other nodes.
const (
	KindPeerSend   link.Kind = 9  // worker: request PeerSendBody, reply PeerSentBody, at once
	KindPeerFetch  link.Kind = 10 // worker: request PeerFetchBody, reply the bytes
	KindPeerModule link.Kind = 11 // worker: request PeerModuleBody, reply ModuleBody with the artifact's file
	KindPeerEvents link.Kind = 12 // node: request PeerEventsBody, replied to when they are taken
	KindPeerRead   link.Kind = 13 // node: request PeerFetchBody, reply the bytes
	KindPeerSever  link.Kind = 14 // worker: request PeerSeverBody, replied to at once
	KindLeave      link.Kind = 30 // node: request LeaveBody, reply Left when the worker is empty
)

// Bounds of these messages.
const (
	// MaxPeerPiece is the most bytes of a message in one piece, and MaxPeerBatch
	// about those of the pieces of one request.
	MaxPeerPiece = 1 << 20
	MaxPeerBatch = 2 << 20
	// MaxPeerFetch is the most bytes of one fetch.
	MaxPeerFetch = 1 << 20
)

// PeerSendBody is pieces of messages to one peer, in order.
type PeerSendBody struct {
	Pieces []PeerPiece `cbor:"1,keyasint"`
}

// PeerSentBody says how many pieces the node took, from the first. The others are
// to be sent again after PeerHasRoom.
type PeerSentBody struct {
	Taken int `cbor:"1,keyasint"`
}

// PeerPiece is a message to a peer, or a part of one.
type PeerPiece struct {
	Peer uint64 `cbor:"1,keyasint"`
	More bool   `cbor:"2,keyasint,omitempty"` // the message goes on in the next piece for this peer
	Data []byte `cbor:"3,keyasint"`
}

// PeerFetchBody asks for bytes of an object that a peer has; of the node, for
// bytes of one that this worker has.
type PeerFetchBody struct {
	Peer  uint64 `cbor:"1,keyasint,omitempty"`
	Owner uint64 `cbor:"2,keyasint"` // the object's ID
	Seq   uint64 `cbor:"3,keyasint"`
	Off   int64  `cbor:"4,keyasint"`
	Len   int64  `cbor:"5,keyasint"` // at most MaxPeerFetch
}

// PeerSeverBody ends all there is with a peer.
type PeerSeverBody struct {
	Peer uint64 `cbor:"1,keyasint"`
	Why  string `cbor:"2,keyasint"`
}

// PeerModuleBody asks for the code of a module.
type PeerModuleBody struct {
	Peer uint64 `cbor:"1,keyasint"` // who has it
	Hash string `cbor:"2,keyasint"` // SHA-256 of its bytes, in hexadecimal
}

// PeerEventsBody is what happened to peers, in order.
type PeerEventsBody struct {
	Events []PeerEvent `cbor:"1,keyasint"`
}

// PeerEvent is something that happened to a peer.
type PeerEvent struct {
	Peer uint64        `cbor:"1,keyasint"`
	What PeerEventKind `cbor:"2,keyasint"`
	Node string        `cbor:"3,keyasint,omitempty"` // of PeerIsUp, PeerComes and PeerComesNot: where it is
	More bool          `cbor:"4,keyasint,omitempty"` // as of a piece
	Data []byte        `cbor:"5,keyasint,omitempty"` // of PeerSent
}

// PeerEventKind says what happened.
type PeerEventKind uint8

// The kinds of events.
const (
	PeerIsUp PeerEventKind = iota + 1
	PeerIsUnreachable
	PeerIsDown
	PeerSent
	PeerHasRoom  // what the node did not take may be sent again
	PeerComes    // Node is there, and its worker is yet to start; no Peer
	PeerComesNot // Node is gone, or goes
)

// LeaveBody has the worker end what it does for others.
type LeaveBody struct {
	Within int64 `cbor:"1,keyasint"` // ns that what runs has
	After  int64 `cbor:"2,keyasint"` // ns that peers have then, to fetch what is here alone
}

// nodePeering is the Peering of a worker process: its node carries everything.
type nodePeering struct {
	conn    *link.Conn
	drained func(scheduler.PeerID) // told when little waits for a peer that much did; set before any is there

	mu     sync.Mutex
	queues map[scheduler.PeerID]*sendQueue // guarded by mu; those with something to send
}

// Fetch implements Peering.
func (p *nodePeering) Fetch(ctx context.Context, from scheduler.PeerID, object wray.ID, off int64, b []byte) error {
	for len(b) > 0 {
		n := min(len(b), MaxPeerFetch)
		body, err := link.Marshal(PeerFetchBody{Peer: uint64(from), Owner: object.Owner, Seq: object.Seq, Off: off, Len: int64(n)})
		if err != nil {
			return err
		}
		m, err := p.conn.Call(ctx, link.Message{Kind: KindPeerFetch, Body: body})
		var e *wray.Error
		if errors.As(err, &e) && e.Code == wray.CodeWorkerDied {
			// Of the way to the peer, not of the object: an event says whether it is gone.
			return errors.New(e.Message)
		}
		if err != nil {
			return err
		}
		m.CloseFiles()
		if len(m.Body) != n {
			return fmt.Errorf("%d bytes of object %v came, %d were asked for", len(m.Body), object, n)
		}
		copy(b, m.Body)
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// Sever implements Peering.
func (p *nodePeering) Sever(peer scheduler.PeerID, why string) {
	body, err := link.Marshal(PeerSeverBody{Peer: uint64(peer), Why: asText(why[:min(len(why), maxName)])})
	if err != nil {
		return
	}
	go func() { // ends with the reply, or the link
		if m, err := p.conn.Call(context.Background(), link.Message{Kind: KindPeerSever, Body: body}); err == nil {
			m.CloseFiles()
		}
	}()
}

// Module implements Peering.
func (p *nodePeering) Module(ctx context.Context, from scheduler.PeerID, name, hash string) (ModuleSpec, error) {
	body, err := link.Marshal(PeerModuleBody{Peer: uint64(from), Hash: hash})
	if err != nil {
		return ModuleSpec{}, err
	}
	m, err := p.conn.Call(ctx, link.Message{Kind: KindPeerModule, Body: body})
	if err != nil {
		return ModuleSpec{}, err
	}
	defer m.CloseFiles()
	var b ModuleBody
	if err := link.Unmarshal(m.Body, &b); err != nil {
		return ModuleSpec{}, err
	}
	if len(m.Files) != 1 {
		return ModuleSpec{}, fmt.Errorf("module %s came with %d files", name, len(m.Files))
	}
	raw, err := io.ReadAll(m.Files[0])
	if err != nil {
		return ModuleSpec{}, fmt.Errorf("read artifact %s: %w", name, err)
	}
	a, err := sandbox.DecodeArtifact(raw)
	if err != nil {
		return ModuleSpec{}, fmt.Errorf("artifact %s: %w", name, err)
	}
	return ModuleSpec{Name: name, Artifact: a, Native: b.Native, Hash: hash}, nil
}

// peerEvents takes what the node tells of peers. The node tells one at a time.
func (s *server) peerEvents(w *Worker, m link.Message) (link.Message, error) {
	m.CloseFiles()
	var b PeerEventsBody
	if err := link.Unmarshal(m.Body, &b); err != nil {
		return link.Message{}, err
	}
	if w.peers == nil {
		return link.Message{}, errors.New("this worker has no peers")
	}
	s.peersMu.Lock()
	defer s.peersMu.Unlock()
	if s.parts == nil {
		s.parts = map[uint64][]byte{}
	}
	for _, e := range b.Events {
		id := scheduler.PeerID(e.Peer)
		switch e.What {
		case PeerIsUp:
			w.PeerUp(id, e.Node)
		case PeerIsUnreachable:
			w.PeerUnreachable(id)
		case PeerIsDown:
			delete(s.parts, e.Peer)
			w.PeerDown(id)
			s.peering.forget(id)
		case PeerHasRoom:
			s.peering.room(id)
		case PeerComes:
			w.PeerComes(e.Node)
		case PeerComesNot:
			w.PeerComesNot(e.Node)
		case PeerSent:
			part := append(s.parts[e.Peer], e.Data...)
			delete(s.parts, e.Peer)
			switch {
			case len(part) > MaxPeerMessage:
				w.peers.net.Sever(id, fmt.Sprintf("a message of more than %d bytes", MaxPeerMessage))
				w.PeerDown(id)
			case e.More:
				s.parts[e.Peer] = part
			default:
				_ = w.PeerMessage(id, slices.Clip(part)) // on an error it was severed
			}
		}
	}
	return link.Message{}, nil
}

// peerRead reads an object for a peer.
func (s *server) peerRead(ctx context.Context, w *Worker, m link.Message) (link.Message, error) {
	m.CloseFiles()
	var b PeerFetchBody
	if err := link.Unmarshal(m.Body, &b); err != nil {
		return link.Message{}, err
	}
	if b.Len < 0 || b.Len > MaxPeerFetch {
		return link.Message{}, fmt.Errorf("%d bytes were asked for, %d are the most", b.Len, MaxPeerFetch)
	}
	p := make([]byte, b.Len)
	if err := w.ReadObject(ctx, wray.ID{Owner: b.Owner, Seq: b.Seq}, b.Off, p); err != nil {
		return link.Message{}, err
	}
	return link.Message{Body: p}, nil
}

// leave has the worker go.
func (s *server) leave(ctx context.Context, w *Worker, m link.Message) (link.Message, error) {
	m.CloseFiles()
	var b LeaveBody
	if err := link.Unmarshal(m.Body, &b); err != nil {
		return link.Message{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(b.Within+b.After))
	defer cancel()
	bound, over := context.WithTimeout(ctx, time.Duration(b.Within))
	defer over()
	return reply(w.Leave(ctx, bound))
}
