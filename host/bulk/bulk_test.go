package bulk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
)

// place is memory that chunks are received into.
type place struct{ b []byte }

func (p place) WriteAt(b []byte, off int64) (int, error) { return copy(p.b[off:], b), nil }
func (p place) Bytes(off int64, n int) []byte            { return p.b[off : off+int64(n)] }

// writer hides that place has Bytes.
type writer struct{ io.WriterAt }

// object is bytes that are read.
type object struct {
	*bytes.Reader
	reads *atomic.Int64
	spoil func(off int64, b []byte)
}

func (o object) ReadAt(b []byte, off int64) (int, error) {
	if o.reads != nil {
		o.reads.Add(1)
	}
	n, err := o.Reader.ReadAt(b, off)
	if o.spoil != nil {
		o.spoil(off, b)
	}
	return n, err
}

func (object) Close() error { return nil }

// mapped is bytes that are in memory.
type mapped struct{ object }

func (m mapped) Bytes(off int64, n int) []byte {
	b := make([]byte, n)
	m.ReadAt(b, off)
	return b
}

// network is holders in this process, reached over loopback.
type network struct {
	t      testing.TB
	mu     sync.Mutex
	wrap   map[string]func(net.Conn) net.Conn // of a holder's end
	addr   map[string]string
	conns  []net.Conn
	dialed map[string]int
}

func newNetwork(t testing.TB) *network {
	return &network{t: t, wrap: map[string]func(net.Conn) net.Conn{}, addr: map[string]string{}, dialed: map[string]int{}}
}

