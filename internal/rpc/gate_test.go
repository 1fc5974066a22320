package rpc

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// from dials from an address of loopback.
func from(t *testing.T, ip, addr string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	c, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Skipf("SKIP: this machine has no %s: %v", ip, err) // Linux has all of 127/8
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// crowd keeps n connections open from an address, each of which begins as said,
// and opens another for each that is closed.
func crowd(t *testing.T, ip, addr, say string, n int) {
	crowdAt(t, ip, addr, say, n, time.Millisecond)
}

// crowdAt is crowd of which each opens a connection a pause at most.
func crowdAt(t *testing.T, ip, addr, say string, n int, pause time.Duration) {
	from(t, ip, addr).Close()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	for range n {
		go func() {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
			for ctx.Err() == nil {
				if c, err := d.DialContext(ctx, "tcp", addr); err == nil {
					stop := context.AfterFunc(ctx, func() { c.Close() })
					_, _ = io.WriteString(c, say)
					_, _ = io.Copy(io.Discard, c) // until it is closed
					stop()
					c.Close()
				}
				select { // as fast as a machine may be asked to
				case <-ctx.Done():
				case <-time.After(pause):
				}
			}
			done <- struct{}{}
		}()
	}
	t.Cleanup(func() {
		cancel()
		for range n {
			<-done
		}
	})
}

// A machine that holds any number of connections without a word does not keep
// others out.
func TestIdleHandshakes(t *testing.T) {
	w := newWorld(t, Options{Protocols: map[string]func(context.Context, *Conn){"echo/1": func(_ context.Context, c *Conn) { io.Copy(c, c) }}})
	_, g := w.node("a")
	crowd(t, "127.0.0.9", w.addr(), "", 2*maxHandshakes)
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), handshakeTime/2)
		c, err := Dial(ctx, g, "head", w.addr(), "echo/1")
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}

// Nor do many machines that open connections: some two thousand a second that say
// nothing, or a thousand that begin and do not go on.
func TestHandshakeFlood(t *testing.T) {
	for _, f := range []struct {
		name, say string
		pause     time.Duration
	}{{"silent", "", 250 * time.Millisecond}, {"begun", "\x16", 500 * time.Millisecond}} {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t, Options{Protocols: map[string]func(context.Context, *Conn){"echo/1": func(_ context.Context, c *Conn) { io.Copy(c, c) }}})
			_, g := w.node("a")
			for i := range 40 { // a thousand in all, for 512 places
				crowdAt(t, fmt.Sprintf("127.0.0.%d", 100+i), w.addr(), f.say, 25, f.pause)
			}
			crowdAt(t, "127.0.0.1", w.addr(), f.say, 25, f.pause) // from where those come who are honest
			for len(w.srv.handshakes.places()) < maxHandshakes {
				time.Sleep(time.Millisecond)
			}
			for i := range 20 {
				w.srv.lately.forget() // each is as the first
				ctx, cancel := context.WithTimeout(t.Context(), handshakeTime/2)
				c, err := Dial(ctx, g, "head", w.addr(), "echo/1")
				cancel()
				if err != nil {
					t.Fatalf("of 20 connections number %d: %v", i, err)
				}
				c.Close()
			}
		})
	}
}

// Nor with connections that are no TLS, of which it may hold some only.
func TestPlainConnections(t *testing.T) {
	var held, most atomic.Int32
	came := make(chan string, 1)
	full := make(chan struct{})
	var once sync.Once
	w := newWorld(t, Options{Plain: func(c net.Conn) {
		defer c.Close()
		n := held.Add(1)
		for was := most.Load(); n > was && !most.CompareAndSwap(was, n); was = most.Load() {
		}
		if n >= eachPlain {
			once.Do(func() { close(full) })
		}
		defer held.Add(-1)
		b, _ := io.ReadAll(c)
		if len(b) > 1 {
			came <- string(b)
		}
	}})
	crowd(t, "127.0.0.9", w.addr(), "x", 3*eachPlain)
	<-full // it has as many as it may
	for range 20 {
		c := from(t, "127.0.0.1", w.addr())
		_, _ = io.WriteString(c, "gossip")
		c.Close()
		select {
		case <-came:
		case <-time.After(time.Minute):
			t.Fatal("gossip is kept out")
		}
	}
	// Those that were closed may not have returned yet.
	if n := most.Load(); n > 2*eachPlain+1 {
		t.Errorf("%d connections were held", n)
	}
}

