// Package cluster tells which nodes there are. What it says is a hint, to find
// others by and to look again: a node that is listed as failed may live, and one
// that is listed as alive may be gone. Who lives is decided by package liveness,
// from replies and leases; who is to be trusted, by certificates.
//
// [Membership] is the interface, and its documentation the contract. [Network]
// keeps it in this process, for tests that cut links and kill nodes; package
// gossip does it with serf. Package clustertest holds both to the contract.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/wray-project/wray/internal/latest"
)

// Member is one incarnation of a node, as it describes itself.
type Member struct {
	Name        string // of the node, unique in the cluster: see CheckName
	Incarnation uint64 // grows with each start of the node; not zero
	Addr        string // host:port, where other nodes reach it
	Version     string // of wray that it runs
	Head        bool   // it keeps the control state
	Draining    bool   // it takes no new work
	// Meta is up to MaxMeta bytes of the node's own, such as a hash of what it
	// offers, so that others know when to read that again.
	Meta string
}

// Bounds of what a member may say of itself. All of it is told to all nodes, in
// packets that hold 512 bytes of it.
const (
	MaxName    = 63
	MaxAddr    = 128
	MaxVersion = 64
	MaxMeta    = 64
)

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)

// CheckName says why a node cannot have a name: it must be as a host's, lower
// case letters, digits, dots and dashes between.
func CheckName(name string) error {
	if len(name) > MaxName || !nameForm.MatchString(name) {
		return fmt.Errorf("node name %q: want up to %d lower case letters, digits, dots and dashes, with a letter or digit at both ends", name, MaxName)
	}
	return nil
}

// Check says what is wrong with what a member says of itself.
func (m Member) Check() error {
	switch {
	case m.Incarnation == 0:
		return fmt.Errorf("node %s: its incarnation is zero", m.Name)
	case len(m.Addr) == 0 || len(m.Addr) > MaxAddr:
		return fmt.Errorf("node %s: an address of %d bytes: want 1 to %d", m.Name, len(m.Addr), MaxAddr)
	case len(m.Version) > MaxVersion:
		return fmt.Errorf("node %s: a version of %d bytes: want at most %d", m.Name, len(m.Version), MaxVersion)
	case len(m.Meta) > MaxMeta:
		return fmt.Errorf("node %s: %d bytes of its own: want at most %d", m.Name, len(m.Meta), MaxMeta)
	}
	return CheckName(m.Name)
}

// Status is what is heard of a member.
type Status uint8

// The statuses. A member that failed may be alive again, as the same
// incarnation; one that left will not.
const (
	Alive Status = iota + 1
	Failed
	Left
)

// String returns the status in lower case.
func (s Status) String() string {
	switch s {
	case Alive:
		return "alive"
	case Failed:
		return "failed"
	case Left:
		return "left"
	}
	return fmt.Sprintf("Status(%d)", uint8(s))
}

// Peer is a member and what is heard of it.
type Peer struct {
	Member
	Status Status
}

// ErrClosed says that the membership, or a watch of it, was closed.
var ErrClosed = latest.ErrClosed

// ErrNobody says that none of the addresses to join by answered.
var ErrNobody = errors.New("cluster: nobody answered")

// Membership is a node's part in a cluster. Its methods may be called by any
// number of goroutines.
//
// Of each node the newest incarnation is known, and none that is older. Those
// who are connected, directly or through others, come to know the same, in no
// order and after no certain time.
type Membership interface {
	// Peers returns all members that are known, this node among them, in order
	// of names. Those that failed or left are forgotten after a while.
	Peers() []Peer

	// Watch returns a watch, for one goroutine, that first shows all peers.
	// Close it.
	Watch() *Watch

	// Join makes this node known to those at the addresses, and them to it. One
	// that answers is enough; ErrNobody comes with why each of them did not.
	Join(ctx context.Context, addrs ...string) error

	// Update tells the others what this member says of itself now. Name,
	// Incarnation and Addr stay.
	Update(m Member) error

	// Leave tells the others that this node goes and will not be back as this
	// incarnation. Close comes after it.
	Leave(ctx context.Context) error

	// Close ends it, and all watches. To the others a node that did not leave
	// has failed. It is idempotent.
	Close() error
}
