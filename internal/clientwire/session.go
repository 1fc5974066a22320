// Package clientwire is what native clients and nodes say to each other.
//
// A client has two connections, both of package link. Over the first, the
// node's socket, it asks for jobs and sessions in CBOR (control.go). For a
// session it makes the second, of which it gives the node one end, which gives
// it to the tenant's worker: so what a session does passes one process only.
//
// # Sessions
//
// A session speaks in notices, each of whose bodies is a batch of records, as
// many as were at hand. The client's are commands and are carried out in order;
// the worker's are answers, in any order. A record is a header of 16 bytes and
// memory:
//
//	u32 length of the record in bytes, a multiple of 8, the header included
//	u32 op
//	u32 a
//	u32 b
//
// The memory of a command is to the worker what linear memory is to it when a
// guest calls an import: the structures of package abi lie in it, and their
// pointers are offsets from its beginning.
//
// A client chooses the numbers of its handles itself, and so may use what it
// was not yet given: a task, a call with its result, and the reading of that are
// one batch. A number is free again as soon as the command that drops it was
// sent. Commands that want an answer carry a number for it, which only the
// client reads. What is wrong with a task or a value is told by its results; any
// other command that makes no sense ends the session, as no honest client sends
// it.
package clientwire

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/wray-project/wray/internal/link"
)

// Kinds of the notices of a session.
const (
	KindCommands link.Kind = 1 // of the client
	KindAnswers  link.Kind = 2 // of the worker
)

// Op is what a record is about.
type Op uint32

// Commands of a client.
const (
	// OpSubmit submits the task whose struct task_spec is the memory's beginning.
	// Where results_ptr points, the client has written the numbers of its
	// handles. Arguments are handles, or values without references of less than
	// MaxInline bytes.
	OpSubmit Op = 1 + iota
	// OpPut puts the struct value at the memory's beginning, of less than
	// MaxInline bytes, as handle a.
	OpPut
	// OpPutFile puts a value as handle a. The payload is the next file of the
	// notice, a memfd that is sealed against all change, as long as the payload
	// rounded up to abi.MapAlign, with zeros after it. The memory is a struct
	// value whose ptr and len are the low and high half of the payload's
	// length. b: answered by OpDone.
	OpPutFile
	// OpGet reads the object a when it is there. b: answered by OpValue.
	OpGet
	// OpWatch asks to be told when objects are there. The memory is pairs of a
	// handle and the number of the OpReady that answers it.
	OpWatch
	// OpRefs gives handles for the objects that the value of a names, which is
	// there: the memory is their b numbers, as many as the value has references.
	OpRefs
	// OpDrop drops the b handles in the memory.
	OpDrop
	// OpUnmap says that the files that came with the OpValues whose b numbers
	// are in the memory are neither open nor mapped any more.
	OpUnmap
	// OpNext takes the next item of the stream a when it is there, as the handle
	// that is the memory. b: answered by OpItem.
	OpNext
	// OpCancel cancels the task that makes a.
	OpCancel
	// OpKill ends the actor a. The memory is the flags of the import kill. b:
	// answered by OpDone.
	OpKill
	// OpFunction looks up a function: the memory is two texts, the names of the
	// module and of the function. b: answered by OpDone with its number.
	OpFunction
	// OpActor looks up the actor whose name is the text in the memory as handle
	// a. b: answered by OpDone, with an errno where there is none.
	OpActor
	// OpPing is answered by OpDone b, after the answers that were at hand for
	// what came before it.
	OpPing
	// OpBye ends the session and its job. What is mapped stays good, and OpUnmap
	// is the only command after it, until the client closes the connection.
	OpBye
	// OpFree drops the value of the object a, whoever has handles of it. b:
	// answered by OpDone, with the errno of the import object_free.
	OpFree
	// OpStat asks what is known of the object a. b: answered by OpStatus, or by
	// OpDone where a is no object.
	OpStat
)

// Answers of a worker.
const (
	// OpWelcome is the first: a is the most handles that the client may have, b
	// the most answers that it may wait for.
	OpWelcome Op = 64 + iota
	// OpValue answers OpGet b. The memory is a struct info, and the payload where
	// a is Inline. Where a is Mapped, the payload is the beginning of the next
	// file of the notice, to be mapped privately; OpUnmap b is due. Where it is
	// Copied, the file is the client's own. Where it is Refused, the memory is
	// an error in CBOR, as a text.
	OpValue
	// OpReady says that the object of the OpWatch b is there.
	OpReady
	// OpDone answers b. The memory is an errno, and a the result where that is 0;
	// otherwise an error in CBOR may follow as a text.
	OpDone
	// OpItem answers OpNext b. a: 0 at the end of the stream, else 1. The memory
	// is that of an OpValue that is Inline, where the item is small and there; or
	// empty.
	OpItem
	// OpReclaim asks the client to drop what it does not need.
	OpReclaim
	// OpFull says whether the store has, a = 1, or has not any more, values of
	// OpPut waiting for room: the client should wait before it puts more.
	OpFull
	// OpEnd is the last: the session ends because of the error in CBOR, as a text,
	// in the memory.
	OpEnd
	// OpStatus answers OpStat b. The memory is a struct stat and the name after it.
	OpStatus
)