func (w *network) holder(name string, memory int64, open func(ctx context.Context, from string, name []byte) (Object, error)) *Holder {
	h := NewHolder(memory, open)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.mu.Lock()
			if f := w.wrap[name]; f != nil {
				c = f(c)
			}
			w.conns = append(w.conns, c)
			w.mu.Unlock()
			wait.Go(func() {
				defer c.Close()
				h.Serve(ctx, c, "me")
			})
		}
	})
	w.t.Cleanup(func() {
		cancel()
		l.Close()
		w.cut()
		wait.Wait()
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.addr[name] = l.Addr().String()
	return h
}

func (w *network) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

func (w *network) client() *Client {
	c := NewClient(1<<30, func(ctx context.Context, node string) (net.Conn, error) {
		w.mu.Lock()
		addr := w.addr[node]
		w.dialed[node]++
		w.mu.Unlock()
		var d net.Dialer
		return d.DialContext(ctx, "tcp", addr)
	})
	w.t.Cleanup(func() { c.Close() })
	return c
}

func give(o Object) func(context.Context, string, []byte) (Object, error) {
	return func(context.Context, string, []byte) (Object, error) { return o, nil }
}

func random(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(7, 7))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func fetch(t *testing.T, c *Client, data []byte, dest []byte, holders ...string) (*Transfer, error) {
	t.Helper()
	tr, err := NewTransfer([]byte("x"), 0, int64(len(data)), place{dest})
	if err != nil {
		t.Fatal(err)
	}
	return tr, c.Run(context.Background(), tr, holders...)
}

func TestTransfer(t *testing.T) {
	data := random(5*ChunkSize + 1234)
	w := newNetwork(t)
	w.holder("read", 0, give(object{Reader: bytes.NewReader(data)}))
	w.holder("mapped", 0, give(mapped{object{Reader: bytes.NewReader(data)}}))
	c := w.client()
	for _, holder := range []string{"read", "mapped"} {
		for _, r := range [][2]int{{0, len(data)}, {0, 0}, {5, 1}, {100, ChunkSize}, {3, ChunkSize + 1}, {len(data) - 1, 1}, {len(data), 0}, {77, 3*ChunkSize - 1}} {
			for _, inPlace := range []bool{true, false} {
				got := make([]byte, r[1])
				var dest io.WriterAt = place{got}
				if !inPlace {
					dest = writer{dest}
				}
				tr, err := NewTransfer([]byte("x"), int64(r[0]), int64(r[1]), dest)
				if err != nil {
					t.Fatal(err)
				}
				if err := c.Run(context.Background(), tr, holder); err != nil || !bytes.Equal(got, data[r[0]:r[0]+r[1]]) || tr.Missing() != 0 {
					t.Errorf("%s, %v, in place %v: %v", holder, r, inPlace, err)
				}
			}
		}
	}
	if w.dialed["read"] != 1 {
		t.Errorf("%d connections for transfers one after the other", w.dialed["read"])
	}
}

func TestRefusals(t *testing.T) {
	data := random(1000)
	w := newNetwork(t)
	w.holder("h", 0, func(_ context.Context, from string, name []byte) (Object, error) {
		if from != "me" || string(name) != "x" {
			return nil, errors.New("a reason that is none of theirs")
		}
		return object{Reader: bytes.NewReader(data)}, nil
	})
	c := w.client()
	run := func(name string, off, n int64) error {
		tr, err := NewTransfer([]byte(name), off, n, place{make([]byte, max(0, min(n, 2000)))})
		if err != nil {
			return err
		}
		return c.Run(context.Background(), tr, "h")
	}
	if err := run("y", 0, 10); !errors.Is(err, ErrNotFound) || strings.Contains(err.Error(), "none of theirs") {
		t.Errorf("another's object: %v", err)
	}
	for _, r := range [][2]int64{{0, 1001}, {1000, 1}, {-1, 1}, {1 << 62, 1}, {0, -1}, {1<<63 - 1, 2}} {
		if err := run("x", r[0], r[1]); !errors.Is(err, ErrRange) {
			t.Errorf("range %v: %v", r, err)
		}
	}
	if err := run("x", 0, 1000); err != nil {
		t.Errorf("after refusals: %v", err)
	}
	if err := c.Run(context.Background(), &Transfer{length: 1, todo: []int64{0}}); err == nil || !strings.HasSuffix(err.Error(), "nobody has it") {
		t.Errorf("fetched from nobody: %v", err)
	}
}

// limited is a connection that ends after some bytes were written to it.
type limited struct {
	net.Conn
	left *atomic.Int64
}

func (l limited) Write(b []byte) (int, error) {
	if l.left.Add(-int64(len(b))) < 0 {
		l.Conn.Close()
	}
	return l.Conn.Write(b)
}

// TestCut has the connection lost again and again: what has arrived is not
// fetched again.
func TestCut(t *testing.T) {
	const chunks = 24
	data := random(chunks * ChunkSize)
	var reads atomic.Int64
	w := newNetwork(t)
	cuts := 0
	w.wrap["h"] = func(c net.Conn) net.Conn {
		cuts++
		l := limited{c, new(atomic.Int64)}
		l.left.Store(5*ChunkSize + 1000)
		return l
	}
	w.holder("h", 0, give(object{Reader: bytes.NewReader(data), reads: &reads}))
	got := make([]byte, len(data))
	if _, err := fetch(t, w.client(), data, got, "h"); err != nil || !bytes.Equal(got, data) {
		t.Fatal(err)
	}
	if cuts < 3 || reads.Load() > chunks+int64(cuts)*(depth+1) {
		t.Errorf("%d reads of %d chunks, over %d connections", reads.Load(), chunks, cuts)
	}
}

// TestSeveral fetches from a good holder, one that ends, one that is corrupt in
// places, and one that is not there; and then from each kind alone.
func TestSeveral(t *testing.T) {
	data := random(40 * ChunkSize)
	w := newNetwork(t)
	var good, other atomic.Int64
	w.holder("good", 0, give(object{Reader: bytes.NewReader(data), reads: &good}))
	w.holder("also", 0, give(object{Reader: bytes.NewReader(data), reads: &other}))
	bad := []int64{3 * ChunkSize, 17 * ChunkSize}
	spoilt := object{Reader: bytes.NewReader(data)}
	w.holder("spoilt", 0, func(context.Context, string, []byte) (Object, error) { return &onWire{spoilt, bad}, nil })
	w.addr["gone"] = "127.0.0.1:1"
	w.wrap["dies"] = func(c net.Conn) net.Conn {
		l := limited{c, new(atomic.Int64)}
		l.left.Store(2*ChunkSize + 1000)
		w.addr["dies"] = "127.0.0.1:1"
		return l
	}
	w.holder("dies", 0, give(object{Reader: bytes.NewReader(data)}))
	got := make([]byte, len(data))
	if _, err := fetch(t, w.client(), data, got, "gone", "dies", "good", "also"); err != nil || !bytes.Equal(got, data) {
		t.Fatal(err)
	}
	if good.Load() == 0 || other.Load() == 0 {
		t.Errorf("one did it alone: %d and %d", good.Load(), other.Load())
	}
	// Nobody is whole: the error says so, and what is good stays.
	got = make([]byte, len(data))
	reads := good.Load()
	tr, err := fetch(t, w.client(), data, got, "spoilt", "gone")
	if !errors.Is(err, ErrHolder) || !strings.Contains(err.Error(), "from node gone") || tr.Missing() == 0 {
		t.Errorf("%d missing: %v", tr.Missing(), err)
	}
	missing := tr.Missing()
	if err := w.client().Run(context.Background(), tr, "good"); err != nil || !bytes.Equal(got, data) {
		t.Error(err)
	}
	if n := good.Load() - reads; n != int64(missing) {
		t.Errorf("%d chunks were fetched, %d were missing", n, missing)
	}
}

// onWire cannot read some places.
type onWire struct {
	object
	bad []int64
}

func (o *onWire) ReadAt(b []byte, off int64) (int, error) {
	if slices.Contains(o.bad, off) {
		return 0, errors.New("bad sector")
	}
	return o.object.ReadAt(b, off)
}

// flip is a connection that changes a bit of what is read over it, at a place.
type flip struct {
	net.Conn
	at *int64
}

func (f flip) Read(b []byte) (int, error) {
	n, err := f.Conn.Read(b)
	if *f.at >= 0 && *f.at < int64(n) {
		b[*f.at] ^= 4
	}
	*f.at -= int64(n)
	return n, err
}

// TestChecksum changes a bit on the way: it is seen, and the chunk fetched again.
func TestChecksum(t *testing.T) {
	data := random(3 * ChunkSize)
	w := newNetwork(t)
	w.holder("h", 0, give(object{Reader: bytes.NewReader(data)}))
	n := 0
	c := NewClient(1<<30, func(ctx context.Context, node string) (net.Conn, error) {
		n++
		at := int64(ChunkSize + 50_000)
		if n > 2 {
			at = -1
		}
		conn, err := net.Dial("tcp", w.addr[node])
		return flip{conn, &at}, err
	})
	defer c.Close()
	for _, inPlace := range []bool{true, false} {
		n = 0
		got := make([]byte, len(data))
		var dest io.WriterAt = place{got}
		if !inPlace {
			dest = writer{dest}
		}
		tr, err := NewTransfer([]byte("x"), 0, int64(len(data)), dest)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Run(context.Background(), tr, "h"); err != nil || !bytes.Equal(got, data) {
			t.Errorf("in place %v: %v", inPlace, err)
		}
		if n != 3 && inPlace {
			t.Errorf("%d connections: the changed bits were not seen", n)
		}
	}
}

// slow is a connection that takes so many bytes a second.
type slow struct {
	net.Conn
	rate float64
}

func (s slow) Write(b []byte) (int, error) {
	time.Sleep(time.Duration(float64(len(b)) / s.rate * 1e9))
	return s.Conn.Write(b)
}

// TestCompression holds that what compresses is compressed where the wire is
// slow, and nothing else.
func TestCompression(t *testing.T) {
	text := bytes.Repeat([]byte("what compresses well is text that repeats itself; "), 12*ChunkSize/50)
	noise := random(len(text))
	w := newNetwork(t)
	for name, data := range map[string][]byte{"text": text, "noise": noise} {
		w.holder(name, 0, give(object{Reader: bytes.NewReader(data)}))
		w.wrap["slow "+name] = func(c net.Conn) net.Conn { return slow{c, 40e6} }
		w.holder("slow "+name, 0, give(object{Reader: bytes.NewReader(data)}))
	}
	c := w.client()
	for name, want := range map[string]func(wire float64) bool{
		"text":       func(wire float64) bool { return true }, // as fast as s2, or faster: either is right
		"noise":      func(wire float64) bool { return wire == 1 },
		"slow text":  func(wire float64) bool { return wire < 0.3 },
		"slow noise": func(wire float64) bool { return wire == 1 },
	} {
		data := noise
		if strings.HasSuffix(name, "text") {
			data = text
		}
		got := make([]byte, len(data))
		tr, err := fetch(t, c, data, got, name)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatal(name, err)
		}
		if wire := float64(tr.WireBytes()) / float64(len(data)); !want(wire) {
			t.Errorf("%s: %.2f of the bytes were on the wire", name, wire)
		}
	}
}

