// Package clustertest holds every [cluster.Membership] to one contract.
package clustertest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/wray-project/wray/host/cluster"
)

// World is a network that memberships live in.
type World interface {
	// New starts a node of which nobody knows. Its address is the world's choice,
	// another one for each, unless at is one of a node that was closed.
	New(t *testing.T, m cluster.Member, at string) cluster.Membership
	// Cut breaks the link between two addresses, both ways, and Mend makes it
	// whole again.
	Cut(a, b string)
	Mend(a, b string)
	// Settle is a time in which everybody has heard of everything, and has found
	// out who does not answer.
	Settle() time.Duration
}

// Test runs the suite, each part in a world of its own.
func Test(t *testing.T, world func(t *testing.T) World) {
	for _, part := range []struct {
		name string
		run  func(*testing.T, World)
	}{
		{"Join", testJoin}, {"JoinNobody", testJoinNobody}, {"Update", testUpdate}, {"Leave", testLeave},
		{"Crash", testCrash}, {"Restart", testRestart}, {"Move", testMove}, {"Partition", testPartition},
		{"OneLink", testOneLink}, {"Watch", testWatch}, {"Close", testClose}, {"Refused", testRefused},
	} {
		t.Run(part.name, func(t *testing.T) {
			t.Parallel()
			part.run(t, world(t))
		})
	}
}

// node is a membership and what it says of itself.
type node struct {
	cluster.Membership
	self cluster.Member
}

func start(t *testing.T, w World, name string, incarnation uint64, at string) *node {
	t.Helper()
	m := w.New(t, cluster.Member{Name: name, Incarnation: incarnation, Version: "1.2.3", Meta: "of " + name}, at)
	t.Cleanup(func() { _ = m.Close() })
	peers := m.Peers()
	if len(peers) != 1 || peers[0].Name != name || peers[0].Status != cluster.Alive {
		t.Fatalf("a new node knows %v, want itself alone", peers)
	}
	return &node{m, peers[0].Member}
}

// ring starts a, b and c, each joining by the one before.
func ring(t *testing.T, w World) (a, b, c *node) {
	t.Helper()
	a, b, c = start(t, w, "a", 1, ""), start(t, w, "b", 1, ""), start(t, w, "c", 1, "")
	join(t, b, a)
	join(t, c, b)
	all := map[string]string{"a": "1 alive", "b": "1 alive", "c": "1 alive"}
	for _, n := range []*node{a, b, c} {
		await(t, n, all)
	}
	return a, b, c
}

func join(t *testing.T, n, by *node) {
	t.Helper()
	if err := n.Join(limit(t), by.self.Addr); err != nil {
		t.Fatalf("%s joins by %s: %v", n.self.Name, by.self.Name, err)
	}
}

