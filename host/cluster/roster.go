package cluster

import "github.com/wray-project/wray/internal/latest"

// Roster is the peers that one node knows of, and those who watch them. It is
// what implementations of [Membership] keep. The zero Roster is of nobody.
type Roster struct{ peers latest.Map[string, Peer] }

// Watch sees the changes of a [Roster].
type Watch = latest.Watch[string, Peer]

// Heard takes note of what is heard of a member. What is late is ignored: an
// older incarnation, and anything of one that left.
func (r *Roster) Heard(p Peer) {
	r.peers.Change(p.Name, func(old Peer, known bool) (Peer, bool) {
		switch {
		case !known:
			return p, true
		case p == old, p.Incarnation < old.Incarnation:
			return old, false
		case p.Incarnation == old.Incarnation && old.Status == Left:
			return old, false
		}
		return p, true
	})
}

// Forget drops a member that failed or left long ago, unless a newer
// incarnation of its node is known.
func (r *Roster) Forget(name string, incarnation uint64) {
	r.peers.Drop(name, func(p Peer) bool { return p.Incarnation == incarnation && p.Status != Alive })
}

// Peers implements the method of [Membership].
func (r *Roster) Peers() []Peer { return r.peers.All() }

// Watch implements the method of [Membership].
func (r *Roster) Watch() *Watch { return r.peers.Watch() }

// Close ends all watches. It is idempotent.
func (r *Roster) Close() { r.peers.Close() }
