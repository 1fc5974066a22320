package bulk

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// Client fetches from other nodes. It keeps a few connections that are idle.
type Client struct {
	dial   func(ctx context.Context, node string) (net.Conn, error)
	memory *semaphore.Weighted
	limit  int64

	mu     sync.Mutex
	idle   map[string][]*source // guarded by mu
	closed bool                 // guarded by mu
}

const (
	maxIdle  = 2 // connections to one node
	idleTime = 30 * time.Second
	// maxTries is how often a holder is tried without a chunk coming of it.
	maxTries = 3
)

// NewClient returns a client that admits memory bytes of transfers at one time.
// dial connects to a node, for Protocol.
func NewClient(memory int64, dial func(ctx context.Context, node string) (net.Conn, error)) *Client {
	return &Client{dial: dial, memory: semaphore.NewWeighted(memory), limit: memory, idle: map[string][]*source{}}
}

// Admit waits until there is memory for a transfer of n bytes, in the order of
// asking. It is called before the memory is taken; release after the transfer.
// One that is larger than all there is waits for all of it.
func (c *Client) Admit(ctx context.Context, n int64) (release func(), err error) {
	n = min(max(n, 0), c.limit)
	if err := c.memory.Acquire(ctx, n); err != nil {
		return nil, fmt.Errorf("wait for memory for a transfer of %d bytes: %w", n, err)
	}
	return sync.OnceFunc(func() { c.memory.Release(n) }), nil
}

// Close closes the connections that are idle; those in use are when their
// transfer ends. It may be called more than once.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, all := range c.idle {
		for _, s := range all {
			s.conn.Close()
		}
	}
	clear(c.idle)
	return nil
}

// Transfer is a range of an object on its way. Run may be called again after an
// error, with other holders: it fetches what is missing.
type Transfer struct {
	name   []byte
	off    int64
	length int64
	dest   io.WriterAt

	mu      sync.Mutex
	todo    []int64       // guarded by mu; chunks that nobody fetches, by their offset in the range, last first
	flying  int           // guarded by mu; chunks that somebody fetches
	changed chan struct{} // guarded by mu; closed when todo or flying have changed for somebody who waits
	wire    int64         // guarded by mu; bytes that came, as they were on the wire
	came    []bool        // guarded by mu; the chunks that are there
	news    chan struct{} // guarded by mu; closed when more are, for somebody who waits
}

// NewTransfer describes what is to be fetched: length bytes of the object of a
// name, from off on, to go to dest from 0 on. Where dest has a method
//
//	Bytes(off int64, n int) []byte
//
// chunks are received into what it returns, which then has bytes that were not
// checked until Run has returned without an error; else WriteAt gets checked
// ones. Either is called for several chunks at once.
func NewTransfer(name []byte, off, length int64, dest io.WriterAt) (*Transfer, error) {
	if len(name) > MaxName || off < 0 || length < 0 || off+length < 0 {
		return nil, fmt.Errorf("%w: %d bytes at %d, of a name of %d bytes", ErrRange, length, off, len(name))
	}
	t := &Transfer{name: name, off: off, length: length, dest: dest}
	for at := (length - 1) / ChunkSize * ChunkSize; at >= 0 && length > 0; at -= ChunkSize {
		t.todo = append(t.todo, at)
	}
	t.came = make([]bool, len(t.todo))
	return t, nil
}

// Length is how many bytes are fetched.
func (t *Transfer) Length() int64 { return t.length }

// Missing is how many chunks have not arrived.
func (t *Transfer) Missing() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.todo) + t.flying
}

// WireBytes is how many bytes came for chunks that were good, as they were sent.
func (t *Transfer) WireBytes() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.wire
}

// take gives a chunk to whoever asks. Where there is none but one that is on its
// way may come back, it gives a channel to wait at.
func (t *Transfer) take() (at int64, ok bool, wait <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.todo); n > 0 {
		at = t.todo[n-1]
		t.todo = t.todo[:n-1]
		t.flying++
		return at, true, nil
	}
	if t.flying == 0 {
		return 0, false, nil
	}
	if t.changed == nil {
		t.changed = make(chan struct{})
	}
	return 0, false, t.changed
}

// failed gives back chunks that were taken and did not come.
func (t *Transfer) failed(chunks []int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.todo = append(t.todo, chunks...)
	t.flying -= len(chunks)
	t.moved(len(chunks) > 0)
}

// arrived notes that a chunk is where it belongs, of which wire bytes came.
func (t *Transfer) arrived(at, wire int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.came[at/ChunkSize] = true
	t.flying--
	t.wire += wire
	t.moved(false)
	t.tell()
}

// moved wakes who waits for a chunk to fetch. mu is held.
func (t *Transfer) moved(more bool) {
	if t.changed != nil && (more || t.flying == 0) {
		close(t.changed)
		t.changed = nil
	}
}

