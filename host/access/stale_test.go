package access

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wray-project/wray/host/control"
)

// TestStale: while the control state does not answer a token is good, for a time
// that has an end, as is what is done with it; and is good again when it answers,
// unless it was revoked meanwhile.
func TestStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		w := newWorld(t, nil)
		w.user(Home, "ann", Developer)
		s, revoked := w.token(Home, "ann", TokenOptions{}), w.token(Home, "ann", TokenOptions{})
		ann := Principal{Kind: User, Tenant: Home, Name: "ann", Role: Developer, Token: s.ID()}
		other := ann
		other.Token = revoked.ID()
		w.await(s, ann)
		w.await(revoked, other)
		held, release := w.c.Hold(ctx, ann)
		defer release()
		good := func(when string) {
			t.Helper()
			synctest.Wait()
			if p, err := w.c.Verify(s.Reveal()); p != ann || err != nil || held.Err() != nil {
				t.Errorf("%s: %v, %v, %v", when, p, err, held.Err())
			}
		}
		time.Sleep(10 * MaxStale)
		good("where nothing happens")
		// Short absences are not one long one.
		for range 3 {
			w.store.LoseQuorum()
			time.Sleep(MaxStale - 2*askEvery)
			good("while the control state is away")
			w.store.RestoreQuorum()
			time.Sleep(2 * askEvery) // in which it is asked
		}
		w.store.LoseQuorum()
		time.Sleep(MaxStale + 30*time.Second)
		synctest.Wait()
		if p, err := w.c.Verify(s.Reveal()); !errors.Is(err, ErrUnknown) || held.Err() == nil {
			t.Errorf("after it was away for too long: %v, %v, %v", p, err, held.Err())
		}
		if gone, release := w.c.Hold(ctx, ann); gone.Err() == nil {
			t.Error("something begins that nobody can end")
		} else {
			release()
		}
		w.store.RestoreQuorum()
		if _, err := w.p.RevokeToken(ctx, Home, revoked.ID()); err != nil {
			t.Fatal(err)
		}
		w.await(s, ann)
		if p, err := w.c.Verify(revoked.Reveal()); !errors.Is(err, ErrUnknown) {
			t.Errorf("what was revoked meanwhile: %v, %v", p, err)
		}
	})
}

// severed is a store at one head that hears of nothing any more: it answers, and
// its watches say nothing.
type severed struct {
	control.Store
	listless atomic.Bool // it lists nothing either
}

func (s *severed) List(ctx context.Context, req control.ListRequest) (control.Page, error) {
	if s.listless.Load() {
		return control.Page{}, control.Unavailable("list the control state", errors.New("too slow"))
	}
	return s.Store.List(ctx, req)
}

func (s *severed) Watch(ctx context.Context, prefix string, from control.Revision) (control.Watcher, error) {
	w, err := s.Store.Watch(ctx, prefix, from)
	return silent{w}, err
}

type silent struct{ control.Watcher }

func (silent) Next(ctx context.Context) (control.Batch, error) {
	<-ctx.Done()
	return control.Batch{}, control.Unavailable("watch the control state", ctx.Err())
}

// TestSilentWatch: where the control state answers and a watch of it says nothing,
// a token that was revoked is good for MaxStale at most, as is any token where
// the state cannot be read again.
func TestSilentWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		w := newWorld(t, nil)
		w.user(Home, "ann", Developer)
		s, revoked := w.token(Home, "ann", TokenOptions{}), w.token(Home, "ann", TokenOptions{})
		store := &severed{Store: w.store}
		c := NewChecker(store, CheckerOptions{})
		defer c.Close()
		<-c.Ready()
		good := func(s Secret, want bool, when string) {
			t.Helper()
			synctest.Wait()
			if _, err := c.Verify(s.Reveal()); (err == nil) != want {
				t.Errorf("%s: a token: %v", when, err)
			}
		}
		time.Sleep(time.Second)
		good(revoked, true, "before it is revoked")
		if _, err := w.p.RevokeToken(ctx, Home, revoked.ID()); err != nil {
			t.Fatal(err)
		}
		good(revoked, true, "while nobody has heard of it") // else this tests nothing
		time.Sleep(MaxStale + 2*askEvery)
		good(revoked, false, "where it was revoked")
		for range 30 {
			good(s, true, "as long as all is read again")
			time.Sleep(time.Minute)
		}
		store.listless.Store(true)
		time.Sleep(2*MaxStale + 2*askEvery)
		good(s, false, "where all is not read again")
		store.listless.Store(false)
		time.Sleep(3 * askEvery)
		good(s, true, "when all was read again")
	})
}
