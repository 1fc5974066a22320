package directory_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/cluster/directory"
	"github.com/wray-project/wray/host/cluster/liveness"
	"github.com/wray-project/wray/host/control"
)

// cluster is some directories on one store, in a synctest bubble: its seconds
// pass at once.
type cluster struct {
	t     *testing.T
	store *control.Memory
	nodes map[string]*node
}

// node is a directory whose node answers the others as long as it is not mute.
type node struct {
	*directory.Directory
	name string
	inc  uint64
	mute bool // of the test's goroutine alone
}

func in(t *testing.T, f func(t *testing.T, c *cluster)) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{t: t, store: control.NewMemory(control.MemoryOptions{}), nodes: map[string]*node{}}
		defer c.store.Close()
		defer func() {
			for _, n := range c.nodes {
				n.Close()
			}
		}()
		f(t, c)
	})
}

func (c *cluster) join(name string, inc uint64) *node {
	c.t.Helper()
	n, err := c.try(name, inc)
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

func (c *cluster) try(name string, inc uint64) (*node, error) {
	d, err := directory.Join(c.t.Context(), c.store, name, directory.Node{Incarnation: inc, Addr: name + ":1",
		Capacity: wray.Resources{CPU: wray.CPUs(2), Memory: 1 << 30}}, directory.Options{})
	if err != nil {
		return nil, err
	}
	n := &node{Directory: d, name: name, inc: inc}
	c.nodes[name+fmt.Sprint(inc)] = n
	return n, nil
}

// pass lets time pass, while those who are not mute answer each other.
func (c *cluster) pass(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		for _, from := range c.nodes {
			for _, to := range c.nodes {
				if from != to && !from.mute && !to.mute {
					to.Heard(from.name, from.inc)
				}
			}
		}
	}
	synctest.Wait()
}

// sees holds what n thinks of another.
func (c *cluster) sees(n *node, name string, inc uint64, want liveness.Status) {
	c.t.Helper()
	e, ok := n.Node(name)
	if !ok || e.Node.Incarnation != inc || e.Status != want {
		c.t.Errorf("%v after the start: %s sees %s#%d %v (%s), want #%d %v", time.Since(epoch), n.name, name, e.Node.Incarnation, e.Status, e.Why, inc, want)
	}
}

// epoch is when bubbles begin.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func TestJoin(t *testing.T) {
	in(t, func(t *testing.T, c *cluster) {
		a, b := c.join("a", 1), c.join("b", 7)
		c.pass(time.Second)
		for _, n := range []*node{a, b} {
			c.sees(n, "a", 1, liveness.Alive)
			c.sees(n, "b", 7, liveness.Alive)
			if !n.MayAct() {
				t.Errorf("%s may not act", n.name)
			}
		}
		if e, _ := a.Node("b"); e.Node.Addr != "b:1" || e.Node.Capacity.CPU != wray.CPUs(2) {
			t.Errorf("a knows of b: %+v", e)
		}
		// An update is seen, and changes no status.
		if err := b.Update(t.Context(), func(n *directory.Node) { n.Draining, n.Addr, n.Incarnation = true, "x", 99 }); err != nil {
			t.Fatal(err)
		}
		c.pass(time.Minute) // many leases
		c.sees(a, "b", 7, liveness.Alive)
		if e, _ := a.Node("b"); !e.Node.Draining || e.Node.Addr != "b:1" {
			t.Errorf("a knows of b: %+v, want it draining, at its address", e)
		}
	})
}

// A node that says nothing more is unreachable after the silence, and dead with
// its lease.
func TestDeath(t *testing.T) {
	in(t, func(t *testing.T, c *cluster) {
		a, b, d := c.join("a", 1), c.join("b", 1), c.join("d", 1)
		c.pass(time.Second)
		b.mute = true
		b.Close()
		c.pass(3 * time.Second)
		c.sees(a, "b", 1, liveness.Unreachable)
		c.sees(d, "b", 1, liveness.Unreachable)
		c.pass(10 * time.Second)
		c.sees(a, "b", 1, liveness.Dead)
		c.sees(d, "b", 1, liveness.Dead)
		if _, err := c.try("b", 1); !errors.Is(err, directory.ErrCondemned) {
			t.Errorf("b joins as the dead incarnation: %v, want ErrCondemned", err)
		}
		b2 := c.join("b", 2)
		c.pass(time.Second)
		c.sees(a, "b", 2, liveness.Alive)
		c.sees(b2, "a", 1, liveness.Alive)
		// Nobody is told of the dead one by those who come later.
		c.sees(b2, "d", 1, liveness.Alive)
	})
}

