package arrow

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/ipc"

	"github.com/wray-project/wray"
)

// bodyAlign is what the buffers of a stream are aligned to.
const bodyAlign = 64

// encode writes r twice: to see how long it gets, and into memory of that
// length. To write it costs the building of a little metadata, and one copy.
func encode(r arrow.Record, alloc func(n int) ([]byte, error)) ([]byte, error) {
	for _, f := range r.Schema().Fields() {
		if err := supported(f.Type, 0); err != nil {
			return nil, err
		}
	}
	var length sink
	if err := length.stream(r); err != nil {
		return nil, err
	}
	p, err := alloc(length.n)
	if err != nil {
		return nil, err
	}
	into := sink{out: p}
	if err := into.stream(r); err != nil {
		return nil, err
	}
	if into.n != len(p) {
		return nil, wray.Errorf(wray.CodeInternal, "a record batch is written as %d bytes, and then as %d", len(p), into.n)
	}
	return p, nil
}

// sink frames the messages of a stream. It implements ipc.PayloadWriter.
type sink struct {
	out []byte // nil: only count
	n   int
}

func (s *sink) stream(r arrow.Record) (err error) {
	defer func() {
		if p := recover(); p != nil { // package ipc panics over arrays that are none
			err = wray.Errorf(wray.CodeBadArgument, "the record batch cannot be written: %v", p)
		}
	}()
	w := ipc.NewWriterWithPayloadWriter(s, ipc.WithSchema(r.Schema()))
	if err := w.Write(r); err != nil {
		return wray.Errorf(wray.CodeBadArgument, "the record batch cannot be written: %v", err)
	}
	return w.Close()
}

// Write appends p.
func (s *sink) Write(p []byte) (int, error) {
	if s.out != nil {
		if len(p) > len(s.out)-s.n {
			return 0, fmt.Errorf("a record batch changed while it was written")
		}
		copy(s.out[s.n:], p)
	}
	s.n += len(p)
	return len(p), nil
}

// Start implements ipc.PayloadWriter.
func (s *sink) Start() error { return nil }

// WritePayload implements ipc.PayloadWriter: a marker, the length of the
// metadata with its padding, the metadata, and the body (the Arrow columnar
// format, "Encapsulated message format").
func (s *sink) WritePayload(p ipc.Payload) error {
	buf := p.Meta()
	defer buf.Release()
	meta := append([]byte(nil), buf.Bytes()...)
	spread := body{to: s}
	if err := spread.plan(meta); err != nil {
		return err
	}
	const head = 8
	padding := (bodyAlign - (s.n+head+len(meta))%bodyAlign) % bodyAlign
	b := binary.LittleEndian.AppendUint32(nil, continuation)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(meta)+padding))
	for _, part := range [][]byte{b, meta, zeros[:padding]} {
		if _, err := s.Write(part); err != nil {
			return err
		}
	}
	if err := p.SerializeBody(&spread); err != nil {
		return err
	}
	return spread.fill(spread.length)
}

var zeros [bodyAlign]byte

// body spreads the buffers of a message, which package ipc writes at multiples
// of 8, to multiples of bodyAlign.
type body struct {
	to      *sink
	buffers []extent
	length  int // when it is spread
	begin   int // of the body, in to
	started bool
	read    int // bytes that came
}

// extent is a buffer: n bytes from from, to be at to.
type extent struct{ from, n, to int }

// plan reads where the buffers lie and writes into meta where they are to be.
func (b *body) plan(meta []byte) error {
	f := &flat{b: meta}
	root := f.at(0)
	kind := uint8(0)
	if at := f.field(root, 1); at >= 0 {
		kind = f.u8(at)
	}
	t := f.table(root, 2)
	if kind == headDictionary {
		t = f.table(t, 1)
	}
	if kind != headDictionary && kind != headRecordBatch {
		return nil
	}
	at, n := f.vector(t, 2, 16)
	for i := range n {
		e := extent{int(f.i64(at + 16*i)), int(f.i64(at + 16*i + 8)), b.length}
		b.buffers = append(b.buffers, e)
		binary.LittleEndian.PutUint64(meta[at+16*i:], uint64(e.to))
		b.length += (e.n + bodyAlign - 1) / bodyAlign * bodyAlign
	}
	length := f.field(root, 3)
	if length < 0 && b.length > 0 || f.bad {
		return wray.Errorf(wray.CodeInternal, "the metadata of a record batch does not say where its buffers are")
	}
	if length >= 0 {
		binary.LittleEndian.PutUint64(meta[length:], uint64(b.length))
	}
	return nil
}

// Write takes the next bytes of the body and leaves the padding out.
func (b *body) Write(p []byte) (int, error) {
	written := len(p)
	for len(p) > 0 {
		for len(b.buffers) > 0 && b.read >= b.buffers[0].from+b.buffers[0].n {
			b.buffers = b.buffers[1:]
		}
		n := len(p)
		if len(b.buffers) == 0 {
			n = len(p)
		} else if e := b.buffers[0]; b.read < e.from {
			n = min(n, e.from-b.read)
		} else {
			n = min(n, e.from+e.n-b.read)
			if err := b.fill(e.to + b.read - e.from); err != nil {
				return 0, err
			}
			if _, err := b.to.Write(p[:n]); err != nil {
				return 0, err
			}
		}
		b.read += n
		p = p[n:]
	}
	return written, nil
}

// fill writes zeros up to an offset in the body.
func (b *body) fill(until int) error {
	if !b.started {
		b.started, b.begin = true, b.to.n
	}
	for at := b.to.n - b.begin; at < until; at = b.to.n - b.begin {
		if _, err := b.to.Write(zeros[:min(until-at, len(zeros))]); err != nil {
			return err
		}
	}
	return nil
}

// Close implements ipc.PayloadWriter: it writes the end of the stream.
func (s *sink) Close() error {
	_, err := s.Write(endOfStream)
	return err
}

const continuation = 0xffffffff

var endOfStream = []byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}

// aligned returns n bytes at a multiple of 64.
func aligned(n int) []byte {
	b := make([]byte, n+bodyAlign-1)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) % bodyAlign)
	return b[skip : skip+n : skip+n]
}