func TestPays(t *testing.T) {
	for _, c := range []struct {
		link, codec, ratio float64
		want               bool
	}{
		{100e6, 1e9, 0.5, true},
		{100e6, 1e9, 0.95, false},
		{3e9, 1e9, 0.1, false},
		{1e9, 1e9, 0.5, false},
		{0, 1e9, 0.5, false},
	} {
		if got := pays(c.link, c.codec, c.ratio); got != c.want {
			t.Errorf("link %g, codec %g, ratio %g: %v", c.link, c.codec, c.ratio, got)
		}
	}
}

// TestDecode holds that a chunk which says that it is larger than it may be costs
// no memory, and is refused.
func TestDecode(t *testing.T) {
	for _, n := range []int{0, 9, 11, 64 << 20} {
		if err := decode(make([]byte, 10), s2.Encode(nil, make([]byte, n)), 1); !errors.Is(err, ErrChecksum) {
			t.Errorf("%d bytes for a chunk of 10: %v", n, err)
		}
	}
	if err := decode(make([]byte, 10), s2.Encode(nil, make([]byte, 10)), 1); err != nil {
		t.Error(err)
	}
	if err := decode(make([]byte, 10), []byte{1, 2, 3}, 1); !errors.Is(err, ErrChecksum) {
		t.Error(err)
	}
}