// A node that has been dead for an hour is shown no more, and is as dead as before.
func TestForget(t *testing.T) {
	in(t, func(t *testing.T, c *cluster) {
		a, b, d := c.join("a", 1), c.join("b", 1), c.join("d", 1)
		c.pass(time.Second)
		b.mute = true
		b.Close()
		if err := d.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.pass(50 * time.Minute)
		for _, n := range []*node{a, c.join("e", 1)} {
			c.pass(time.Second)
			for _, name := range []string{"b", "d"} {
				if e, ok := n.Node(name); !ok || e.Status != liveness.Dead {
					t.Errorf("%s, 50 minutes later, sees of %s: %+v, %v", n.name, name, e, ok)
				}
			}
		}
		c.pass(30 * time.Minute)
		for _, n := range []*node{a, c.join("f", 1)} {
			c.pass(time.Second)
			if len(n.Nodes()) != 3 { // a, e, f
				t.Errorf("%s, 80 minutes later, sees %+v", n.name, n.Nodes())
			}
		}
		if _, err := c.try("b", 1); !errors.Is(err, directory.ErrCondemned) {
			t.Errorf("a forgotten incarnation joins: %v, want ErrCondemned", err)
		}
		c.join("b", 2)
		c.pass(time.Second)
		c.sees(a, "b", 2, liveness.Alive)
	})
}

func TestClosedConnection(t *testing.T) {
	in(t, func(t *testing.T, c *cluster) {
		a, b := c.join("a", 1), c.join("b", 1)
		c.pass(time.Second)
		a.Closed("b", 1)
		c.sees(a, "b", 1, liveness.Unreachable)
		c.sees(b, "a", 1, liveness.Alive)
		c.pass(time.Second)
		c.sees(a, "b", 1, liveness.Alive)
	})
}

func TestLeave(t *testing.T) {
	in(t, func(t *testing.T, c *cluster) {
		a, b := c.join("a", 1), c.join("b", 1)
		c.pass(time.Second)
		if err := b.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.mute = true
		synctest.Wait()
		c.sees(a, "b", 1, liveness.Dead)
		if e, _ := a.Node("b"); e.Why != "it left" {
			t.Errorf("why is b dead: %q, want that it left", e.Why)
		}
		if err := b.Err(); !errors.Is(err, directory.ErrLeft) || b.MayAct() {
			t.Errorf("b, which left: %v, may act: %v", err, b.MayAct())
		}
	})
}

// A new process of a node that crashed need not wait for the old one's lease,
// and the old one, if it lives, learns that it is not the node any more.
func TestReplace(t *testing.T) {
	in(t, func(t *testing.T, c *cluster) {
		a, old := c.join("a", 1), c.join("b", 1)
		c.pass(time.Second)
		key, fence := old.Fence()
		old.mute = true
		c.join("b", 2)
		c.pass(time.Second)
		c.sees(a, "b", 2, liveness.Alive)
		<-old.Ended()
		if err := old.Err(); !errors.Is(err, directory.ErrCondemned) && !errors.Is(err, directory.ErrSuperseded) {
			t.Errorf("the old process: %v, want ErrCondemned or ErrSuperseded", err)
		}
		if old.MayAct() {
			t.Error("the old process may act")
		}
		_, err := c.store.Commit(t.Context(), control.Txn{If: []control.Cond{control.Born(key, fence)}, Do: []control.Op{control.Put("x", nil)}})
		if !errors.Is(err, control.ErrConflict) {
			t.Errorf("a commit under the old process's fence: %v, want ErrConflict", err)
		}
		if _, err := c.try("b", 1); err == nil {
			t.Error("the old incarnation joined again")
		}
	})
}

// While the control state is down nobody dies, those who cannot renew stop to
// act, and all is well again afterwards.
func TestOutage(t *testing.T) {
	in(t, func(t *testing.T, c *cluster) {
		a, b := c.join("a", 1), c.join("b", 1)
		c.pass(time.Second)
		c.store.LoseQuorum()
		c.pass(5 * time.Minute)
		c.sees(a, "b", 1, liveness.Alive)
		c.sees(b, "a", 1, liveness.Alive)
		if a.MayAct() || b.MayAct() {
			t.Error("a node acts that could not renew its lease")
		}
		// One of them goes in the meantime: it has its lease of grace.
		b.mute = true
		b.Close()
		c.pass(time.Minute)
		c.sees(a, "b", 1, liveness.Unreachable)
		c.store.RestoreQuorum()
		c.pass(6 * time.Second)
		c.sees(a, "b", 1, liveness.Unreachable)
		if !a.MayAct() {
			t.Error("a may not act, and its lease is renewed")
		}
		c.pass(14 * time.Second)
		c.sees(a, "b", 1, liveness.Dead)
		c.sees(a, "a", 1, liveness.Alive)
	})
}

