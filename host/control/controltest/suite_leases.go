package controltest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/wray-project/wray/host/control"
)

// testLeases holds what fencing stands on: what is bound to a lease goes in one
// commit, and a condition on it never holds again.
func testLeases(t *testing.T, h *Harness, s control.Store) {
	var l control.Lease
	var made control.Revision
	var fence []control.Cond
	var w control.Watcher
	// Longer each time, for machines that stand still meanwhile.
	for ttl := 100 * time.Millisecond; ; ttl *= 10 {
		w = watch(t, s, "", 0)
		granted := time.Now()
		var err error
		if l, err = s.Grant(bg(t), ttl); err != nil {
			t.Fatal(err)
		}
		if l.ID == 0 || l.TTL < ttl || l.TTL%time.Second != 0 {
			t.Fatalf("a lease of %v: %+v; they are whole seconds", ttl, l)
		}
		made, err = s.Commit(bg(t), control.Txn{Do: []control.Op{control.PutLeased("a", nil, l.ID), control.PutLeased("b", nil, l.ID)}})
		if err == nil {
			fence = []control.Cond{control.Born("a", made)}
			_, err = s.Commit(bg(t), control.Txn{If: fence, Do: []control.Op{control.Put("effect", []byte("1"))}})
		}
		if err == nil {
			break
		}
		if d := time.Since(granted); d < l.TTL || ttl > 10*time.Second {
			t.Fatalf("a lease of %v, %v after it was granted: %v", l.TTL, d, err)
		}
	}
	if got := events(t, w, 3); len(got) != 3 {
		t.Fatalf("before the lease lapsed: %s", show(got))
	}
	got := events(t, w, 2)
	if s := show(got); s != fmt.Sprintf("-a@%d -b@%d", made+2, made+2) {
		t.Errorf("the lease lapsed so: %s", s)
	}
	// Its holder comes too late, with the lease and with the fence.
	if err := s.KeepAlive(bg(t), l.ID); !errors.Is(err, control.ErrLeaseLapsed) {
		t.Errorf("keep a lapsed lease alive: %v", err)
	}
	if _, err := s.Commit(bg(t), control.Txn{Do: []control.Op{control.PutLeased("a", nil, l.ID)}}); !errors.Is(err, control.ErrLeaseLapsed) {
		t.Errorf("write with a lapsed lease: %v", err)
	}
	put(t, s, "a", "of another")
	if _, err := s.Commit(bg(t), control.Txn{If: fence, Do: []control.Op{control.Put("effect", []byte("2"))}}); !errors.Is(err, control.ErrConflict) {
		t.Errorf("write behind a fence: %v", err)
	}
	if got := get(t, s, "effect"); string(got.Value) != "1" {
		t.Errorf("the effect is %q", got.Value)
	}
	if err := s.Revoke(bg(t), l.ID); err != nil {
		t.Errorf("revoke a lapsed lease: %v", err)
	}
}

func testLeaseKeptAlive(t *testing.T, h *Harness, s control.Store) {
	// A machine that stands still for longer than the lease lets it lapse, and
	// rightly so: then it is tried again.
	for try := 0; !keepAlive(t, s); try++ {
		if try == 10 {
			t.Fatal("this machine stands still too long, too often")
		}
	}
}

