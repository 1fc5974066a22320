// Package bulk moves ranges of bytes between nodes: objects, in chunks, over TLS
// connections of their own, from one holder or several at once.
//
// [Serve] is a holder's side, [Client] the other. A chunk is asked for, comes
// with a checksum, and is asked for again, of anyone who has it, where the
// connection is lost, nothing moves, or the checksum does not fit. What has
// arrived is not fetched again.
//
// # On the wire
//
// Requests go one way and answers the other, in order, so that several are on
// their way at one time. Numbers are little-endian.
//
//	request: u8 1, u8 flags (1: may be compressed), u16 length of the object's
//	         name, u32 length of the chunk, u64 offset, name
//	         u8 2, u8 0, u16 length of the name, u32 length of the nodes, u64
//	         length of the object, name, nodes: of whom is it to be fetched, if
//	         not of those?
//	answer:  u8 status, u8 encoding (0 as it is, 1 s2), u16 0, u32 length of
//	         what follows, u32 CRC-32C of the chunk, what follows
//
// With another status than 0 what follows is a text for a person. What follows a
// question of whom to fetch is nodes: of each u8 length of its name, and the name.
//
// # Many at one time
//
// Where many nodes want one object, [Referrals] has each fetch it of those that
// asked before, which give by a [Relay] what has come to them so far. So it leaves
// who has it about once, and each of the others.
package bulk

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/klauspost/compress/s2"
)

// Protocol is the application protocol (ALPN) of the connections.
const Protocol = "wray-bulk/1"

const (
	// ChunkSize is how many bytes are asked for at a time.
	ChunkSize = 1 << 20
	// MaxName is the most bytes of an object's name.
	MaxName = 1 << 10
	// depth is how many requests are on their way over one connection.
	depth = 4
	// stall is how long a chunk may take, at either end: 100 kB/s at least.
	stall = 10 * time.Second
	// linger is how long an object stays open of which nothing is asked.
	linger = 250 * time.Millisecond
	// maxText is the most bytes of a reason.
	maxText = 256
	// maxReferred is how many nodes one is sent to, or names, at most, and maxNode
	// the bytes of a node's name.
	maxReferred, maxNode = 16, 255

	requestSize = 16
	answerSize  = 12
)

// Errors, to match with errors.Is.
var (
	// ErrNotFound says that the holder does not have the object, or does not
	// give it to who asks: it does not say which.
	ErrNotFound = errors.New("holder does not have the object")
	// ErrRange says that the object is shorter than what was asked for.
	ErrRange = errors.New("range is not within the object")
	// ErrChecksum says that bytes came which are not those that were sent.
	ErrChecksum = errors.New("checksum does not fit")
	// ErrHolder says that the holder could not read the object.
	ErrHolder = errors.New("holder cannot read the object")
	// errWire says that the other end does not speak the protocol.
	errWire = errors.New("protocol of bulk data is violated")
)

// The kinds of requests.
const (
	kindChunk = 1
	kindAsk   = 2
)

// The statuses of an answer.
const (
	statusOK = iota
	statusNotFound
	statusRange
	statusHolder
)

func statusError(status byte, text []byte) error {
	base := errWire
	switch status {
	case statusNotFound:
		base = ErrNotFound
	case statusRange:
		base = ErrRange
	case statusHolder:
		base = ErrHolder
	}
	return fmt.Errorf("%w: %.200q", base, text)
}

// Object is bytes that a holder gives. It may have a method
//
//	Bytes(off int64, n int) []byte
//
// which gives a part without copying; the part must stay as it is until Close.
type Object interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// awaiter is an Object of which not all is there: Await waits for n bytes at off.
type awaiter interface {
	Await(ctx context.Context, off int64, n int) error
}

// readNodes reads names of nodes.
func readNodes(b []byte) ([]string, error) {
	var nodes []string
	for len(b) > 0 {
		n := int(b[0])
		if n == 0 || n >= len(b) || len(nodes) == maxReferred {
			return nil, fmt.Errorf("%w: names of nodes", errWire)
		}
		nodes, b = append(nodes, string(b[1:1+n])), b[1+n:]
	}
	return nodes, nil
}

// byter is what has bytes in memory.
type byter interface {
	Bytes(off int64, n int) []byte
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// decode writes what came of a chunk into dst, which it fills.
func decode(dst, wire []byte, encoding byte) error {
	if encoding != 1 {
		return fmt.Errorf("%w: encoding %d", errWire, encoding)
	}
	n, err := s2.DecodedLen(wire)
	if err != nil || n != len(dst) {
		return fmt.Errorf("%w: %d bytes are announced, a chunk has %d, %v", ErrChecksum, n, len(dst), err)
	}
	// With room for all of it Decode allocates nothing.
	if _, err := s2.Decode(dst, wire); err != nil {
		return fmt.Errorf("%w: %w", ErrChecksum, err)
	}
	return nil
}

// pays reports whether compressing saves time. link and codec are bytes a second,
// of the wire and of s2 (in and out together), ratio is what remains of a byte.
// Without compression a byte takes 1/link, with it ratio/link + 1/codec; it must
// be better by a fifth.
func pays(link, codec, ratio float64) bool {
	if link <= 0 || codec <= 0 {
		return false
	}
	return (ratio/link+1/codec)*1.2 < 1/link
}
