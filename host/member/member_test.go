package member_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/cluster/directory"
	"github.com/wray-project/wray/host/cluster/liveness"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/member"
	"github.com/wray-project/wray/host/peer"
)

// world is a cluster on the loopback interface, whose head's control state
// outlives the head.
type world struct {
	t     *testing.T
	store *control.Memory
	// ttl is of the nodes' leases: long, as nobody is to be called dead because the
	// machine is slow.
	ttl time.Duration
	// began has the incarnations of each node, in order.
	began map[string][]uint64
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, store: control.NewMemory(control.MemoryOptions{}), ttl: time.Minute, began: map[string][]uint64{}}
	t.Cleanup(func() { w.store.Close() })
	return w
}

// kept is a store that closing leaves open.
type kept struct{ control.Store }

func (kept) Close() error { return nil }

func (w *world) config(name, dir string) member.Config {
	return member.Config{Name: name, Dir: dir, Listen: "127.0.0.1:0", Probe: 200 * time.Millisecond,
		Offer:     directory.Node{Version: "test", Capacity: wray.Resources{CPU: wray.CPUs(2), Memory: 1 << 30}},
		Directory: directory.Options{Liveness: liveness.Config{Silence: time.Second, TTL: w.ttl}}}
}

func (w *world) start(c member.Config) *member.Member {
	w.t.Helper()
	m, err := member.Start(w.ctx(), c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = m.Close() })
	w.began[c.Name] = append(w.began[c.Name], m.Self().Incarnation)
	return m
}

func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	w.t.Cleanup(cancel)
	return ctx
}

func (w *world) head(dir string) *member.Member {
	w.t.Helper()
	c := w.config("head", dir)
	c.OpenControl = func(context.Context, string, control.Port) (control.Store, error) { return kept{w.store}, nil }
	return w.start(c)
}