func limit(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// await waits until a node knows these peers, as "incarnation status".
func await(t *testing.T, n *node, want map[string]string) {
	t.Helper()
	w := n.Watch()
	defer w.Close()
	ctx := limit(t)
	got := map[string]string{}
	for {
		peers, err := w.Next(ctx)
		if err != nil {
			t.Fatalf("%s knows %v, want %v: %v", n.self.Name, got, want, err)
		}
		for _, p := range peers {
			got[p.Name] = fmt.Sprint(p.Incarnation, " ", p.Status)
		}
		same := true
		for name, s := range want {
			same = same && got[name] == s
		}
		if same {
			return
		}
	}
}

func testJoin(t *testing.T, w World) {
	a, b, c := ring(t, w)
	for _, n := range []*node{a, b, c} {
		peers := n.Peers()
		if len(peers) != 3 {
			t.Fatalf("%s knows %v, want three", n.self.Name, peers)
		}
		for i, of := range []*node{a, b, c} {
			if peers[i].Member != of.self {
				t.Errorf("%s knows %+v, want %+v", n.self.Name, peers[i].Member, of.self)
			}
		}
	}
}

func testJoinNobody(t *testing.T, w World) {
	a, b, c := start(t, w, "a", 1, ""), start(t, w, "b", 1, ""), start(t, w, "c", 1, "")
	b.Close()
	if err := a.Join(limit(t), b.self.Addr); !errors.Is(err, cluster.ErrNobody) {
		t.Errorf("join by a node that is gone: %v, want ErrNobody", err)
	}
	if err := a.Join(limit(t), b.self.Addr, c.self.Addr); err != nil {
		t.Errorf("join by one that is gone and one that is there: %v", err)
	}
	await(t, c, map[string]string{"a": "1 alive"})
}

func testUpdate(t *testing.T, w World) {
	a, _, c := ring(t, w)
	m := a.self
	m.Draining, m.Head, m.Meta = true, true, "other"
	m.Name, m.Incarnation, m.Addr = "z", 9, "nowhere:1" // stay
	if err := a.Update(m); err != nil {
		t.Fatal(err)
	}
	want := a.self
	want.Draining, want.Head, want.Meta = true, true, "other"
	watch := c.Watch()
	defer watch.Close()
	for ctx := limit(t); ; {
		peers, err := watch.Next(ctx)
		if err != nil {
			t.Fatalf("c does not hear of the update: %v; it knows %v", err, c.Peers())
		}
		for _, p := range peers {
			if p.Member == want {
				return
			}
		}
	}
}

func testLeave(t *testing.T, w World) {
	a, b, c := ring(t, w)
	if err := b.Leave(limit(t)); err != nil {
		t.Fatal(err)
	}
	b.Close()
	for _, n := range []*node{a, c} {
		await(t, n, map[string]string{"b": "1 left"})
	}
	quietFor(t, w, a, map[string]string{"b": "1 left", "c": "1 alive"})
}

func testCrash(t *testing.T, w World) {
	a, b, c := ring(t, w)
	b.Close()
	for _, n := range []*node{a, c} {
		await(t, n, map[string]string{"b": "1 failed", "c": "1 alive"})
	}
}

func testRestart(t *testing.T, w World) {
	a, b, c := ring(t, w)
	b.Close()
	back := start(t, w, "b", 2, b.self.Addr)
	join(t, back, c)
	for _, n := range []*node{a, c} {
		await(t, n, map[string]string{"b": "2 alive"})
	}
	// What is heard of the first one's failure, before or after, is not of it.
	quietFor(t, w, a, map[string]string{"a": "1 alive", "b": "2 alive", "c": "1 alive"})
}

func testMove(t *testing.T, w World) {
	a, b, c := ring(t, w)
	moved := start(t, w, "b", 2, "")
	join(t, moved, a) // while the first is still there
	for _, n := range []*node{a, c} {
		await(t, n, map[string]string{"b": "2 alive"})
	}
	b.Close()
	quietFor(t, w, c, map[string]string{"a": "1 alive", "b": "2 alive", "c": "1 alive"})
	for _, p := range c.Peers() {
		if p.Name == "b" && p.Addr != moved.self.Addr {
			t.Errorf("b is at %s, want %s", p.Addr, moved.self.Addr)
		}
	}
}

func testPartition(t *testing.T, w World) {
	a, b, c := ring(t, w)
	w.Cut(a.self.Addr, c.self.Addr)
	w.Cut(b.self.Addr, c.self.Addr)
	await(t, a, map[string]string{"b": "1 alive", "c": "1 failed"})
	await(t, b, map[string]string{"a": "1 alive", "c": "1 failed"})
	await(t, c, map[string]string{"a": "1 failed", "b": "1 failed"})
	w.Mend(a.self.Addr, c.self.Addr)
	w.Mend(b.self.Addr, c.self.Addr)
	for _, n := range []*node{a, b, c} {
		await(t, n, map[string]string{"a": "1 alive", "b": "1 alive", "c": "1 alive"})
	}
}

func testOneLink(t *testing.T, w World) {
	a, b, c := ring(t, w)
	w.Cut(a.self.Addr, b.self.Addr)
	all := map[string]string{"a": "1 alive", "b": "1 alive", "c": "1 alive"}
	for _, n := range []*node{a, b, c} {
		quietFor(t, w, n, all) // c carries what they tell each other
	}
}

func testWatch(t *testing.T, w World) {
	a := start(t, w, "a", 1, "")
	watch := a.Watch()
	if peers, err := watch.Next(limit(t)); err != nil || len(peers) != 1 || peers[0].Member != a.self {
		t.Fatalf("a watch begins with %v, %v; want the node itself", peers, err)
	}
	// Of what changes several times before it is read, the last is shown.
	for i := range 5 {
		m := a.self
		m.Meta = fmt.Sprint("state ", i)
		if err := a.Update(m); err != nil {
			t.Fatal(err)
		}
	}
	peers, err := watch.Next(limit(t))
	if err != nil || len(peers) != 1 || peers[0].Meta != "state 4" {
		t.Errorf("after five updates: %v, %v; want one peer, in state 4", peers, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := watch.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v, want Canceled", err)
	}
	watch.Close()
	watch.Close()
	if _, err := watch.Next(limit(t)); !errors.Is(err, cluster.ErrClosed) {
		t.Errorf("a closed watch: %v, want ErrClosed", err)
	}
}

func testClose(t *testing.T, w World) {
	a := start(t, w, "a", 1, "")
	watch := a.Watch()
	if _, err := watch.Next(limit(t)); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := watch.Next(context.Background())
		ended <- err
	}()
	for range 2 {
		if err := a.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if err := <-ended; !errors.Is(err, cluster.ErrClosed) {
		t.Errorf("a watch that waited: %v, want ErrClosed", err)
	}
	if _, err := a.Watch().Next(limit(t)); !errors.Is(err, cluster.ErrClosed) {
		t.Errorf("a watch of a closed membership: %v, want ErrClosed", err)
	}
	if err := a.Update(a.self); !errors.Is(err, cluster.ErrClosed) {
		t.Errorf("update when closed: %v, want ErrClosed", err)
	}
	if err := a.Leave(limit(t)); !errors.Is(err, cluster.ErrClosed) {
		t.Errorf("leave when closed: %v, want ErrClosed", err)
	}
}

func testRefused(t *testing.T, w World) {
	a := start(t, w, "a", 1, "")
	m := a.self
	m.Meta = string(make([]byte, cluster.MaxMeta+1))
	if err := a.Update(m); err == nil {
		t.Error("more of its own than MaxMeta was taken")
	}
	if got := a.Peers()[0].Member; got != a.self {
		t.Errorf("after an update that was refused it is %+v", got)
	}
}

// quietFor holds that a node knows these peers, all the time until everything
// must have been heard.
func quietFor(t *testing.T, w World, n *node, want map[string]string) {
	t.Helper()
	await(t, n, want)
	watch := n.Watch()
	defer watch.Close()
	ctx, cancel := context.WithTimeout(t.Context(), w.Settle())
	defer cancel()
	for {
		peers, err := watch.Next(ctx)
		if err != nil {
			return
		}
		for _, p := range peers {
			got := fmt.Sprint(p.Incarnation, " ", p.Status)
			if s, ok := want[p.Name]; ok && got != s {
				t.Fatalf("%s hears that %s is %s, want %s and no change", n.self.Name, p.Name, got, s)
			}
		}
	}
}
