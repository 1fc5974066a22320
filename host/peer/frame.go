package peer

import (
	"encoding/binary"
	"fmt"
)

// A frame is a byte that says what it is, and then, numbers as uvarints, texts
// with their length in front:
//
//	hello: version, from name and incarnation, to incarnation, epoch, received
//	data:  acknowledged, number of the first message, messages with their lengths
//	bye:   code, the sender's incarnation, why
//
// A connection begins with a hello of each side, that of who connected first, or
// ends with a bye in place of one.
const (
	kindHello = 1
	kindData  = 2
	kindBye   = 3
)

// version is of the frames, and of what nodes of this program say in them: nodes
// of another are refused, and both sides say so. 1 was without word of how much a
// worker takes, which who waits for it would never get.
const version = 2

// versionError says that a greeting is of another version.
type versionError struct{ theirs uint64 }

func (e *versionError) Error() string {
	return fmt.Sprintf("it speaks version %d of the protocol between nodes, this node version %d: run the same wray on all nodes of a cluster, upgrade the older", e.theirs, version)
}

// helloFrame is the first of each side.
type helloFrame struct {
	from     Node
	to       uint64 // the incarnation that is meant; 0 is whichever there is
	epoch    uint64
	received uint64 // number of the last message received
}

// byeCode says why a connection is refused.
type byeCode uint64

const (
	byeIncarnation byeCode = iota + 1 // the incarnation that was meant is not the one that is here
	byeOld                            // who connects is an incarnation that is over
	byeOther                          // another connection stays
	byeVersion                        // who connects speaks another version
	numByeCodes
)

type byeFrame struct {
	code        byeCode
	incarnation uint64 // of the sender
	why         string // for a person
}

// maxText bounds the names and reasons in a frame, in bytes.
const maxText = 256

func appendText(b []byte, s string) []byte {
	s = s[:min(len(s), maxText)]
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func (h helloFrame) append(b []byte) []byte {
	b = append(b, kindHello, version)
	b = appendText(b, h.from.Name)
	for _, v := range []uint64{h.from.Incarnation, h.to, h.epoch, h.received} {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

func (f byeFrame) append(b []byte) []byte {
	b = binary.AppendUvarint(append(b, kindBye), uint64(f.code))
	return appendText(binary.AppendUvarint(b, f.incarnation), f.why)
}

func appendDataHead(b []byte, ack, first uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(append(b, kindData), ack), first)
}

// reader takes a frame apart. After an error it returns zeros.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", errFrame, fmt.Sprintf(format, args...))
	}
	r.b = nil
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail("it ends inside a number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes(limit uint64) []byte {
	n := r.uint()
	if r.err != nil {
		return nil
	}
	if n > limit || n > uint64(len(r.b)) {
		r.fail("%d bytes announced, %d came, at most %d", n, len(r.b), limit)
		return nil
	}
	s := r.b[:n:n]
	r.b = r.b[n:]
	return s
}

func decodeHello(r *reader) (h helloFrame, err error) {
	if v := r.uint(); v != version && r.err == nil {
		return h, &versionError{v} // what follows is as that has it
	}
	h.from.Name = string(r.bytes(maxText))
	h.from.Incarnation, h.to, h.epoch, h.received = r.uint(), r.uint(), r.uint(), r.uint()
	if r.err == nil && (len(r.b) > 0 || h.from.Incarnation == 0 || h.epoch == 0) {
		r.fail("no greeting")
	}
	return h, r.err
}

func decodeBye(r *reader) (f byeFrame, err error) {
	f.code, f.incarnation, f.why = byeCode(r.uint()), r.uint(), string(r.bytes(maxText))
	if r.err == nil && (len(r.b) > 0 || f.code == 0 || f.code >= numByeCodes || f.incarnation == 0) {
		r.fail("no farewell")
	}
	return f, r.err
}

// decodeData takes a data frame apart; the messages are parts of it. There are
// limit at most.
func decodeData(r *reader, limit int) (ack, first uint64, messages [][]byte, err error) {
	ack, first = r.uint(), r.uint()
	if r.err == nil && first == 0 {
		r.fail("messages begin with 1")
	}
	for r.err == nil && len(r.b) > 0 {
		if len(messages) == limit {
			r.fail("more than %d messages", limit)
			break
		}
		messages = append(messages, r.bytes(MaxMessage))
	}
	if r.err != nil {
		return 0, 0, nil, r.err
	}
	return ack, first, messages, nil
}

func appendMessage(b, message []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(message))), message...)
}