// keepAlive reports whether a lease was kept for twice its time, and fails where
// it lapsed though it was renewed in time.
func keepAlive(t *testing.T, s control.Store) bool {
	kept := time.Now()
	l, err := s.Grant(bg(t), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	late := func(err error) bool {
		if d := time.Since(kept); d < l.TTL {
			t.Fatalf("a lease that was renewed %v before has lapsed: %v", d, err)
		}
		return false
	}
	made, err := s.Commit(bg(t), control.Txn{Do: []control.Op{control.PutLeased("a", nil, l.ID)}})
	if errors.Is(err, control.ErrLeaseLapsed) {
		return late(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	w := watch(t, s, "", made+1)
	ctx, cancel := context.WithTimeout(context.Background(), l.TTL*2)
	defer cancel()
	lapsed := make(chan error, 1)
	go func() {
		_, err := w.Next(ctx)
		lapsed <- err
	}()
	tick := time.NewTicker(l.TTL / 5)
	defer tick.Stop()
	for done := false; !done; {
		select {
		case <-tick.C:
			sent := time.Now()
			err := s.KeepAlive(bg(t), l.ID)
			if errors.Is(err, control.ErrLeaseLapsed) {
				return late(err)
			}
			if err != nil {
				t.Fatalf("keep alive: %v", err)
			}
			kept = sent
		case err := <-lapsed:
			if !errors.Is(err, context.DeadlineExceeded) {
				return late(err)
			}
			done = true
		}
	}
	if _, err := s.Get(bg(t), "a"); err != nil {
		return late(err)
	}
	if err := s.Revoke(bg(t), l.ID); err != nil {
		t.Error(err)
	}
	absent(t, s, "a")
	if err := s.KeepAlive(bg(t), l.ID); !errors.Is(err, control.ErrLeaseLapsed) {
		t.Errorf("keep a revoked lease alive: %v", err)
	}
	return true
}

// testLeaseUnbound holds that a record is bound to the lease of its last write.
func testLeaseUnbound(t *testing.T, h *Harness, s control.Store) {
	var leases [2]control.Lease
	for i := range leases {
		l, err := s.Grant(bg(t), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		leases[i] = l
	}
	commit(t, s, control.Txn{Do: []control.Op{control.PutLeased("stays", nil, leases[0].ID), control.PutLeased("moves", nil, leases[0].ID), control.PutLeased("gone", nil, leases[0].ID)}})
	commit(t, s, control.Txn{Do: []control.Op{control.Put("stays", nil), control.PutLeased("moves", nil, leases[1].ID), control.Delete("gone")}})
	put(t, s, "gone", "")
	for i, want := range []string{"gone moves stays", "gone stays"} {
		if err := s.Revoke(bg(t), leases[i].ID); err != nil {
			t.Fatal(err)
		}
		if got := keys(list(t, s, control.ListRequest{}).Records); got != want {
			t.Errorf("after lease %d was revoked: %s, want %s", i, got, want)
		}
	}
}

func testHold(t *testing.T, h *Harness, s control.Store) {
	ctx := bg(t)
	var a *control.Hold
	// Longer each time, for machines that stand still.
	for ttl := time.Second; ; ttl *= 2 {
		var err error
		a, err = control.Acquire(ctx, s, "node/a", []byte("1"), control.HoldOptions{TTL: ttl})
		if err != nil {
			t.Fatal(err)
		}
		w := watch(t, s, "node/", a.Revision()+1)
		// It is still held after its time.
		short, cancel := context.WithTimeout(ctx, ttl*5/2)
		b, err := w.Next(short)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if a.Valid() || err != nil || ttl > 4*time.Second {
			t.Fatalf("held for %v, valid %v, and yet %s, %v", ttl, a.Valid(), show(b.Events), err)
		}
		if err := a.Release(ctx); err != nil {
			t.Error(err)
		}
	}
	if got := get(t, s, "node/a"); got.Created != a.Revision() || string(got.Value) != "1" || got.Lease != a.Lease() {
		t.Errorf("held since %d: %+v", a.Revision(), got)
	}
	if _, err := control.Acquire(ctx, s, "node/a", nil, control.HoldOptions{TTL: time.Second}); !errors.Is(err, control.ErrConflict) {
		t.Errorf("acquire what another holds: %v", err)
	}
	if err := a.Release(ctx); err != nil {
		t.Error(err)
	}
	if a.Valid() {
		t.Error("released, and yet valid")
	}
	<-a.Lost()
	absent(t, s, "node/a")
	b, err := control.Acquire(ctx, s, "node/a", nil, control.HoldOptions{TTL: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if b.Revision() <= a.Revision() {
		t.Errorf("the fence went from %d to %d", a.Revision(), b.Revision())
	}
	if err := b.Release(ctx); err != nil {
		t.Error(err)
	}
}

// testHoldIsLost holds that a holder who is cut off knows before the store lets
// the lease lapse, and that one whose lease was revoked learns it.
func testHoldIsLost(t *testing.T, h *Harness, s control.Store) {
	ctx := bg(t)
	link := NewLink(s)
	a, err := control.Acquire(ctx, link, "node/a", nil, control.HoldOptions{TTL: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	w := watch(t, s, "node/", a.Revision()+1)
	link.Cut()
	for a.Valid() {
		select {
		case <-a.Lost():
			t.Fatal("lost while it may still be renewed")
		case <-time.After(10 * time.Millisecond):
		}
	}
	get(t, s, "node/a") // not yet lapsed
	events(t, w, 1)     // lapsed
	link.Heal()
	<-a.Lost()
	if a.Valid() {
		t.Error("lost, and yet valid")
	}
	if err := a.Release(ctx); err != nil {
		t.Errorf("release what is lost: %v", err)
	}

	b, err := control.Acquire(ctx, s, "node/b", nil, control.HoldOptions{TTL: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Revoke(ctx, get(t, s, "node/b").Lease); err != nil {
		t.Fatal(err)
	}
	<-b.Lost()
	if err := b.Release(ctx); err != nil {
		t.Error(err)
	}
}