// arrival reports whether the chunk at an offset in the range is there, and gives
// a channel to wait at where it is not.
func (t *Transfer) arrival(at int64) (there bool, wait <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.came[at/ChunkSize] {
		return true, nil
	}
	if t.news == nil {
		t.news = make(chan struct{})
	}
	return false, t.news
}

// tell wakes who waits for chunks. mu is held.
func (t *Transfer) tell() {
	if t.news != nil {
		close(t.news)
		t.news = nil
	}
}

// wake has who waits for chunks look again.
func (t *Transfer) wake() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tell()
}

func (t *Transfer) size(at int64) int { return int(min(ChunkSize, t.length-at)) }

// Run fetches what is missing, from all holders at once, each as fast as it is.
// It returns nil when everything is there; else an error that says what was wrong
// with each holder. Only one Run may be at work on a transfer.
func (c *Client) Run(ctx context.Context, t *Transfer, holders ...string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(holders))
	var wait sync.WaitGroup
	for i, h := range holders {
		wait.Go(func() {
			if err := c.from(ctx, t, h); err != nil {
				errs[i] = fmt.Errorf("from node %s: %w", h, err)
			}
		})
	}
	wait.Wait()
	missing := t.Missing()
	if missing == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("fetch object %.40x, %d chunks are missing: %w", t.name, missing, err)
	}
	if len(holders) == 0 {
		return fmt.Errorf("fetch object %.40x, %d chunks are missing: nobody has it", t.name, missing)
	}
	return fmt.Errorf("fetch object %.40x, %d chunks are missing: %w", t.name, missing, errors.Join(errs...))
}

// Ask asks the holder of an object of length bytes which nodes to fetch it of;
// none: of itself. without are those that it has named before and that do not
// give it.
func (c *Client) Ask(ctx context.Context, holder string, name []byte, length int64, without []string) ([]string, error) {
	var failed []byte
	for _, node := range without[max(0, len(without)-maxReferred):] {
		if len(node) <= maxNode {
			failed = append(append(failed, byte(len(node))), node...)
		}
	}
	if len(name) > MaxName || length < 0 {
		return nil, fmt.Errorf("%w: %d bytes, of a name of %d bytes", ErrRange, length, len(name))
	}
	request := []byte{kindAsk, 0}
	request = binary.LittleEndian.AppendUint16(request, uint16(len(name)))
	request = binary.LittleEndian.AppendUint32(request, uint32(len(failed)))
	request = binary.LittleEndian.AppendUint64(request, uint64(length))
	request = append(append(request, name...), failed...)
	for {
		s, fresh, err := c.source(ctx, holder)
		if err != nil {
			return nil, err
		}
		nodes, err := s.ask(ctx, request)
		c.giveBack(holder, s, err == nil)
		if err == nil || fresh || ctx.Err() != nil {
			return nodes, err
		}
	}
}