// A node whose store alone is cut off, past its lease, is called dead by the
// others, and learns it when it is back.
func TestCutOff(t *testing.T) {
	in(t, func(t *testing.T, c *cluster) {
		a := c.join("a", 1)
		cut := &severed{Store: c.store}
		d, err := directory.Join(t.Context(), cut, "b", directory.Node{Incarnation: 1, Addr: "b:1"}, directory.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		b := &node{Directory: d, name: "b", inc: 1}
		c.nodes["b1"] = b
		c.pass(time.Second)
		cut.off.Store(true)
		c.pass(7 * time.Second)
		if b.MayAct() {
			t.Error("b may act, and its lease is about to lapse")
		}
		c.pass(20 * time.Second)
		c.sees(a, "b", 1, liveness.Dead) // though it answers
		cut.off.Store(false)
		c.pass(20 * time.Second)
		select {
		case <-b.Ended():
		default:
			t.Fatal("b has not learnt that it is dead")
		}
		if err := b.Err(); !errors.Is(err, directory.ErrCondemned) || b.MayAct() {
			t.Errorf("b: %v, may act: %v; want ErrCondemned, and not", err, b.MayAct())
		}
	})
}

// Nobody is called dead for 5 s without the control state, whenever these begin
// between two renewals.
func TestBlackout(t *testing.T) {
	for offset := time.Duration(0); offset < 2*time.Second; offset += 125 * time.Millisecond {
		t.Run(offset.String(), func(t *testing.T) {
			in(t, func(t *testing.T, c *cluster) {
				a := c.join("a", 1)
				cut := &severed{Store: c.store}
				d, err := directory.Join(t.Context(), cut, "b", directory.Node{Incarnation: 1, Addr: "b:1"}, directory.Options{})
				if err != nil {
					t.Fatal(err)
				}
				defer d.Close()
				b := &node{Directory: d, name: "b", inc: 1}
				c.nodes["b1"] = b
				_, fence := b.Fence()
				c.pass(20*time.Second + offset) // a is sure of the control state
				cut.off.Store(true)
				c.pass(5 * time.Second)
				cut.off.Store(false)
				c.pass(20 * time.Second)
				c.sees(a, "b", 1, liveness.Alive)
				if _, now := b.Fence(); b.Err() != nil || now != fence {
					t.Errorf("b: %v, registered at %d, then at %d: its lease lapsed", b.Err(), fence, now)
				}
			})
		})
	}
}

// A node leaves although the link to its store ends as it asks.
func TestLeaveAgain(t *testing.T) {
	in(t, func(t *testing.T, c *cluster) {
		a := c.join("a", 1)
		cut := &severed{Store: c.store}
		b, err := directory.Join(t.Context(), cut, "b", directory.Node{Incarnation: 1, Addr: "b:1"}, directory.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		c.nodes["b1"] = &node{Directory: b, name: "b", inc: 1}
		c.pass(time.Second)
		cut.off.Store(true)
		time.AfterFunc(500*time.Millisecond, func() { cut.off.Store(false) })
		if err := b.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.pass(time.Second)
		c.sees(a, "b", 1, liveness.Dead)
	})
}

// A directory whose watch was compacted away lists again, and finds out who
// went meanwhile.
func TestCompacted(t *testing.T) {
	in(t, func(t *testing.T, c *cluster) {
		cut := &severed{Store: c.store}
		d, err := directory.Join(t.Context(), cut, "a", directory.Node{Incarnation: 1, Addr: "a:1"}, directory.Options{Liveness: liveness.Config{TTL: 40 * time.Second}})
		if err != nil {
			t.Fatal(err)
		}
		a := &node{Directory: d, name: "a", inc: 1}
		c.nodes["a1"] = a
		b := c.join("b", 1)
		c.pass(time.Second)
		cut.off.Store(true)
		b.mute = true
		b.Close()
		c.pass(20 * time.Second) // its lease lapses
		d2 := c.join("d", 1)
		c.pass(time.Second)
		rev, err := c.store.Commit(context.Background(), control.Txn{Do: []control.Op{control.Put("y", nil)}})
		if err != nil {
			t.Fatal(err)
		}
		c.store.Compact(rev)
		cut.off.Store(false)
		c.pass(20 * time.Second)
		c.sees(a, "b", 1, liveness.Unreachable) // it has one lease of grace
		c.pass(40 * time.Second)
		c.sees(a, "d", 1, liveness.Alive)
		c.sees(a, "b", 1, liveness.Dead)
		c.sees(d2, "a", 1, liveness.Alive)
	})
}

func TestWatch(t *testing.T) {
	in(t, func(t *testing.T, c *cluster) {
		a := c.join("a", 1)
		w := a.Watch()
		defer w.Close()
		seen := func() string {
			es, err := w.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			out := ""
			for _, e := range es {
				out += fmt.Sprintf("%s#%d %v ", e.Name, e.Node.Incarnation, e.Status)
			}
			return out
		}
		if got := seen(); got != "a#1 alive " {
			t.Errorf("at first: %s", got)
		}
		b := c.join("b", 1)
		if got := seen(); got != "b#1 alive " {
			t.Errorf("with b: %s", got)
		}
		b.mute = true
		b.Leave(t.Context())
		if got := seen(); got != "b#1 dead " {
			t.Errorf("without b: %s", got)
		}
		a.Close()
		if _, err := w.Next(t.Context()); err == nil {
			t.Error("the watch goes on after Close")
		}
	})
}
