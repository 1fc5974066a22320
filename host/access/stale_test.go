package access

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
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