func (s *source) ask(ctx context.Context, request []byte) ([]string, error) {
	stop := context.AfterFunc(ctx, func() { s.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := s.deadline(ctx); err != nil {
		return nil, err
	}
	if _, err := s.conn.Write(request); err != nil {
		return nil, err
	}
	_, n, err := s.head()
	if err != nil {
		return nil, err
	}
	if n > maxReferred*(1+maxNode) {
		return nil, fmt.Errorf("%w: %d bytes of names", errWire, n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(s.in, b); err != nil {
		return nil, err
	}
	return readNodes(b)
}

// from fetches from one holder, until there is nothing to do or it is no use.
func (c *Client) from(ctx context.Context, t *Transfer, node string) error {
	for try := 1; ; try++ {
		s, fresh, err := c.source(ctx, node)
		good := 0
		if err == nil {
			good, err = s.fetch(ctx, t)
			c.giveBack(node, s, err == nil)
		}
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, ErrNotFound), errors.Is(err, ErrRange), errors.Is(err, ErrHolder), errors.Is(err, errWire):
			return err
		case good > 0 || !fresh && s != nil:
			try = 0 // it moves, or the connection had been idle for too long
		case try >= maxTries:
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(1<<try) * 10 * time.Millisecond):
		}
	}
}

// source is a connection to a holder.
type source struct {
	conn  net.Conn
	in    *bufio.Reader
	since time.Time // when it was given back
	buf   []byte    // for chunks that are not received in place
	wire  []byte    // for those that are compressed
}

func (c *Client) source(ctx context.Context, node string) (s *source, fresh bool, err error) {
	c.mu.Lock()
	for n := len(c.idle[node]); n > 0 && s == nil; n-- {
		s = c.idle[node][n-1]
		c.idle[node] = c.idle[node][:n-1]
		if time.Since(s.since) > idleTime {
			s.conn.Close()
			s = nil
		}
	}
	c.mu.Unlock()
	if s != nil {
		return s, false, nil
	}
	conn, err := c.dial(ctx, node)
	if err != nil {
		return nil, true, err
	}
	return &source{conn: conn, in: bufio.NewReaderSize(conn, 32<<10)}, true, nil
}

func (c *Client) giveBack(node string, s *source, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !ok || c.closed || len(c.idle[node]) >= maxIdle {
		s.conn.Close()
		return
	}
	s.since = time.Now()
	c.idle[node] = append(c.idle[node], s)
}

// fetch keeps depth requests on their way, and takes the answers. It returns how
// many were good, and with an error has given back what did not come.
func (s *source) fetch(ctx context.Context, t *Transfer) (good int, err error) {
	stop := context.AfterFunc(ctx, func() { s.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var flying []int64
	defer func() {
		if len(flying) > 0 {
			t.failed(flying)
		}
	}()
	request := make([]byte, 0, depth*(requestSize+len(t.name)))
	for {
		request = request[:0]
		var wait <-chan struct{}
		for len(flying) < depth {
			at, ok, w := t.take()
			if wait = w; !ok {
				break
			}
			flying = append(flying, at)
			request = append(request, kindChunk, 1)
			request = binary.LittleEndian.AppendUint16(request, uint16(len(t.name)))
			request = binary.LittleEndian.AppendUint32(request, uint32(t.size(at)))
			request = binary.LittleEndian.AppendUint64(request, uint64(t.off+at))
			request = append(request, t.name...)
		}
		if len(flying) == 0 {
			if wait == nil {
				return good, ctx.Err()
			}
			select {
			case <-wait:
				continue
			case <-ctx.Done():
				return good, ctx.Err()
			}
		}
		if err := s.deadline(ctx); err != nil {
			return good, err
		}
		if len(request) > 0 {
			if _, err := s.conn.Write(request); err != nil {
				return good, err
			}
		}
		wire, err := s.answer(t, flying[0])
		if err != nil {
			return good, err
		}
		t.arrived(flying[0], wire)
		flying = flying[1:]
		good++
	}
}

// deadline gives the next chunk its time, unless ctx has ended, which has set
// another.
func (s *source) deadline(ctx context.Context) error {
	s.conn.SetDeadline(time.Now().Add(stall))
	if err := ctx.Err(); err != nil {
		s.conn.SetDeadline(time.Unix(1, 0))
		return err
	}
	return nil
}

// answer takes one chunk.
func (s *source) answer(t *Transfer, at int64) (wire int64, err error) {
	head, n, err := s.head()
	if err != nil {
		return 0, err
	}
	size := t.size(at)
	sum := binary.LittleEndian.Uint32(head[8:])
	if head[1] == 0 && n != size || head[1] == 1 && n >= size || head[1] > 1 {
		return 0, fmt.Errorf("%w: %d bytes of encoding %d for a chunk of %d", errWire, n, head[1], size)
	}
	place, inPlace := t.dest.(byter)
	var chunk []byte
	if inPlace {
		chunk = place.Bytes(at, size)
	} else {
		if s.buf == nil {
			s.buf = make([]byte, ChunkSize)
		}
		chunk = s.buf[:size]
	}
	if head[1] == 0 {
		if _, err := io.ReadFull(s.in, chunk); err != nil {
			return 0, err
		}
	} else {
		if s.wire == nil {
			s.wire = make([]byte, ChunkSize)
		}
		if _, err := io.ReadFull(s.in, s.wire[:n]); err != nil {
			return 0, err
		}
		if err := decode(chunk, s.wire[:n], head[1]); err != nil {
			return 0, err
		}
	}
	if got := checksum(chunk); got != sum {
		return 0, fmt.Errorf("%w: chunk at %d has %08x, %08x was sent", ErrChecksum, t.off+at, got, sum)
	}
	if !inPlace {
		if _, err := t.dest.WriteAt(chunk, at); err != nil {
			return 0, fmt.Errorf("keep a chunk: %w", err)
		}
	}
	return int64(n), nil
}

// head takes the beginning of an answer that n bytes follow.
func (s *source) head() (head [answerSize]byte, n int, err error) {
	if _, err := io.ReadFull(s.in, head[:]); err != nil {
		return head, 0, err
	}
	n = int(binary.LittleEndian.Uint32(head[4:]))
	if head[0] == statusOK {
		return head, n, nil
	}
	if n > maxText {
		return head, 0, fmt.Errorf("%w: a reason of %d bytes", errWire, n)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(s.in, text); err != nil {
		return head, 0, err
	}
	return head, 0, statusError(head[0], text)
}