func (w *world) token(head *member.Member) string {
	w.t.Helper()
	tok, err := head.NewToken(w.ctx(), auth.TokenOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return tok.Reveal()
}

// join starts a node that joins by a head.
func (w *world) join(name, dir string, head *member.Member) *member.Member {
	w.t.Helper()
	c := w.config(name, dir)
	c.Join, c.Token = head.Self().Addr, w.token(head)
	return w.start(c)
}

// await waits until m knows these nodes, as "2 alive" and the like: the second
// that was started is.
func (w *world) await(m *member.Member, want map[string]string) {
	w.t.Helper()
	watch := m.Nodes().Watch()
	defer watch.Close()
	ctx := w.ctx()
	got := map[string]string{}
	for {
		entries, err := watch.Next(ctx)
		if err != nil {
			w.t.Fatalf("%s knows %v, want %v: %v", m.Self().Name, got, want, err)
		}
		for _, e := range entries {
			got[e.Name] = fmt.Sprint(1+slices.Index(w.began[e.Name], e.Node.Incarnation), " ", e.Status)
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

// Nodes join with a token, find each other, come back without one, and leave.
func TestMembers(t *testing.T) {
	w := newWorld(t)
	headDir, aDir := t.TempDir(), t.TempDir()
	head := w.head(headDir)
	a, b := w.join("a", aDir, head), w.join("b", t.TempDir(), head)
	all := map[string]string{"head": "1 alive", "a": "1 alive", "b": "1 alive"}
	for _, m := range []*member.Member{head, a, b} {
		w.await(m, all)
		if m.Cluster() != head.Cluster() {
			t.Errorf("%s is of cluster %s, the head of %s", m.Self().Name, m.Cluster(), head.Cluster())
		}
	}
	if e, _ := b.Nodes().Node("a"); e.Node.Addr != a.Self().Addr || e.Node.Capacity.CPU != wray.CPUs(2) || e.Node.Head {
		t.Errorf("b knows of a: %+v", e.Node)
	}
	if e, _ := b.Nodes().Node("head"); !e.Node.Head {
		t.Errorf("b does not know the head for one: %+v", e.Node)
	}
	if _, err := a.NewToken(w.ctx(), auth.TokenOptions{}); err == nil {
		t.Error("a node that is no head made a token")
	}
	if err := a.Leave(w.ctx()); err != nil {
		t.Errorf("a leaves: %v", err)
	}
	w.await(b, map[string]string{"a": "1 dead"})
	// It needs no token and no address to be back.
	w.start(w.config("a", aDir))
	w.await(b, map[string]string{"a": "2 alive"})
	// The head may go and be back, at another address: the file and the gossip say where.
	head.Close()
	head = w.head(headDir)
	w.await(head, map[string]string{"head": "2 alive", "a": "2 alive", "b": "1 alive"})
}

// refusing is a store that takes no record of a node, while refuse is set.
type refusing struct {
	control.Store
	node   string
	refuse *atomic.Bool
}

func (r refusing) Commit(ctx context.Context, txn control.Txn) (control.Revision, error) {
	key, err := control.Key(control.KindNode, control.Cluster, r.node)
	if err != nil || r.refuse.Load() && slices.ContainsFunc(txn.Do, func(o control.Op) bool { return o.Key == key }) {
		return 0, errors.Join(control.ErrDenied, err)
	}
	return r.Store.Commit(ctx, txn)
}

// A node that has joined, and came no further, finds the cluster again without
// an address.
func TestJoinedOnly(t *testing.T) {
	w := newWorld(t)
	var refuse atomic.Bool
	refuse.Store(true)
	c := w.config("head", t.TempDir())
	c.OpenControl = func(context.Context, string, control.Port) (control.Store, error) {
		return kept{refusing{w.store, "a", &refuse}}, nil
	}
	head := w.start(c)
	c = w.config("a", t.TempDir())
	c.Join, c.Token = head.Self().Addr, w.token(head)
	if _, err := member.Start(w.ctx(), c); !errors.Is(err, control.ErrDenied) {
		t.Fatalf("a node without a record: %v", err)
	}
	refuse.Store(false)
	c.Join, c.Token = "", ""
	w.start(c)
	w.await(head, map[string]string{"a": "1 alive"})
}

// A node that dies without a word is called dead when its lease has lapsed.
func TestDeath(t *testing.T) {
	w := newWorld(t)
	w.ttl = 2 * time.Second
	head := w.head(t.TempDir())
	a := w.join("a", t.TempDir(), head)
	w.await(head, map[string]string{"a": "1 alive"})
	a.Close()
	w.await(head, map[string]string{"a": "1 unreachable", "head": "1 alive"}) // at once
	w.await(head, map[string]string{"a": "1 dead", "head": "1 alive"})
}

// told is a handler that passes on what it is told.
type told struct{ messages chan string }

func (h told) Receive(from peer.Node, messages [][]byte) {
	for _, m := range messages {
		h.messages <- from.Name + ": " + string(m)
	}
}

func (h told) Change(n peer.Node, to peer.Status, _ string) {
	h.messages <- fmt.Sprint(n.Name, " is ", to)
}

// Nodes that know each other have a session.
func TestSessions(t *testing.T) {
	w := newWorld(t)
	h := told{make(chan string, 100)}
	c := w.config("head", t.TempDir())
	c.OpenControl = func(context.Context, string, control.Port) (control.Store, error) { return kept{w.store}, nil }
	c.Handler = h
	head := w.start(c)
	c = w.config("a", t.TempDir())
	c.Join, c.Token = head.Self().Addr, w.token(head)
	atA := told{make(chan string, 100)}
	c.Handler = atA
	a := w.start(c)
	if got, want := <-atA.messages, fmt.Sprint("head is ", peer.Up); got != want {
		t.Fatalf("a is told %q, want %q", got, want)
	}
	if err := a.Mesh().Send(w.ctx(), peer.Node{Name: "head", Incarnation: head.Self().Incarnation}, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{fmt.Sprint("a is ", peer.Up), "a: hello"} {
		if got := <-h.messages; got != want {
			t.Errorf("the head is told %q, want %q", got, want)
		}
	}
	if err := a.Leave(w.ctx()); err != nil {
		t.Fatal(err)
	}
	for got := ""; got != fmt.Sprint("a is ", peer.Down); {
		got = <-h.messages
	}
}

// Who has no token, or one that is no good, gets nowhere.
func TestStrangers(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	head, foreign := w.head(t.TempDir()), other.head(t.TempDir())
	for what, c := range map[string]struct {
		token string
		want  error
	}{
		"no token":                 {"", member.ErrTokenNeeded},
		"another cluster's token":  {other.token(foreign), auth.ErrPin},
		"a token that is mistyped": {w.token(head)[:20], nil},
	} {
		cfg := w.config("x", t.TempDir())
		cfg.Join, cfg.Token = head.Self().Addr, c.token
		m, err := member.Start(w.ctx(), cfg)
		if err == nil {
			m.Close()
			t.Errorf("with %s a node joined", what)
		} else if c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("with %s: %v, want %v", what, err, c.want)
		}
	}
	used := w.token(head)
	c := w.config("a", t.TempDir())
	c.Join, c.Token = head.Self().Addr, used
	w.start(c)
	c = w.config("b", t.TempDir())
	c.Join, c.Token = head.Self().Addr, used
	if m, err := member.Start(w.ctx(), c); !errors.Is(err, auth.ErrTokenUsed) {
		if err == nil {
			m.Close()
		}
		t.Errorf("with a token that was used: %v, want ErrTokenUsed", err)
	}
	// Somebody else's name is not to be had.
	c = w.config("a", t.TempDir())
	c.Join, c.Token = head.Self().Addr, w.token(head)
	if m, err := member.Start(w.ctx(), c); !errors.Is(err, auth.ErrNameTaken) {
		if err == nil {
			m.Close()
		}
		t.Errorf("with the name of another: %v, want ErrNameTaken", err)
	}
}

// A node that lost its directory is back with a token for its name, as a newer
// incarnation than all before.
func TestLostDirectory(t *testing.T) {
	w := newWorld(t)
	head := w.head(t.TempDir())
	w.join("a", t.TempDir(), head).Close()
	tok, err := head.NewToken(w.ctx(), auth.TokenOptions{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	c := w.config("a", t.TempDir())
	c.Join, c.Token = head.Self().Addr, tok.Reveal()
	w.start(c)
	w.await(head, map[string]string{"a": "2 alive"})
}

// What the directory keeps is not taken for another node's, and a start that
// fails leaves nothing open.
func TestRefusals(t *testing.T) {
	w := newWorld(t)
	head := w.head(t.TempDir())
	dir := t.TempDir()
	w.join("a", dir, head).Close()
	if m, err := member.Start(w.ctx(), w.config("c", dir)); err == nil {
		m.Close()
		t.Error("node c started with what node a kept")
	}
	c := w.config("a", dir)
	c.Listen = "0.0.0.0:0"
	if m, err := member.Start(w.ctx(), c); err == nil {
		m.Close()
		t.Error("a node listens everywhere, and says not where it is")
	}
	c.Listen = head.Self().Addr
	if m, err := member.Start(w.ctx(), c); err == nil {
		m.Close()
		t.Error("two nodes listen at one address")
	}
	// All that was kept is for its owner alone.
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			t.Fatal(err)
		}
		info, err := d.Info()
		if err == nil && path != dir && d.Name() != auth.ClusterFile && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is %v", path, info.Mode())
		}
		return nil
	})
}
