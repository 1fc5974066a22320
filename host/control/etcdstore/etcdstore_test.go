package etcdstore

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/control/controltest"
)

// Tests wait for leases most of their time: more run at once than there are
// processors.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// start runs an etcd until the test ends.
func start(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := tryStart(t, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tryStart(t testing.TB, o Options) (*Store, error) {
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	o.Log = slog.New(slog.NewTextHandler(logTo{t}, &slog.HandlerOptions{Level: slog.LevelError}))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := Start(ctx, o)
	if err == nil {
		t.Cleanup(func() { s.Close() })
	}
	return s, err
}

type logTo struct{ t testing.TB }

func (l logTo) Write(b []byte) (int, error) {
	l.t.Logf("%s", b)
	return len(b), nil
}

func compact(t *testing.T, s control.Store, rev control.Revision) {
	if o, ok := s.(outside); ok {
		s = o.Store
	}
	if err := s.(*Store).Compact(t.Context(), rev); err != nil {
		t.Fatal(err)
	}
}

// TestEmbedded holds an etcd of this process that is alone to the contract.
func TestEmbedded(t *testing.T) {
	t.Parallel()
	controltest.Run(t, &controltest.Harness{
		Open:    func(t *testing.T) control.Store { return start(t, Options{}) },
		Compact: compact,
	})
}

// TestDialed holds an etcd that is reached by its address, with certificates,
// to the contract. Each store has an etcd of its own, since those that share one
// have their revisions and compactions in common.
func TestDialed(t *testing.T) {
	t.Parallel()
	files := controltest.NewCA(t).Issue(t, "head", loopback)
	controltest.Run(t, &controltest.Harness{
		Open: func(t *testing.T) control.Store {
			l := at(files, freeAddress())
			start(t, Options{Clients: l})
			s, err := Dial(t.Context(), DialOptions{Endpoints: []string{l.Address}, TLS: files.Config(t)})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		Compact: compact,
	})
}

// heads runs three etcds, and returns their stores, by name, with what starts
// one again.
func heads(t *testing.T) (stores map[string]*Store, again func(name string)) {
	ca := controltest.NewCA(t)
	files := map[string]controltest.Files{}
	members := map[string]string{}
	opts := map[string]Options{}
	for _, name := range []string{"a", "b", "c"} {
		files[name] = ca.Issue(t, name, loopback)
		members[name] = freeAddress()
	}
	for name, address := range members {
		opts[name] = Options{Dir: t.TempDir(), Name: name, Peer: at(files[name], address), Members: members,
			Heartbeat: 50 * time.Millisecond, Election: 500 * time.Millisecond}
	}
	stores = map[string]*Store{}
	var wg sync.WaitGroup
	var mu sync.Mutex
	for name, o := range opts {
		wg.Go(func() {
			s, err := tryStart(t, o)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			stores[name] = s
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return stores, func(name string) { stores[name] = start(t, opts[name]) }
}

// TestHeads has three etcds lose one, then a second, then neither.
func TestHeads(t *testing.T) {
	t.Parallel()
	stores, again := heads(t)
	a := stores["a"]
	bg, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	put := func(s *Store, key string) {
		t.Helper()
		for {
			ctx, cancel := context.WithTimeout(bg, 2*time.Second)
			_, err := s.Commit(ctx, control.Txn{Do: []control.Op{control.Put(key, nil)}})
			cancel()
			if err == nil {
				return
			}
			// The leader may be what was stopped: until there is another.
			if !errors.Is(err, control.ErrUnavailable) || bg.Err() != nil {
				t.Fatalf("put %s: %v", key, err)
			}
		}
	}
	rev, err := a.Commit(bg, control.Txn{Do: []control.Op{control.Put("first", nil)}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stores["b"].Get(bg, "first"); err != nil {
		t.Errorf("what one head wrote another does not read: %v", err)
	}
	w, err := a.Watch(bg, "", rev+1)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	stores["c"].Close()
	put(a, "two of three")
	l, err := a.Grant(bg, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	stores["b"].Close()
	for i := range 3 { // longer than the lease
		ctx, cancel := context.WithTimeout(bg, 2*time.Second)
		if i < 2 {
			if _, err := a.Commit(ctx, control.Txn{Do: []control.Op{control.Delete("none")}}); !errors.Is(err, control.ErrUnavailable) {
				t.Errorf("write to one of three heads: %v", err)
			}
		} else if err := a.KeepAlive(ctx, l.ID); !errors.Is(err, control.ErrUnavailable) {
			t.Errorf("keep alive with one of three heads: %v", err)
		}
		cancel()
	}
	back := time.Now()
	again("b")
	put(stores["b"], "back")
	// It has its full time again. A machine that stands still for longer sees
	// it lapse, and rightly so.
	if err := a.KeepAlive(bg, l.ID); err != nil && (!errors.Is(err, control.ErrLeaseLapsed) || time.Since(back) < l.TTL) {
		t.Errorf("a lease lapsed while no quorum was there, or %v after: %v", time.Since(back), err)
	}
	var seen []string
	for len(seen) < 2 {
		b, err := w.Next(bg)
		if errors.Is(err, control.ErrUnavailable) && bg.Err() == nil {
			continue
		}
		if err != nil {
			t.Fatalf("watch, after %q: %v", seen, err)
		}
		for _, e := range b.Events {
			// A put whose end was unknown was done again.
			if len(seen) == 0 || seen[len(seen)-1] != e.Record.Key {
				seen = append(seen, e.Record.Key)
			}
		}
	}
	if !slices.Equal(seen, []string{"two of three", "back"}) {
		t.Errorf("the watch saw %q", seen)
	}
}

// TestHeadsHistories has clients of three heads work at the same time, while one
// head is stopped and started again.
func TestHeadsHistories(t *testing.T) {
	t.Parallel()
	stores, again := heads(t)
	// Each client is of a head that stays; the leader may be the third.
	var clients []control.Store
	for i := range 6 {
		clients = append(clients, stores[[]string{"a", "b"}[i%2]])
	}
	controltest.CheckHistories(t, controltest.Histories{Clients: clients, Ops: 60, Patience: 3 * time.Second, Disturb: func() {
		stores["c"].Close()
		again("c")
	}})
}

// TestHistories has clients of one etcd work at the same time, over connections
// that lose requests and replies.
func TestHistories(t *testing.T) {
	t.Parallel()
	controltest.CheckHistories(t, controltest.Histories{Clients: controltest.Faulty(t, start(t, Options{}), 6), Ops: 100, Patience: 5 * time.Second})
}

// TestRestart holds that what is written stays, and that a lease goes on.
func TestRestart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "control")
	s := start(t, Options{Dir: dir})
	l, err := s.Grant(t.Context(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	rev, err := s.Commit(t.Context(), control.Txn{Do: []control.Op{control.Put("a", []byte("1")), control.PutLeased("b", nil, l.ID)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = start(t, Options{Dir: dir})
	r, err := s.Get(t.Context(), "a")
	if err != nil || string(r.Value) != "1" || r.Modified != rev {
		t.Errorf("after a restart: %+v, %v", r, err)
	}
	w, err := s.Watch(t.Context(), "b", rev+1)
	if err != nil {
		t.Fatal(err)
	}
	b, err := w.Next(t.Context())
	if err != nil || len(b.Events) != 1 || !b.Events[0].Deleted {
		t.Errorf("the lease after a restart: %+v, %v", b, err)
	}
	st, err := os.Stat(dir)
	if err != nil || st.Mode().Perm()&0o077 != 0 {
		t.Errorf("others may look into the directory: %v, %v", st.Mode(), err)
	}
}

// TestStrangers tries to reach an etcd without a certificate, and with one of
// another cluster.
func TestStrangers(t *testing.T) {
	t.Parallel()
	files := controltest.NewCA(t).Issue(t, "head", loopback)
	l := at(files, freeAddress())
	start(t, Options{Clients: l})
	ours := files.Config(t)
	nobody := ours.Clone()
	nobody.Certificates = nil
	other := controltest.NewCA(t).Issue(t, "head", loopback).Config(t)
	impostor := ours.Clone()
	impostor.Certificates = other.Certificates
	deceived := ours.Clone()
	deceived.RootCAs = other.RootCAs
	for name, c := range map[string]*tls.Config{"without a certificate": nobody, "with another cluster's": impostor, "that trusts another cluster": deceived} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		s, err := Dial(ctx, DialOptions{Endpoints: []string{l.Address}, TLS: c})
		if err == nil {
			s.Close()
		}
		if !errors.Is(err, control.ErrUnavailable) {
			t.Errorf("a client %s: %v", name, err)
		}
		cancel()
	}
	s, err := Dial(t.Context(), DialOptions{Endpoints: []string{l.Address}, TLS: ours})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

// TestOptions holds what is refused before anything runs.
func TestOptions(t *testing.T) {
	t.Parallel()
	ok := at(controltest.NewCA(t).Issue(t, "head", loopback), "127.0.0.1:1")
	bare := &Listener{Address: "127.0.0.1:1"}
	name := *ok
	name.Address = "localhost:1"
	six := map[string]string{"head": "h:1", "b": "h:1", "c": "h:1", "d": "h:1", "e": "h:1", "f": "h:1"}
	for what, o := range map[string]Options{
		"no directory":                 {},
		"peers without certificates":   {Dir: "x", Peer: bare},
		"clients without certificates": {Dir: "x", Clients: bare},
		"no IP":                        {Dir: "x", Peer: &name},
		"members and no peers":         {Dir: "x", Members: map[string]string{"head": "h:1", "b": "h:1"}},
		"too many members":             {Dir: "x", Peer: ok, Members: six},
		"not one of them":              {Dir: "x", Name: "z", Peer: ok, Members: map[string]string{"a": "h:1"}},
		"a bad address":                {Dir: "x", Name: "a", Peer: ok, Members: map[string]string{"a": "h"}},
	} {
		if s, err := Start(t.Context(), o); !errors.Is(err, control.ErrInvalid) {
			t.Errorf("%s: %v, %v", what, s, err)
		}
	}
	for what, o := range map[string]DialOptions{
		"no endpoint":       {},
		"no TLS":            {Endpoints: []string{"127.0.0.1:1", "10.0.0.1:2379"}},
		"no TLS for a name": {Endpoints: []string{"localhost:2379"}},
		"no port":           {Endpoints: []string{"127.0.0.1"}},
	} {
		if s, err := Dial(t.Context(), o); !errors.Is(err, control.ErrInvalid) {
			t.Errorf("%s: %v, %v", what, s, err)
		}
	}
}

func at(f controltest.Files, address string) *Listener {
	return &Listener{Address: address, Cert: f.Cert, Key: f.Key, CA: f.CA}
}

var lastPort atomic.Int32

// loopback is an address of this machine that other processes leave alone: all
// of 127.0.0.0/8 is the loopback device's.
var loopback = net.IPv4(127, byte(os.Getpid()>>8)|0x80, byte(os.Getpid()), 1)

// freeAddress returns a loopback address that nobody has.
func freeAddress() string {
	return fmt.Sprintf("%v:%d", loopback, 20000+lastPort.Add(1))
}

// TestWatchers has many watchers in one process see the same keys, whole.
func TestWatchers(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Dir: t.TempDir()})
	bg, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var all []control.Watcher
	for range 5 {
		w, err := s.Watch(bg, "node/", 0)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		// Each has its place in etcd before the next, and before any event.
		short, stop := context.WithTimeout(bg, 50*time.Millisecond)
		if b, err := w.Next(short); !errors.Is(err, control.ErrUnavailable) {
			t.Fatalf("a watch saw %v, %v", b, err)
		}
		stop()
		all = append(all, w)
	}
	for _, key := range []string{"node/a", "node/b"} {
		if _, err := s.Commit(bg, control.Txn{Do: []control.Op{control.Put(key, nil)}}); err != nil {
			t.Fatal(err)
		}
		for i, w := range all {
			b, err := w.Next(bg)
			if err != nil || len(b.Events) != 1 || b.Events[0].Record.Key != key {
				t.Errorf("watcher %d saw %v, %v, want %s", i, b.Events, err, key)
			}
		}
	}
}
