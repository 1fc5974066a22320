package bulk

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/klauspost/compress/s2"
	"golang.org/x/sync/semaphore"
)

// Holder gives objects to other nodes.
type Holder struct {
	// Open returns what a node asks for by a name, which is any bytes, or an
	// error. It decides who may have what.
	Open func(ctx context.Context, from string, name []byte) (Object, error)
	// Refer returns the nodes that a node is to fetch an object of, of length bytes;
	// none: of this one. without are those that did not give it. It may be nil.
	Refer func(from string, name []byte, length int64, without []string) ([]string, error)
	// Log is told why objects could not be given. It may be nil.
	Log func(format string, args ...any)

	memory  *semaphore.Weighted
	buffers sync.Pool // of *[]byte, with room for a chunk however it is encoded
}

// NewHolder returns a holder that spends memory bytes on chunks that are on
// their way, however many ask; who comes later waits.
func NewHolder(memory int64, open func(ctx context.Context, from string, name []byte) (Object, error)) *Holder {
	return &Holder{
		Open:    open,
		memory:  semaphore.NewWeighted(max(memory, 2*ChunkSize)),
		buffers: sync.Pool{New: func() any { b := make([]byte, s2.MaxEncodedLen(ChunkSize)); return &b }},
	}
}

// sender is one connection of a holder.
type sender struct {
	h    *Holder
	conn net.Conn
	from string

	mu   sync.Mutex // held while a request is answered
	name string     // guarded by mu; of the object that is open
	obj  Object     // guarded by mu

	link  float64 // bytes a second that the wire takes
	codec float64 // and that s2 does
	sent  int     // chunks
	ratio float64 // of the last sample
	head  [answerSize]byte
}

// Serve answers what the node from asks for over a connection, until it ends.
// The connection is closed by the caller.
func (h *Holder) Serve(ctx context.Context, conn net.Conn, from string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	s := &sender{h: h, conn: conn, from: from}
	defer s.rest()
	// An object stays as it is while it is open, so it is not where nobody asks.
	rest := time.AfterFunc(linger, s.rest)
	defer rest.Stop()
	in := bufio.NewReaderSize(conn, depth*(requestSize+MaxName))
	var head [requestSize]byte
	name := make([]byte, MaxName)
	for {
		rest.Reset(linger)
		if _, err := io.ReadFull(in, head[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		rest.Stop()
		n := int(binary.LittleEndian.Uint16(head[2:]))
		size := int(binary.LittleEndian.Uint32(head[4:]))
		off := binary.LittleEndian.Uint64(head[8:])
		chunk := head[0] == kindChunk && head[1] <= 1 && size > 0 && size <= ChunkSize
		ask := head[0] == kindAsk && head[1] == 0 && size <= maxReferred*(1+maxNode)
		if !chunk && !ask || n > MaxName || off > 1<<62 {
			return fmt.Errorf("%w: request %x", errWire, head)
		}
		if _, err := io.ReadFull(in, name[:n]); err != nil {
			return err
		}
		var err error
		if chunk {
			err = s.answer(ctx, name[:n], int64(off), size, head[1] == 1)
		} else {
			without := make([]byte, size)
			if _, err := io.ReadFull(in, without); err != nil {
				return err
			}
			err = s.refer(name[:n], int64(off), without)
		}
		if err != nil {
			return err
		}
	}
}

// rest closes the object until it is asked for again.
func (s *sender) rest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.close()
}

func (s *sender) close() {
	if s.obj != nil {
		s.obj.Close()
		s.obj = nil
	}
}

// answer sends one chunk.
func (s *sender) answer(ctx context.Context, name []byte, off int64, size int, mayCompress bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.obj == nil || s.name != string(name) {
		s.close()
		obj, err := s.h.Open(ctx, s.from, name)
		if err != nil {
			s.h.log("open object %.40x for node %s: %v", name, s.from, err)
			return s.refuse(statusNotFound, "it is not here, or not for you")
		}
		s.obj, s.name = obj, string(name)
	}
	if off+int64(size) > s.obj.Size() {
		return s.refuse(statusRange, fmt.Sprintf("it has %d bytes", s.obj.Size()))
	}
	if o, ok := s.obj.(awaiter); ok { // not while it holds memory that others wait for
		wait, cancel := context.WithTimeout(ctx, stall/2)
		err := o.Await(wait, off, size)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			s.h.log("wait for object %.40x for node %s: %v", name, s.from, err)
			s.close()
			return s.refuse(statusHolder, "it did not come here")
		}
	}
	if err := s.h.memory.Acquire(ctx, ChunkSize); err != nil {
		return err
	}
	defer s.h.memory.Release(ChunkSize)
	var chunk []byte
	if o, ok := s.obj.(byter); ok {
		chunk = o.Bytes(off, size)
	} else {
		buf := s.h.buffers.Get().(*[]byte)
		defer s.h.buffers.Put(buf)
		chunk = (*buf)[:size]
		if n, err := s.obj.ReadAt(chunk, off); n < size {
			s.h.log("read object %.40x for node %s: %v", name, s.from, err)
			s.close()
			return s.refuse(statusHolder, "reading failed")
		}
	}
	sum := checksum(chunk)
	if mayCompress && s.worthwhile(chunk) {
		buf := s.h.buffers.Get().(*[]byte)
		defer s.h.buffers.Put(buf)
		begin := time.Now()
		if packed := s2.Encode((*buf)[:cap(*buf)], chunk); len(packed) < size {
			s.measure(&s.codec, size, time.Since(begin)*3/2) // decoding takes half as long
			s.ratio = float64(len(packed)) / float64(size)
			return s.send(statusOK, 1, packed, sum)
		}
		s.ratio = 1
	}
	return s.send(statusOK, 0, chunk, sum)
}

