// Package link carries framed messages and file descriptors over one unix
// socket: between a node and the worker and compiler processes it starts, and
// between a node, or its worker, and a native client.
//
// The peer is hostile: a worker runs guest code, and what it sends may have
// been written by whoever broke out of a sandbox. Every length is bounded
// before memory is spent on it, descriptors are counted and closed when a
// message is refused, bodies are decoded strictly, and the first violation of
// the protocol ends the connection.
//
// The package knows framing, calls and replies. What a kind means, and the Go
// type of its body, is defined by the packages on both ends.
//
// # Frame
//
// A frame is a header of 16 bytes, little-endian, and a body:
//
//	u32 length of the body
//	u16 kind
//	u8  class: 0 notice, 1 request, 2 reply, 3 failure, 4 cancel
//	u8  number of descriptors
//	u64 id: of the call for classes 1 to 4, zero for a notice
//
// Descriptors travel with the first byte of their frame, so they have always
// arrived when the header has.
//
// # Back-pressure
//
// A call takes a credit (Options.MaxCalls, Options.MaxCallBytes) that its
// reply gives back, so the reading side never has to stop reading in order to
// bound its work; a peer that sends more requests than it has credit for is
// cut off. Both ends must be opened with the same Options. Notices are handled
// in order on the reading goroutine: a slow handler slows the sender down.
package link

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/wray-project/wray"
)

// Kind says what a message is about. Its meaning belongs to the users of the
// package; link uses none of its own.
type Kind uint16

// Message is one message. Body is CBOR by convention (Marshal, Unmarshal).
type Message struct {
	Kind Kind
	// Body is borrowed by Send and Call until they return, and belongs to the
	// receiver afterwards.
	Body []byte
	// Files are borrowed by Send and Call, which never close them; a receiver
	// owns its copies and closes each. A received file is a bare descriptor of
	// unknown type: check what it is before reading it.
	Files []*os.File
}

// CloseFiles closes the message's files. It is what a receiver does with a
// message it refuses.
func (m Message) CloseFiles() {
	for _, f := range m.Files {
		f.Close()
	}
}

// Options bounds a connection. The zero value of a field is its default.
type Options struct {
	// MaxBody is the largest body in bytes, both ways, at least 4 KiB. Default
	// 4 MiB. Anything larger travels in a memfd.
	MaxBody int
	// MaxFiles is the most descriptors in one message, at most 128. Default 64.
	MaxFiles int
	// MaxCalls is how many calls may wait for their reply, per direction.
	// Default 256.
	MaxCalls int
	// MaxCallBytes is how many bytes the bodies of those calls may have
	// together, at least MaxBody. Default 32 MiB.
	MaxCallBytes int
	// WriteTimeout ends the connection when the peer takes no byte of a message
	// for this long: a process that does not read is stuck. Default 30 s.
	WriteTimeout time.Duration
	// Descriptors bounds the files that came with calls which have no reply yet,
	// and of replies that are not sent yet. Nil bounds none but by the others.
	Descriptors Descriptors
}

// Descriptors are what a process may have open on behalf of others. Its methods
// may be called concurrently.
type Descriptors interface {
	// Take takes n, or says why there are not so many.
	Take(n int) error
	// Give gives n back.
	Give(n int)
}

// maxFilesLimit keeps one message below the kernel's SCM_MAX_FD of 253.
const maxFilesLimit = 128

func (o *Options) ensureDefaults() {
	if o.MaxBody <= 0 {
		o.MaxBody = 4 << 20
	}
	o.MaxBody = max(o.MaxBody, 4<<10)
	if o.MaxFiles <= 0 {
		o.MaxFiles = 64
	}
	o.MaxFiles = min(o.MaxFiles, maxFilesLimit)
	if o.MaxCalls <= 0 {
		o.MaxCalls = 256
	}
	if o.MaxCallBytes <= 0 {
		o.MaxCallBytes = 32 << 20
	}
	o.MaxCallBytes = max(o.MaxCallBytes, o.MaxBody)
	if o.WriteTimeout <= 0 {
		o.WriteTimeout = 30 * time.Second
	}
}

// Errors that callers branch on, with errors.Is.
var (
	// ErrClosed means that the connection has ended: closed here, closed there,
	// or cut off after a violation, which the error then names.
	ErrClosed = errors.New("link closed")
	// ErrProtocol means that the peer sent what no honest peer sends.
	ErrProtocol = errors.New("link protocol violated")
	// ErrDescriptors means that files were sent to this process, and it has no
	// descriptors left to take them. The peer has done nothing wrong.
	ErrDescriptors = errors.New("this process has no file descriptors left")
	// ErrTooLarge means that a message to be sent passes a bound of Options.
	ErrTooLarge = errors.New("message too large for link")
)

// noDescriptors is the failure of a call whose files were lost for want of
// descriptors here.
func noDescriptors() error {
	return &wray.Error{Code: wray.CodeLimitExceeded, Message: fmt.Sprintf("files that came with a message are lost: process %d has no file descriptors left", os.Getpid()),
		Limit: &wray.Limit{Name: "descriptors"}, Cause: wray.Errorf(wray.CodeLimitExceeded, "%v", ErrDescriptors),
		Hint: "try again when fewer jobs run, or raise the limit of the node (ulimit -n, LimitNOFILE= of a systemd unit) and start it again"}
}

func protocolError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}
