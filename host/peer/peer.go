// Package peer holds a session between two nodes: control messages in order,
// each once, for as long as both live, over connections that come and go.
//
// A session is between two incarnations. It ends for good, with one event Down,
// when liveness says that the peer is dead, or when the peer is back as another
// incarnation; until then what was sent arrives, however often the connection is
// lost. A lost connection is the event Unreachable, and says nothing about what
// the peer has or has not received.
//
// [Machine] is one side of the sessions with one peer: a state machine, without
// clock, goroutine or I/O, specified by the scripts in testdata. [Mesh] drives
// one for each peer, over a [Carrier]: [NewCarrier] has gRPC, package peertest a
// twin in memory that loses, delays, doubles and cuts, and the suite that holds
// both.
//
// # Order
//
// Messages have numbers, from 1. The sender keeps each until the receiver has
// acknowledged it, which it does when its handler has returned; a window bounds
// what is kept, in bytes and in messages, and whoever sends waits for it. When a
// connection begins each side says what it has received, and the other goes on
// from there. What comes twice is dropped; where something is missing the
// connection is cut and made again.
//
// # One connection
//
// Either side may connect. Connections of a session have epochs, and the one
// with the higher epoch stays; of two with the same, which met on the way, the
// one that the node with the smaller name made.
package peer

import (
	"errors"
	"fmt"
	"time"
)

// MaxMessage is the most bytes of a message.
const MaxMessage = 4 << 20

// Defaults of [Config].
const (
	DefaultWindow   = 16 << 20
	DefaultMessages = 1 << 16
	DefaultBeat     = 500 * time.Millisecond
	DefaultSilence  = 2 * time.Second
)

// frameTarget is how many bytes of messages go into one frame, where more wait.
const frameTarget = 128 << 10

// Errors of sending, to match with errors.Is.
var (
	// ErrGone says that the session with that incarnation has ended.
	ErrGone = errors.New("session has ended")
	// ErrFull says that the window is full: the peer has not acknowledged what
	// was sent.
	ErrFull = errors.New("session's window is full")
	// ErrTooLarge says that a message is larger than MaxMessage.
	ErrTooLarge = errors.New("message is too large for a session")
	// ErrClosed says that this side was closed.
	ErrClosed = errors.New("sessions are closed")
)

// errFrame says that a frame is not one of an honest peer's.
var errFrame = errors.New("frame is malformed")

// Config has the bounds of a session; the zero value has the defaults. Both
// sides must have the same window.
type Config struct {
	Window   int           // bytes sent and not acknowledged, at least MaxMessage
	Messages int           // messages sent and not acknowledged
	Beat     time.Duration // each side sends something this often
	Silence  time.Duration // without a frame for so long a connection is cut
}

func (c Config) withDefaults() Config {
	if c.Window <= 0 {
		c.Window = DefaultWindow
	}
	c.Window = max(c.Window, MaxMessage)
	if c.Messages <= 0 {
		c.Messages = DefaultMessages
	}
	if c.Beat <= 0 {
		c.Beat = DefaultBeat
	}
	if c.Silence <= 0 {
		c.Silence = DefaultSilence
	}
	return c
}

// Pauses between attempts to connect, doubled each time.
const (
	minRetry = 50 * time.Millisecond
	maxRetry = 2 * time.Second
)

// Node is one incarnation of a node. A node that starts again has a higher one.
type Node struct {
	Name        string
	Incarnation uint64
}

// String returns NAME#INCARNATION.
func (n Node) String() string { return fmt.Sprintf("%s#%d", n.Name, n.Incarnation) }

// Status is how a session is.
type Status uint8

// The statuses. Up and Unreachable follow each other, Down is the last.
const (
	Up Status = iota + 1
	Unreachable
	Down
)

// String returns the status in lower case.
func (s Status) String() string {
	switch s {
	case Up:
		return "up"
	case Unreachable:
		return "unreachable"
	case Down:
		return "down"
	}
	return fmt.Sprintf("Status(%d)", uint8(s))
}