// worthwhile decides, by what the wire takes and a sample of each few chunks,
// whether to compress.
func (s *sender) worthwhile(chunk []byte) bool {
	const every = 16
	s.sent++
	// A wire that is faster than s2 ever was has no need of a sample.
	if s.link <= 0 || s.link > 2e9 {
		return false
	}
	if s.ratio == 0 || s.sent%every == 0 {
		sample := chunk[:min(len(chunk), 64<<10)]
		buf := s.h.buffers.Get().(*[]byte)
		begin := time.Now()
		packed := s2.Encode((*buf)[:cap(*buf)], sample)
		s.measure(&s.codec, len(sample), time.Since(begin)*3/2)
		s.ratio = float64(len(packed)) / float64(len(sample))
		s.h.buffers.Put(buf)
	}
	return pays(s.link, s.codec, s.ratio)
}

// measure takes a rate into the average.
func (s *sender) measure(rate *float64, n int, d time.Duration) {
	now := float64(n) / max(d.Seconds(), 1e-9)
	if *rate == 0 {
		*rate = now
		return
	}
	*rate += (now - *rate) / 4
}

// refer answers of whom an object is to be fetched.
func (s *sender) refer(name []byte, length int64, without []byte) error {
	nodes, err := readNodes(without)
	if err != nil {
		return err
	}
	if s.h.Refer == nil {
		return s.send(statusOK, 0, nil, 0)
	}
	to, err := s.h.Refer(s.from, name, length, nodes)
	if err != nil {
		s.h.log("refer node %s for object %.40x: %v", s.from, name, err)
		return s.refuse(statusNotFound, "it is not here, or not for you")
	}
	var b []byte
	for _, node := range to[:min(len(to), maxReferred)] {
		if len(node) <= maxNode {
			b = append(append(b, byte(len(node))), node...)
		}
	}
	return s.send(statusOK, 0, b, 0)
}

func (s *sender) refuse(status byte, why string) error { return s.send(status, 0, []byte(why), 0) }

func (s *sender) send(status, encoding byte, b []byte, sum uint32) error {
	s.head[0], s.head[1] = status, encoding
	binary.LittleEndian.PutUint32(s.head[4:], uint32(len(b)))
	binary.LittleEndian.PutUint32(s.head[8:], sum)
	begin := time.Now()
	s.conn.SetWriteDeadline(begin.Add(stall))
	if _, err := s.conn.Write(s.head[:]); err != nil {
		return err
	}
	_, err := s.conn.Write(b)
	// The buffers of the socket take the first chunks, whatever the wire does:
	// the average forgets them.
	if len(b) >= ChunkSize/8 {
		s.measure(&s.link, len(b), time.Since(begin))
	}
	return err
}

func (h *Holder) log(format string, args ...any) {
	if h.Log != nil {
		h.Log(format, args...)
	}
}
