package bulk_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/bulk"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/internal/rpc"
)

// memory is an object, and a destination, that is bytes.
type memory struct{ b []byte }

func (m memory) ReadAt(b []byte, off int64) (int, error)  { return copy(b, m.b[off:]), nil }
func (m memory) WriteAt(b []byte, off int64) (int, error) { return copy(m.b[off:], b), nil }
func (m memory) Bytes(off int64, n int) []byte            { return m.b[off : off+int64(n)] }
func (m memory) Size() int64                              { return int64(len(m.b)) }
func (memory) Close() error                               { return nil }

// nodes are two of a cluster, one of which serves.
func nodes(b *testing.B, o rpc.Options) (client *auth.Guard, addr string) {
	store := control.NewMemory(control.MemoryOptions{})
	b.Cleanup(func() { store.Close() })
	a, err := auth.NewAuthority(time.Now())
	if err != nil {
		b.Fatal(err)
	}
	reg := &auth.Registrar{Authority: a, Store: store}
	guard := func(name string) *auth.Guard {
		e, err := auth.Enroll(b.TempDir(), a.Cluster(), name)
		if err != nil {
			b.Fatal(err)
		}
		g, err := reg.Admit(context.Background(), e.Request)
		if err != nil {
			b.Fatal(err)
		}
		cred, err := e.Finish(g, a.Trust, time.Now())
		if err != nil {
			b.Fatal(err)
		}
		guard, err := auth.NewGuard(context.Background(), cred, store, nil)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { guard.Close() })
		return guard
	}
	o.Guard = guard("b")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := rpc.Serve(l, o)
	b.Cleanup(func() { s.Close() })
	return guard("a"), l.Addr().String()
}

const size = 1 << 30

// BenchmarkBytes compares a fetch of 1 GiB with a bare loop of crypto/tls that
// copies as much, and gives the time to the first byte: of a connection that is
// there, and with the handshake.
func BenchmarkBytes(b *testing.B) {
	data := bytes.Repeat([]byte("0123456789abcdefghijklmnopqrstuv"), size/32)
	dest := make([]byte, size)
	for i := range dest { // pages
		dest[i] = 1
	}
	h := bulk.NewHolder(64<<20, func(context.Context, string, []byte) (bulk.Object, error) { return memory{data}, nil })
	g, addr := nodes(b, rpc.Options{Protocols: map[string]func(context.Context, *rpc.Conn){
		bulk.Protocol: func(ctx context.Context, c *rpc.Conn) { h.Serve(ctx, c, c.Identity().Name) },
		"copy": func(_ context.Context, c *rpc.Conn) {
			var one [1]byte
			for {
				if _, err := io.ReadFull(c, one[:]); err != nil {
					return
				}
				for at := 0; at < size; at += 1 << 20 {
					if _, err := c.Write(data[at : at+1<<20]); err != nil {
						return
					}
				}
			}
		},
	}})
	dial := func(ctx context.Context, node string) (net.Conn, error) {
		return rpc.Dial(ctx, g, node, addr, bulk.Protocol)
	}
	get := func(b *testing.B, c *bulk.Client, n int64) {
		t, err := bulk.NewTransfer([]byte("x"), 0, n, memory{dest})
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Run(context.Background(), t, "b"); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("copy", func(b *testing.B) {
		c, err := rpc.Dial(context.Background(), g, "b", addr, "copy")
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		b.SetBytes(size)
		for b.Loop() {
			if _, err := c.Write([]byte{1}); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(c, dest); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("fetch", func(b *testing.B) {
		c := bulk.NewClient(size, dial)
		defer c.Close()
		b.SetBytes(size)
		for b.Loop() {
			get(b, c, size)
		}
	})
	b.Run("first byte", func(b *testing.B) {
		c := bulk.NewClient(size, dial)
		defer c.Close()
		for b.Loop() {
			get(b, c, 1)
		}
	})
	b.Run("first byte with handshake", func(b *testing.B) {
		for b.Loop() {
			c := bulk.NewClient(size, dial)
			get(b, c, 1)
			c.Close()
		}
	})
}