// TestMemory holds that a holder has no more chunks in memory than it may, and
// that a client admits in order.
func TestMemory(t *testing.T) {
	data := random(8 * ChunkSize)
	w := newNetwork(t)
	var now, most atomic.Int64
	count := func(n int64) {
		v := now.Add(n)
		for m := most.Load(); v > m && !most.CompareAndSwap(m, v); m = most.Load() {
		}
	}
	w.holder("h", 3*ChunkSize, func(context.Context, string, []byte) (Object, error) {
		return &counted{object{Reader: bytes.NewReader(data)}, count}, nil
	})
	var wg sync.WaitGroup
	for range 8 {
		c := w.client()
		wg.Go(func() {
			if _, err := fetch(t, c, data, make([]byte, len(data)), "h"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if most.Load() > 3 {
		t.Errorf("%d chunks were read at one time, 3 are allowed", most.Load())
	}

	c := NewClient(100, nil)
	ctx := context.Background()
	one, err := c.Admit(ctx, 60)
	if err != nil {
		t.Fatal(err)
	}
	large := make(chan func())
	go func() {
		r, err := c.Admit(ctx, 1000) // all there is
		if err != nil {
			t.Error(err)
		}
		large <- r
	}()
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if _, err := c.Admit(short, 60); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("admitted: %v", err)
	}
	one()
	one()
	(<-large)()
	if r, err := c.Admit(ctx, 100); err != nil {
		t.Error(err)
	} else {
		r()
	}
}

type counted struct {
	object
	count func(int64)
}

func (c *counted) ReadAt(b []byte, off int64) (int, error) {
	c.count(1)
	defer c.count(-1)
	time.Sleep(time.Millisecond)
	return c.object.ReadAt(b, off)
}

// TestCancel holds that a transfer ends with its context, though nothing moves.
func TestCancel(t *testing.T) {
	w := newNetwork(t)
	release, asked := make(chan struct{}), make(chan struct{})
	w.holder("h", 0, func(context.Context, string, []byte) (Object, error) {
		close(asked)
		<-release
		return nil, errors.New("late")
	})
	defer close(release)
	ctx, cancel := context.WithCancel(context.Background())
	tr, err := NewTransfer([]byte("x"), 0, 10, place{make([]byte, 10)})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- w.client().Run(ctx, tr, "h") }()
	<-asked
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) || tr.Missing() != 1 {
			t.Errorf("%d missing, %v", tr.Missing(), err)
		}
	case <-time.After(stall / 2):
		t.Error("it waits for the holder")
	}
}

// memConn is a connection with what a stranger sends.
type memConn struct {
	net.Conn
	r io.Reader
	n int
}

func (m *memConn) Read(b []byte) (int, error) { return m.r.Read(b) }
func (m *memConn) Write(b []byte) (int, error) {
	m.n += len(b)
	return len(b), nil
}
func (*memConn) SetDeadline(time.Time) error      { return nil }
func (*memConn) SetWriteDeadline(time.Time) error { return nil }
func (*memConn) Close() error                     { return nil }

func FuzzServe(f *testing.F) {
	f.Add([]byte{1, 1, 1, 0, 10, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 'x'})
	data := random(100)
	h := NewHolder(0, give(object{Reader: bytes.NewReader(data)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &memConn{r: bytes.NewReader(b)}
		h.Serve(context.Background(), c, "stranger")
		if c.n > len(b)*(100+answerSize+maxText) {
			t.Errorf("%d bytes answer %d", c.n, len(b))
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 2, 0, 0, 0, 1, 2, 3, 4, 'a', 'b'}, 2)
	f.Add([]byte{0, 1, 0, 0, 2, 0, 0, 0, 1, 2, 3, 4, 'a', 'b'}, 100)
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		if size < 1 || size > ChunkSize {
			return
		}
		tr, err := NewTransfer([]byte("x"), 0, int64(size), place{make([]byte, size)})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		c := NewClient(1, func(context.Context, string) (net.Conn, error) {
			if n++; n > 1 {
				return nil, fmt.Errorf("%w: once", errWire)
			}
			return &memConn{r: bytes.NewReader(b)}, nil
		})
		if err := c.Run(context.Background(), tr, "h"); err == nil && tr.Missing() > 0 {
			t.Error("it is not there, and there is no error")
		}
	})
}
