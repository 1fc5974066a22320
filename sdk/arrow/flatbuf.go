package arrow

import (
	"encoding/binary"

	"github.com/wray-project/wray"
)

// flat reads a flatbuffer that anybody may have written: what lies outside
// reads as zero and makes the whole bad. (Package ipc has the generated readers
// to itself, and they trust what they read.)
//
// A table begins with the distance back to its vtable, which holds for each
// field its distance from the table, 0 where it is missing. Tables and vectors
// that are fields are there as the distance to them
// (flatbuffers.dev/internals).
type flat struct {
	b   []byte
	bad bool
}

func (f *flat) has(at, n int) bool {
	if at < 0 || n < 0 || at > len(f.b)-n {
		f.bad = true
		return false
	}
	return true
}

func (f *flat) u8(at int) uint8 {
	if !f.has(at, 1) {
		return 0
	}
	return f.b[at]
}

func (f *flat) u16(at int) uint16 {
	if !f.has(at, 2) {
		return 0
	}
	return binary.LittleEndian.Uint16(f.b[at:])
}

func (f *flat) u32(at int) uint32 {
	if !f.has(at, 4) {
		return 0
	}
	return binary.LittleEndian.Uint32(f.b[at:])
}

func (f *flat) i64(at int) int64 {
	if !f.has(at, 8) {
		return 0
	}
	return int64(binary.LittleEndian.Uint64(f.b[at:]))
}

// at follows a distance.
func (f *flat) at(p int) int { return p + int(f.u32(p)) }

// field returns where field i of the table at t is, or -1.
func (f *flat) field(t, i int) int {
	v := t - int(int32(f.u32(t)))
	if slot := 4 + 2*i; slot < int(f.u16(v)) { // as package flatbuffers sees it
		if d := f.u16(v + slot); d != 0 {
			return t + int(d)
		}
	}
	return -1
}

// table returns the table that is field i of the table at t, or -1.
func (f *flat) table(t, i int) int {
	if p := f.field(t, i); p >= 0 {
		return f.at(p)
	}
	return -1
}

// vector returns the first element and the number of elements, each of size
// bytes, of the vector that is field i of the table at t.
func (f *flat) vector(t, i, size int) (at, n int) {
	p := f.field(t, i)
	if p < 0 {
		return 0, 0
	}
	at = f.at(p)
	n = int(f.u32(at))
	if f.bad || n > (len(f.b)-at-4)/size {
		f.bad = true
		return 0, 0
	}
	return at + 4, n
}

// Kinds of messages (Message.fbs).
const (
	headSchema      = 1
	headDictionary  = 2
	headRecordBatch = 3
)

// message is one message of a stream.
type message struct {
	whole []byte // from its marker to the end of its body
	meta  flat
	kind  uint8
	head  int // the table of its header
	body  []byte
}

// cutMessage reads the message at the beginning of p. nil: the stream ends.
func cutMessage(p []byte) (m *message, rest []byte, err error) {
	f := flat{b: p}
	if len(p) == 0 {
		return nil, nil, nil
	}
	if f.u32(0) != continuation {
		return nil, nil, damaged("a message begins with %#x", f.u32(0))
	}
	n := int(f.u32(4))
	switch {
	case f.bad || n > len(p)-8:
		return nil, nil, damaged("metadata of %d bytes in a stream of %d", n, len(p))
	case n == 0:
		return nil, nil, nil
	}
	m = &message{meta: flat{b: p[8 : 8+n : 8+n]}}
	root := m.meta.at(0)
	var length int64
	if at := m.meta.field(root, 3); at >= 0 {
		length = m.meta.i64(at)
	}
	if at := m.meta.field(root, 1); at >= 0 {
		m.kind = m.meta.u8(at)
	}
	m.head = m.meta.table(root, 2)
	if m.meta.bad || m.head < 0 || length < 0 || length > int64(len(p)-8-n) {
		return nil, nil, damaged("a message of %d bytes and a body of %d in a stream of %d", n, length, len(p))
	}
	end := 8 + n + int(length)
	m.whole, m.body = p[:end:end], p[8+n:end:end]
	return m, p[end:], nil
}

// batch is what a RecordBatch says.
type batch struct {
	rows    int64
	nodes   []node
	buffers [][]byte
}

type node struct{ length, nulls int64 }

// batch reads the RecordBatch at t, of the message or of its dictionary.
func (m *message) batch(t int) (*batch, error) {
	f := &m.meta
	b := &batch{}
	if at := f.field(t, 0); at >= 0 {
		b.rows = f.i64(at)
	}
	if f.field(t, 3) >= 0 {
		return nil, wray.Errorf(wray.CodeBadArgument, "the record batch is compressed: it cannot be read in place")
	}
	at, n := f.vector(t, 1, 16)
	b.nodes = make([]node, n)
	for i := range b.nodes {
		b.nodes[i] = node{f.i64(at + 16*i), f.i64(at + 16*i + 8)}
		if d := b.nodes[i]; d.length < 0 || d.length > maxRows || d.nulls < 0 || d.nulls > d.length {
			return nil, damaged("an array of %d, %d of them null", d.length, d.nulls)
		}
	}
	at, n = f.vector(t, 2, 16)
	b.buffers = make([][]byte, n)
	for i := range b.buffers {
		off, length := f.i64(at+16*i), f.i64(at+16*i+8)
		if off < 0 || length < 0 || off > int64(len(m.body)) || length > int64(len(m.body))-off {
			return nil, damaged("a buffer of %d bytes at %d in a body of %d", length, off, len(m.body))
		}
		b.buffers[i] = m.body[off : off+length : off+length]
	}
	if f.bad || b.rows < 0 || b.rows > maxRows {
		return nil, damaged("a record batch of %d rows", b.rows)
	}
	return b, nil
}

// Bounds of what is read. A schema may say the same field many times over in
// few bytes, each time with the same children.
const (
	maxRows   = 1 << 40
	maxFields = 1 << 16
	maxDepth  = 64
)

// typeUnion is the kind of a type (Schema.fbs) that has a length, and that no
// Batch may have.
const typeUnion = 14

// field is what the schema says of an array that its type does not.
type field struct {
	dictionary bool
	id         int64   // of the dictionary
	children   []field // of the values, where there is a dictionary
}

// fields reads the fields in the vector at index i of the table at t, left at
// most with all their children. Lengths that package ipc takes as they are get
// looked at, too.
func (f *flat) fields(t, i, depth int, left *int) []field {
	at, n := f.vector(t, i, 4)
	if *left -= n; *left < 0 || depth > maxDepth {
		f.bad = true
	}
	if f.bad {
		return nil
	}
	list := make([]field, n)
	for j := range list {
		t := f.at(at + 4*j)
		f.vector(t, 6, 4) // metadata
		if at := f.field(t, 2); at >= 0 && f.u8(at) == typeUnion {
			f.bad = true
		}
		if d := f.table(t, 4); d >= 0 {
			list[j].dictionary = true
			if id := f.field(d, 0); id >= 0 {
				list[j].id = f.i64(id)
			}
		}
		list[j].children = f.fields(t, 5, depth+1, left)
	}
	return list
}

// damaged is the failure of what is no stream of a record batch.
func damaged(format string, args ...any) error {
	e := wray.Errorf(wray.CodeBadArgument, "no Arrow stream of one record batch: "+format, args...)
	e.Hint = "give both sides of the call the same type, and write batches with sdk/arrow"
	return e
}
