package controltest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/wray-project/wray/host/control"
)

func testWatch(t *testing.T, h *Harness, s control.Store) {
	put(t, s, "a/1", "old")
	r := put(t, s, "b/1", "old")
	now := watch(t, s, "a/", 0)
	from := watch(t, s, "a/", r+1)
	all := watch(t, s, "", 1)
	put(t, s, "a/1", "new")
	put(t, s, "b/1", "new")
	commit(t, s, control.Txn{Do: []control.Op{control.Put("a/2", []byte("2")), control.Delete("a/1"), control.Put("b/2", nil)}})
	want := fmt.Sprintf("+a/1=new@%d +a/2=2@%d -a/1@%d", r+1, r+3, r+3)
	for _, w := range []control.Watcher{now, from} {
		got := events(t, w, 3)
		if s := show(got); s != want && s != fmt.Sprintf("+a/1=new@%d -a/1@%d +a/2=2@%d", r+1, r+3, r+3) {
			t.Errorf("watch: %s, want %s", s, want)
		}
		if e := got[0].Record; e.Created != r-1 {
			t.Errorf("event of the second write: %+v, made at %d", e, r-1)
		}
	}
	if got := events(t, all, 7); len(got) != 7 {
		t.Errorf("watch of all: %s", show(got))
	}
}

// testWatchResumes holds that a watch that goes on where another ended misses
// nothing and sees nothing twice, also from before it was closed, and from a
// list.
func testWatchResumes(t *testing.T, h *Harness, s control.Store) {
	p := list(t, s, control.ListRequest{Prefix: "k/"})
	next := p.Revision + 1
	var got []control.Event
	for i := range 5 {
		put(t, s, "k/x", fmt.Sprint(2*i))
		w := watch(t, s, "k/", next)
		put(t, s, "k/x", fmt.Sprint(2*i+1))
		// One batch, which may have one of the events or both.
		b, err := w.Next(bg(t))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, b.Events...)
		next = b.Revision + 1
		w.Close()
	}
	w := watch(t, s, "k/", next)
	put(t, s, "k/x", "last")
	got = append(got, events(t, w, 11-len(got))...)
	for i, e := range got {
		if want := fmt.Sprint(i); i < 10 && string(e.Record.Value) != want || i == 10 && string(e.Record.Value) != "last" {
			t.Fatalf("event %d: %s", i, show(got))
		}
	}
	// A Next that gave up loses nothing.
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if b, err := w.Next(ctx); !errors.Is(err, control.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Next with nothing to see: %+v, %v", b, err)
	}
	put(t, s, "k/x", "after")
	if got := events(t, w, 1); string(got[0].Record.Value) != "after" {
		t.Errorf("after a Next that gave up: %s", show(got))
	}
}

// testWatchWakes holds that Close ends a Next that waits, of its own watch and
// of the store's.
func testWatchWakes(t *testing.T, h *Harness, s control.Store) {
	for _, c := range []struct {
		name  string
		close func(w control.Watcher) error
	}{
		{"the watcher", func(w control.Watcher) error { return w.Close() }},
		{"the store", func(control.Watcher) error { return s.Close() }},
	} {
		w := watch(t, s, "", 0)
		done := make(chan error)
		go func() {
			_, err := w.Next(context.Background())
			done <- err
		}()
		if err := c.close(w); err != nil {
			t.Errorf("close %s: %v", c.name, err)
		}
		if err := <-done; !errors.Is(err, control.ErrClosed) {
			t.Errorf("Next, after %s was closed: %v", c.name, err)
		}
		if _, err := w.Next(bg(t)); !errors.Is(err, control.ErrClosed) {
			t.Errorf("Next again, after %s was closed: %v", c.name, err)
		}
	}
}

func testClosed(t *testing.T, h *Harness, s control.Store) {
	l, err := s.Grant(bg(t), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	for name, f := range map[string]func() error{
		"Get":       func() error { _, err := s.Get(bg(t), "a"); return err },
		"List":      func() error { _, err := s.List(bg(t), control.ListRequest{}); return err },
		"Commit":    func() error { _, err := s.Commit(bg(t), control.Txn{}); return err },
		"Watch":     func() error { _, err := s.Watch(bg(t), "", 0); return err },
		"WatchFrom": func() error { _, err := s.Watch(bg(t), "", 1); return err },
		"Grant":     func() error { _, err := s.Grant(bg(t), time.Second); return err },
		"KeepAlive": func() error { return s.KeepAlive(bg(t), l.ID) },
		"Revoke":    func() error { return s.Revoke(bg(t), l.ID) },
	} {
		if err := f(); !errors.Is(err, control.ErrClosed) {
			t.Errorf("%s of a store that was closed: %v", name, err)
		}
	}
}

func testOutage(t *testing.T, h *Harness, s control.Store) {
	if h.Outage == nil {
		t.Skip("SKIP: this store alone cannot lose its quorum")
	}
	l, err := s.Grant(bg(t), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	rev := commit(t, s, control.Txn{Do: []control.Op{control.PutLeased("leased", nil, l.ID)}})
	w := watch(t, s, "", rev+1)
	restore := h.Outage(t, s)
	for name, f := range map[string]func(context.Context) error{
		"Get":  func(ctx context.Context) error { _, err := s.Get(ctx, "leased"); return err },
		"List": func(ctx context.Context) error { _, err := s.List(ctx, control.ListRequest{}); return err },
		"Commit": func(ctx context.Context) error {
			_, err := s.Commit(ctx, control.Txn{Do: []control.Op{control.Delete("none")}})
			return err
		},
		"Grant": func(ctx context.Context) error { _, err := s.Grant(ctx, time.Second); return err },
	} {
		// The outage lasts longer than the lease, all told.
		ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		if err := f(ctx); !errors.Is(err, control.ErrUnavailable) {
			t.Errorf("%s without a quorum: %v", name, err)
		}
		cancel()
	}
	restore()
	// The lease did not lapse meanwhile. What was committed may be slow to come.
	if _, err := s.Get(bg(t), "leased"); err != nil {
		t.Errorf("after an outage: %v", err)
	}
	put(t, s, "after", "1")
	for {
		b, err := w.Next(bg(t))
		if errors.Is(err, control.ErrUnavailable) {
			continue
		}
		if err != nil {
			t.Fatalf("watch after an outage: %v", err)
		}
		if string(b.Events[0].Record.Key) != "after" {
			t.Errorf("watch after an outage: %s", show(b.Events))
		}
		break
	}
	if _, err := w.Next(bg(t)); err != nil {
		t.Fatal(err) // the lease lapses now
	}
	absent(t, s, "leased")
}