// nobody is a connection of an address.
type nobody struct {
	net.Conn
	addr   string
	closed bool
}

func (n *nobody) RemoteAddr() net.Addr { a, _ := net.ResolveTCPAddr("tcp", n.addr); return a }
func (n *nobody) Close() error         { n.closed = true; return nil }

func TestGate(t *testing.T) {
	g := newGate(3, 2, 0)
	enter := func(addr string) (*nobody, func()) {
		c := &nobody{addr: addr}
		leave, ok := g.enter(c)
		if !ok {
			t.Fatalf("%s was refused", addr)
		}
		return c, leave
	}
	a1, _ := enter("10.0.0.1:1")
	a2, leave2 := enter("10.0.0.1:2")
	a3, _ := enter("10.0.0.1:3")
	if !a1.closed || a2.closed || a3.closed {
		t.Error("of three from one address the first makes room")
	}
	leave2()
	leave2()
	b1, _ := enter("[2001:db8::1]:1")
	b2, _ := enter("[2001:db8::2]:1")
	b3, _ := enter("[2001:db8::3]:1")
	if a3.closed || !b1.closed || b2.closed || b3.closed {
		t.Error("a network of 64 bits is one address")
	}
	c1, leave := enter("10.0.0.2:1")
	if !a3.closed || b2.closed || c1.closed {
		t.Error("of too many the oldest makes room")
	}
	leave()
	if len(g.held) != 2 || len(g.count) != 1 {
		t.Errorf("%d are held, of %v", len(g.held), g.count)
	}
	g.grace = time.Hour
	enter("10.0.0.3:1")
	if _, ok := g.enter(&nobody{addr: "10.0.0.4:1"}); ok {
		t.Error("one had not had its time, and made room")
	}
}

// Who says nothing makes room before who has begun, and of too many the network
// that has most of them; nobody who comes is refused.
func TestCrowd(t *testing.T) {
	g := newFairGate(4, 3)
	g.patience = 0
	enter := func(addr string, speaks bool) *nobody {
		c := &nobody{addr: addr}
		v, ok := g.visit(c)
		if !ok || c.closed {
			t.Fatalf("%s was refused", addr)
		}
		if speaks {
			v.said()
		}
		return c
	}
	honest := enter("10.0.0.1:1", true)
	quiet := enter("10.9.0.1:1", false)
	a := []*nobody{enter("10.0.1.1:1", false), enter("10.0.1.2:1", false), enter("10.0.1.3:1", false)}
	if honest.closed || quiet.closed || !a[0].closed || a[1].closed {
		t.Error("of too many the oldest silent one of the largest network makes room")
	}
	b := []*nobody{enter("10.0.0.1:2", false), enter("10.0.0.1:3", false), enter("10.0.0.1:4", false)}
	if honest.closed || !b[0].closed || b[2].closed {
		t.Error("of one address the oldest silent one makes room")
	}
	c := []*nobody{enter("10.0.2.1:1", true), enter("10.0.2.1:2", true), enter("10.0.2.1:3", true), enter("10.0.2.2:4", true)}
	if honest.closed || c[3].closed {
		t.Error("where all have begun the largest network makes room")
	}
	d := []*nobody{enter("10.0.2.1:5", true), enter("10.0.2.1:6", true), enter("10.0.3.1:1", false)}
	if honest.closed || d[2].closed {
		t.Error("who has begun, alone in his network, made room")
	}
}

// Of familiar addresses there are so many.
func TestFamiliar(t *testing.T) {
	var k lately
	for i := range maxFamiliar + 10 {
		k.note(&nobody{addr: fmt.Sprintf("10.0.%d.%d:1", i/256, i%256)})
	}
	if len(k.at) != maxFamiliar {
		t.Errorf("%d are known", len(k.at))
	}
	if !k.has(&nobody{addr: "10.0.16.9:7"}) || k.has(&nobody{addr: "10.0.0.1:1"}) || k.has(&nobody{addr: "10.1.0.0:1"}) {
		t.Error("the last are known, and no others")
	}
}

// places are who is at the gate.
func (g *gate) places() []*visitor {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.held)
}

func (k *lately) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.at)
}
