package control

import (
	"context"
	"net"
)

// Head is one of those who keep a control state together.
type Head struct {
	Name    string // empty of one that was added, and has not come yet
	Addr    string // host:port
	Learner bool   // it follows, and has no vote yet
}

// Port is how those who keep a control state together reach each other. Names
// and keys are the cluster's.
type Port struct {
	Name      string // of this head
	Advertise string // host:port at which others reach it
	// Listener gives connections of other heads, whose handshake is done.
	Listener net.Listener
	// File has the key and the certificate to call others with, in PEM, and CA
	// the certificate of who signs those. File is read for each connection.
	File, CA string
	// ServerName is how others are called in the handshake.
	ServerName string
	// Join has the addresses of all heads, this one's among them, where it is
	// to be one more of those that there are, by AddHead. Nil for the first.
	Join []string
}

// Quorum is a Store that several heads keep together.
type Quorum interface {
	Store

	// Heads returns who keeps it.
	Heads(ctx context.Context) ([]Head, error)

	// AddHead lets another head in, as a learner, and returns the addresses of
	// all. It may be repeated; one of that name that was there before goes.
	// ErrUnavailable while another is on its way: one comes after the other.
	AddHead(ctx context.Context, name, addr string) ([]string, error)

	// Promote gives this head a vote, when it has read all that there is. That it
	// has one is no error.
	Promote(ctx context.Context) error

	// RemoveHead has the head of that name keep the state no more. That it does
	// not is no error.
	RemoveHead(ctx context.Context, name string) error
}
