package etcdstore

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/wray-project/wray/host/control"
)

// TestRemoveItself has a head remove itself. When its etcd has stopped for it,
// it is still told so: the first answer may have been lost. One whose etcd
// stopped for another reason is not told so.
func TestRemoveItself(t *testing.T) {
	t.Parallel()
	stores, _ := heads(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	remove := func(at, name string) {
		t.Helper()
		for { // they refuse for some seconds after they began, and while they choose a leader
			err := stores[at].RemoveHead(ctx, name)
			if err == nil {
				return
			}
			if !errors.Is(err, control.ErrUnavailable) || ctx.Err() != nil {
				t.Fatalf("%s removes %s: %v", at, name, err)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	await := func(name string) {
		t.Helper()
		select {
		case <-stores[name].local.server.StopNotify():
		case <-ctx.Done():
			t.Fatalf("the etcd of %s does not stop", name)
		}
	}
	a := stores["a"]
	remove("a", "a")
	await("a")
	if err := a.RemoveHead(ctx, "a"); err != nil {
		t.Errorf("a is asked again, when its etcd has stopped: %v", err)
	}
	if err := a.RemoveHead(ctx, "b"); !errors.Is(err, control.ErrUnavailable) {
		t.Errorf("a, which is no head any more, removes another: %v", err)
	}
	// As if it had stopped before it knew: the others say so.
	if !a.local.forgotten(ctx) {
		t.Error("no other head says that a is none")
	}
	stores["b"].local.server.Stop()
	await("b")
	if err := stores["b"].RemoveHead(ctx, "b"); !errors.Is(err, control.ErrUnavailable) {
		t.Errorf("the etcd of b has stopped, and c counts on it; b is told: %v", err)
	}
	a.Close()
	if err := a.RemoveHead(ctx, "a"); !errors.Is(err, control.ErrClosed) {
		t.Errorf("a store that was closed: %v", err)
	}
}

// TestTwoAtOnce has two ask at the same time to be heads: the second waits until
// the first has come, or its time to come is over, and takes nobody's place.
func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	stores, _ := heads(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	const first, moved, second = "127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"
	add := func(at, name, addr string) {
		t.Helper()
		for { // they refuse for some seconds after they began
			all, err := stores[at].AddHead(ctx, name, addr)
			if err == nil {
				if !slices.Contains(all, addr) {
					t.Errorf("%s is let in, and is not among %v", addr, all)
				}
				return
			}
			if !errors.Is(err, control.ErrUnavailable) || ctx.Err() != nil {
				t.Fatalf("%s lets %s in: %v", at, name, err)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	there := func(want string, not ...string) {
		t.Helper()
		all, err := stores["a"].Heads(ctx)
		if err != nil {
			t.Fatal(err)
		}
		has := func(addr string) bool {
			return slices.ContainsFunc(all, func(h control.Head) bool { return h.Addr == addr })
		}
		if !has(want) || slices.ContainsFunc(not, has) {
			t.Errorf("heads are %v; want %s, and none of %v", all, want, not)
		}
	}
	add("a", "d", first)
	for _, at := range []string{"a", "b"} { // b has not added it, and knows an address alone
		if _, err := stores[at].AddHead(ctx, "e", second); !errors.Is(err, control.ErrUnavailable) {
			t.Errorf("%s is asked to let e in while d is on its way: %v", at, err)
		}
		there(first, second)
	}
	add("a", "d", first) // it asks again
	there(first, second)
	add("a", "d", moved) // and from elsewhere
	there(moved, first, second)
	late := time.Now().Add(comeTime)
	stores["a"].awaited.now = func() time.Time { return late }
	add("a", "e", second) // d did not come
	there(second, first, moved)
}
