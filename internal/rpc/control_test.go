package rpc

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/control/controltest"
)

// remote is a Control and what it reaches.
type remote struct {
	*Control
	memory *control.Memory
	closer func()
}

func (r *remote) Close() error {
	defer r.closer()
	return r.Control.Close()
}

// member returns the guard of a node that joined w's cluster.
func (w *world) member(name string) *auth.Guard {
	w.t.Helper()
	e, err := auth.Enroll(w.t.TempDir(), "", name)
	if err != nil {
		w.t.Fatal(err)
	}
	cred, err := Join(context.Background(), w.addr(), w.token(auth.TokenOptions{}), e)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.guard(cred)
}

func client(t testing.TB, g *auth.Guard, name, addr string) *Client {
	t.Helper()
	c, err := NewClient(g, name, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// The control state through a head is a control state.
func TestControl(t *testing.T) {
	controltest.Run(t, &controltest.Harness{
		Open: func(t *testing.T) control.Store {
			m := control.NewMemory(control.MemoryOptions{})
			w := newWorld(t, Options{Control: open(m)})
			return &remote{NewControl(client(t, w.member("a"), "head", w.addr())), m, func() { m.Close() }}
		},
		Compact: func(t *testing.T, s control.Store, rev control.Revision) { s.(*remote).memory.Compact(rev) },
		Outage: func(t *testing.T, s control.Store) func() {
			s.(*remote).memory.LoseQuorum()
			return s.(*remote).memory.RestoreQuorum
		},
	})
}

// Watches go on, and nothing is missed, when the connection is cut again and
// again, and a head that is gone is passed over.
func TestControlCuts(t *testing.T) {
	m := control.NewMemory(control.MemoryOptions{})
	defer m.Close()
	w := newWorld(t, Options{Control: open(m)})
	g := w.member("a")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := l.Addr().String()
	l.Close()
	c := NewControl(client(t, g, "other", gone), client(t, g, "head", w.addr()))
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	watch, err := c.Watch(ctx, "k", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	for i := range 30 {
		want, err := m.Commit(ctx, control.Txn{Do: []control.Op{control.Put("k", []byte{byte(i)})}})
		if err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			w.tap.cut()
		}
		b, err := watch.Next(ctx)
		if err != nil {
			t.Fatalf("commit %d: %v", i, err)
		}
		if len(b.Events) != 1 || b.Events[0].Record.Modified != want {
			t.Fatalf("commit %d: %+v, want one event of revision %d", i, b, want)
		}
		if _, err := c.Get(ctx, "k"); err != nil {
			t.Fatalf("get %d: %v", i, err)
		}
	}
}

// A commit is never sent twice: where the reply is lost its end is unknown.
func TestControlCommitOnce(t *testing.T) {
	m := &slow{Store: control.NewMemory(control.MemoryOptions{}), began: make(chan struct{}, 8), on: make(chan struct{})}
	defer m.Close()
	w := newWorld(t, Options{Control: open(m)})
	c := NewControl(client(t, w.member("a"), "head", w.addr()))
	defer c.Close()
	ended := make(chan error, 1)
	go func() {
		_, err := c.Commit(context.Background(), control.Txn{Do: []control.Op{control.Put("k", nil)}})
		ended <- err
	}()
	<-m.began
	w.tap.cut()
	if err := <-ended; !errors.Is(err, control.ErrUnavailable) {
		t.Errorf("a commit whose connection was cut: %v, want ErrUnavailable", err)
	}
	close(m.on)
	if _, err := c.Get(t.Context(), "k"); err != nil && !errors.Is(err, control.ErrNotFound) {
		t.Errorf("afterwards: %v", err)
	}
	if n := len(m.began); n != 0 {
		t.Errorf("the commit was sent %d times more", n)
	}
}

// slow is a store whose commits wait.
type slow struct {
	control.Store
	began, on chan struct{}
}

func (s *slow) Commit(ctx context.Context, txn control.Txn) (control.Revision, error) {
	s.began <- struct{}{}
	<-s.on
	return s.Store.Commit(ctx, txn)
}

// A node that is no head says so, and no head at all is unavailable in time.
func TestControlNoHead(t *testing.T) {
	w := newWorld(t, Options{})
	c := NewControl(client(t, w.member("a"), "head", w.addr()))
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := c.Get(ctx, "k"); !errors.Is(err, control.ErrUnavailable) {
		t.Errorf("get from a node that is no head: %v, want ErrUnavailable", err)
	}
	c.SetHeads()
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := c.Get(ctx, "k"); !errors.Is(err, control.ErrUnavailable) {
		t.Errorf("get without heads: %v, want ErrUnavailable", err)
	}
}

// open lets every node do everything.
func open(s control.Store) func(auth.Identity) control.Store {
	return func(auth.Identity) control.Store { return s }
}