// How an OpValue gives the payload.
const (
	Inline  = 0
	Mapped  = 1
	Copied  = 2
	Refused = 3
)

// Bounds.
const (
	// MaxInline is the payload from which a value travels as a file.
	MaxInline = 64 << 10
	// MaxRequests is how many answers a client may wait for.
	MaxRequests = 1 << 17
	// MaxHandles is how many handles a client may have where its session does
	// not say otherwise.
	MaxHandles = 1 << 20
	// MaxMapped is how many files a client may have mapped.
	MaxMapped = 4096
	// MaxFiles is how many files one notice may carry.
	MaxFiles = 64
	// MaxBatch is the most bytes of one notice.
	MaxBatch = 4 << 20

	// HeaderSize is the bytes of a record before its memory.
	HeaderSize = 16
)

// SessionOptions is how both ends open the connection of a session.
func SessionOptions() link.Options {
	return link.Options{MaxBody: MaxBatch, MaxFiles: MaxFiles, WriteTimeout: 30 * time.Second}
}

// Record is one command or answer.
type Record struct {
	Op   Op
	A, B uint32
	Mem  []byte // aliases the batch
}

// Next cuts the first record off a batch. Its errors wrap link.ErrProtocol.
func Next(batch []byte) (r Record, rest []byte, err error) {
	if len(batch) < HeaderSize {
		return r, nil, fmt.Errorf("%w: a record of %d bytes", link.ErrProtocol, len(batch))
	}
	n := binary.LittleEndian.Uint32(batch)
	if n < HeaderSize || n%8 != 0 || uint64(n) > uint64(len(batch)) {
		return r, nil, fmt.Errorf("%w: a record of %d bytes in a batch of %d", link.ErrProtocol, n, len(batch))
	}
	r.Op = Op(binary.LittleEndian.Uint32(batch[4:]))
	r.A, r.B = binary.LittleEndian.Uint32(batch[8:]), binary.LittleEndian.Uint32(batch[12:])
	r.Mem = batch[HeaderSize:n:n]
	return r, batch[n:], nil
}

// Cut returns the records from the front of a batch that go into one notice: as
// many as MaxBatch takes, and one at least. The batch is whole records.
func Cut(batch []byte) []byte {
	n := 0
	for n < len(batch) {
		next := n + int(binary.LittleEndian.Uint32(batch[n:]))
		if next > MaxBatch && n > 0 {
			break
		}
		n = next
	}
	return batch[:n]
}

// Begin appends a record's header to a batch. Its memory is appended after it,
// and End ends it.
func Begin(batch []byte, op Op, a, b uint32) []byte {
	batch = append(batch, 0, 0, 0, 0)
	batch = binary.LittleEndian.AppendUint32(batch, uint32(op))
	batch = binary.LittleEndian.AppendUint32(batch, a)
	return binary.LittleEndian.AppendUint32(batch, b)
}

// End pads the record that begins at batch[start] and writes its length.
func End(batch []byte, start int) []byte {
	for len(batch)%8 != start%8 {
		batch = append(batch, 0)
	}
	binary.LittleEndian.PutUint32(batch[start:], uint32(len(batch)-start))
	return batch
}

// AppendText appends a text to a record's memory: its length as u32, and its
// bytes.
func AppendText[T ~string | ~[]byte](mem []byte, text T) []byte {
	return append(binary.LittleEndian.AppendUint32(mem, uint32(len(text))), text...)
}

// Text reads a text from the front of a record's memory, which it aliases.
func Text(mem []byte) (text, rest []byte, ok bool) {
	if len(mem) < 4 {
		return nil, nil, false
	}
	n := binary.LittleEndian.Uint32(mem)
	if uint64(n) > uint64(len(mem)-4) {
		return nil, nil, false
	}
	return mem[4 : 4+n : 4+n], mem[4+n:], true
}

// Append appends a whole record.
func Append(batch []byte, op Op, a, b uint32, mem []byte) []byte {
	start := len(batch)
	return End(append(Begin(batch, op, a, b), mem...), start)
}
