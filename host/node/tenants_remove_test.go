package node

import (
	"context"
	"errors"
	"testing"

	"github.com/wray-project/wray/host/access"
	"github.com/wray-project/wray/host/control"
)

// stopping is a store of which only so many commits more are done.
type stopping struct {
	control.Store
	left int
}

var errStopped = errors.New("the store is away")

func (s *stopping) Commit(ctx context.Context, txn control.Txn) (control.Revision, error) {
	if s.left--; s.left < 0 {
		return 0, errStopped
	}
	return s.Store.Commit(ctx, txn)
}

// TestRemoveStopped has the removal of a tenant stop after each of its commits: as
// long as people are left the tenant is there, and asking again removes all; and
// one that is made under the name has nobody of them.
func TestRemoveStopped(t *testing.T) {
	ctx := t.Context()
	for left := 0; ; left++ {
		store := control.NewMemory(control.MemoryOptions{})
		defer store.Close()
		tenants, users, tokens := control.Tenants(store), access.Users(store), access.Tokens(store)
		if _, err := tenants.Create(ctx, "a", "a", control.Tenant{Created: 1}); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"x", "y"} {
			if _, err := users.Create(ctx, "a", name, access.UserRecord{}); err != nil {
				t.Fatal(err)
			}
			if _, err := tokens.Create(ctx, "a", name, access.TokenRecord{}); err != nil {
				t.Fatal(err)
			}
		}
		people := func() (n int) {
			for _, err := range users.All(ctx, "a") {
				if n++; err != nil {
					t.Fatal(err)
				}
			}
			for _, err := range tokens.All(ctx, "a") {
				if n++; err != nil {
					t.Fatal(err)
				}
			}
			return n
		}
		err := endTenant(ctx, &stopping{store, left}, "a")
		if err == nil {
			if n := people(); n > 0 {
				t.Errorf("%d of its people are left", n)
			}
			break
		}
		e, gerr := tenants.Get(ctx, "a", "a")
		switch {
		case !errors.Is(err, errStopped):
			t.Fatalf("after %d commits: %v", left, err)
		case people() > 0 && gerr != nil, gerr == nil && left > 0 && !e.Value.Disabled:
			t.Errorf("after %d commits there are %d people, and of the tenant %+v, %v", left, people(), e.Value, gerr)
		}
		if err := endTenant(ctx, store, "a"); err != nil || people() > 0 {
			t.Errorf("asked again after %d commits: %v, %d people", left, err, people())
		}
	}
	store := control.NewMemory(control.MemoryOptions{})
	defer store.Close()
	if _, err := access.Tokens(store).Create(ctx, "a", "x", access.TokenRecord{}); err != nil {
		t.Fatal(err)
	}
	if _, err := createTenant(ctx, store, "a", control.Tenant{Created: 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := access.Tokens(store).Get(ctx, "a", "x"); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("a tenant that is made has another's token: %v", err)
	}
}
