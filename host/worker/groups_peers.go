package worker

import (
	"fmt"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/scheduler"
	"github.com/wray-project/wray/wasm/abi"
)

// Placement groups between workers: what schedulers tell each other of bundles,
// and groups as guests have them that are not on the node of their job.

// groupBody is a scheduler.GroupNote.
type groupBody struct {
	Kind    uint8    `cbor:"1,keyasint"`
	Group   idBody   `cbor:"2,keyasint"`
	Job     idBody   `cbor:"3,keyasint"`
	Round   uint64   `cbor:"4,keyasint,omitempty"`
	Bundles []int    `cbor:"5,keyasint,omitempty"`
	At      []uint64 `cbor:"6,keyasint,omitempty"` // the worker that each bundle is at; 0: none
	Spec    []byte   `cbor:"7,keyasint,omitempty"` // as wray.GroupSpec.Append writes it
}

func (b *groupBody) check() error {
	if b.Kind == 0 || b.Kind > uint8(scheduler.NoteAsk) || len(b.Bundles) > wray.MaxBundles || len(b.At) > wray.MaxBundles || len(b.Spec) > wray.MaxGroupText {
		return fmt.Errorf("a note of a placement group that makes no sense: %d, %d bundles, %d places", b.Kind, len(b.Bundles), len(b.At))
	}
	return nil
}

// tellGroupLocked tells a peer what the scheduler has to say of a group. Worker.mu
// is held, so that what is decided later is told later.
func (w *Worker) tellGroupLocked(d *scheduler.Decision) {
	ps, n := w.peers, d.Note
	b := &groupBody{Kind: uint8(n.Kind), Group: bodyOf(n.Group), Job: bodyOf(n.Job), Round: n.Round, Bundles: n.Bundles}
	for _, at := range n.At {
		switch at {
		case 0:
			at = w.PeerID()
		case scheduler.Nowhere:
			at = 0
		}
		b.At = append(b.At, uint64(at))
	}
	if n.Spec != nil {
		b.Spec = n.Spec.Append(nil)
	}
	ps.mu.Lock()
	p := ps.peers[d.Peer]
	if p != nil && n.Kind == scheduler.NoteRefused {
		p.room = true
		ps.owes.Store(true)
	}
	ps.mu.Unlock()
	if p != nil {
		ps.send(p, &peerMessage{Group: b})
	}
}

// groupNote takes what p's scheduler says of a group.
func (ps *peerSet) groupNote(p *peer, b *groupBody) error {
	w := ps.w
	n := &scheduler.GroupNote{Kind: scheduler.NoteKind(b.Kind), Group: b.Group.id(), Job: b.Job.id(), Round: b.Round, Bundles: b.Bundles}
	for _, at := range b.At {
		switch {
		case at == 0:
			n.At = append(n.At, scheduler.Nowhere)
		case at == w.owner:
			n.At = append(n.At, 0)
		default:
			n.At = append(n.At, scheduler.PeerID(at))
		}
	}
	if len(b.Spec) > 0 {
		spec, err := wray.ParseGroup(string(b.Spec))
		if err != nil {
			return err
		}
		n.Spec = spec
	}
	w.step(nil, func(s *scheduler.Scheduler) {
		if n.Kind == scheduler.NotePrepare && ps.leaving.begun.Load() { // it takes nothing more
			s.RefuseGroup(w.now(), p.id, n)
			return
		}
		s.GroupNote(w.now(), p.id, n)
	})
	return nil
}

// isGroup reports whether an object stands for a placement group, wherever.
func (w *Worker) isGroup(o *objectstore.Object) bool {
	switch a := o.Attachment().(type) {
	case *placementGroup:
		return true
	case *proxy:
		w.peers.mu.Lock()
		defer w.peers.mu.Unlock()
		return a.group
	}
	return false
}

// expectGroupLocked has the scheduler know of the group that t runs in, where it is
// another worker's. w.mu is held.
func (w *Worker) expectGroupLocked(t *task) error {
	if t.group == nil || t.group.ID().Owner == w.owner {
		return nil
	}
	id := t.group.ID()
	if !w.sched.ExpectGroup(w.now(), id, t.job.id, scheduler.PeerID(id.Owner)) {
		return wray.Errorf(wray.CodeOwnerDied, "the node that the placement group belongs to is gone")
	}
	return nil
}

// killGroup ends the placement group that a handle stands for. False: it stands
// for none.
func (g *guest) killGroup(h, flags uint32) (abi.Errno, bool) {
	o, ok := g.handles.Object(h)
	if !ok || !g.w.isGroup(o) {
		return 0, false
	}
	if flags != 0 {
		return abi.EINVAL, true
	}
	if pg, here := o.Attachment().(*placementGroup); here {
		pg.unname()
		g.w.removeGroup(pg.object)
		return abi.Success, true
	}
	if g.job.mirror == nil {
		return abi.EPERM, true
	}
	return g.ask(&askBody{Kill: &killBody{Actor: bodyOf(o.ID())}}).give(g, nil, abi.Success), true
}

// killedBy ends a group of this worker's that p has a reference to, if id is that
// of one.
func (ps *peerSet) killedBy(p *peer, id wray.ID) bool {
	ps.mu.Lock()
	var pg *placementGroup
	if g := p.granted[id]; g != nil {
		pg, _ = g.object.Attachment().(*placementGroup)
	}
	ps.mu.Unlock()
	if pg == nil {
		return false
	}
	pg.unname()
	ps.w.removeGroup(pg.object)
	return true
}

// withGroup adds the group that a lent task runs in, which is counted as an
// argument is, to its arguments, until takeGroup.
func (ps *peerSet) withGroup(p *peer, b *lendBody, args []arg) []arg {
	if b.Group == nil {
		return args
	}
	return append(args, arg{object: ps.objects(p, []refBody{*b.Group})[0]})
}

// takeGroup gives t, which stands for b, its group out of its arguments.
func (t *task) takeGroup(b *lendBody) {
	if b.Group == nil {
		return
	}
	last := len(t.args) - 1
	t.group, t.bundle = t.args[last].object, b.Bundle
	t.args = t.args[:last]
}
