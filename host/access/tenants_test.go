package access

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/control"
)

// between is a store that does something just before its next commit.
type between struct {
	control.Store
	then func()
}

func (b *between) Commit(ctx context.Context, txn control.Txn) (control.Revision, error) {
	if then := b.then; then != nil {
		b.then = nil
		then()
	}
	return b.Store.Commit(ctx, txn)
}

func (w *world) tenant(name string) control.Entry[control.Tenant] {
	w.t.Helper()
	e, err := control.Tenants(w.store).Create(context.Background(), name, name, control.Tenant{})
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

func (w *world) removeTenant(name string) {
	w.t.Helper()
	ctx := context.Background()
	e, err := control.Tenants(w.store).Get(ctx, name, name)
	if err == nil {
		err = control.Tenants(w.store).Delete(ctx, e)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) changeTenant(name string, f func(*control.Tenant)) {
	w.t.Helper()
	if _, err := control.Tenants(w.store).Modify(context.Background(), name, name, func(r *control.Tenant) error { f(r); return nil }); err != nil {
		w.t.Fatal(err)
	}
}

// TestMadeMeanwhile: a tenant that is removed while somebody is made of it has
// nobody then; one that is changed has whom it was given.
func TestMadeMeanwhile(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		what string
		make func(p *People) error
		left int // records of the tenant's people when it is removed meanwhile
	}{
		{"a user", func(p *People) error { return p.AddUser(ctx, "acme", "ann", Developer, false, "") }, 1},
		{"a token", func(p *People) error { _, _, err := p.NewToken(ctx, "acme", "bob", TokenOptions{}); return err }, 1},
	} {
		t.Run(c.what, func(t *testing.T) {
			w := newWorld(t, nil)
			count := func() (n int) {
				users, err := w.p.ListUsers(ctx, "acme")
				tokens, err2 := w.p.ListTokens(ctx, "acme")
				if err := errors.Join(err, err2); err != nil {
					t.Fatal(err)
				}
				return len(users) + len(tokens)
			}
			w.tenant("acme")
			w.user("acme", "bob", Developer)
			p := &People{Store: &between{w.store, func() { w.removeTenant("acme") }}}
			if err := c.make(p); !errors.Is(err, wray.ErrBadArgument) || count() != c.left {
				t.Errorf("of a tenant that is removed: %v, and %d of its people are there", err, count())
			}
			w.tenant("acme")
			p.Store.(*between).then = func() { w.changeTenant("acme", func(r *control.Tenant) { r.Weight = 2 }) }
			if err := c.make(p); err != nil || count() != c.left+1 {
				t.Errorf("of a tenant that is changed: %v, and %d of its people are there", err, count())
			}
			p.Store.(*between).then = func() { w.changeTenant("acme", func(r *control.Tenant) { r.Disabled = true }) }
			if err := w.p.RemoveUser(ctx, "acme", "ann"); err != nil && !errors.Is(err, wray.ErrBadArgument) {
				t.Fatal(err)
			}
			if err := c.make(p); !errors.Is(err, wray.ErrDenied) {
				t.Errorf("of a tenant that is disabled: %v", err)
			}
		})
	}
}

// TestTokensOfTheFirst: what is left of the people of a tenant that was removed is
// good for nothing under the next of its name, and ends with the tenant.
func TestTokensOfTheFirst(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, nil)
	w.tenant("acme")
	w.user("acme", "ann", Developer)
	old := w.token("acme", "ann", TokenOptions{})
	ann := Principal{Kind: User, Tenant: "acme", Name: "ann", Role: Developer, Token: old.ID()}
	w.await(old, ann)
	held, release := w.c.Hold(ctx, ann)
	defer release()
	w.removeTenant("acme")
	<-held.Done()
	w.await(old, Principal{})
	w.tenant("acme")
	w.user("acme", "eve", Developer)
	eve := w.token("acme", "eve", TokenOptions{})
	w.await(eve, Principal{Kind: User, Tenant: "acme", Name: "eve", Role: Developer, Token: eve.ID()})
	if p, err := w.c.Verify(old.Reveal()); !errors.Is(err, ErrUnknown) {
		t.Errorf("the second of the name takes a token of the first: %v, %v", p, err)
	}
	// A user that is left gets no token of the second that is good, either.
	left := w.token("acme", "ann", TokenOptions{})
	last := w.token("acme", "eve", TokenOptions{})
	w.await(last, Principal{Kind: User, Tenant: "acme", Name: "eve", Role: Developer, Token: last.ID()})
	if p, err := w.c.Verify(left.Reveal()); !errors.Is(err, ErrUnknown) {
		t.Errorf("a user of the first is one of the second: %v, %v", p, err)
	}
}

// TestDisabled: who is of a tenant that is disabled may do all that begins
// nothing, what he does goes on, and nobody is made of it.
func TestDisabled(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, nil)
	w.tenant("acme")
	w.user("acme", "boss", Admin)
	s := w.token("acme", "boss", TokenOptions{})
	boss := Principal{Kind: User, Tenant: "acme", Name: "boss", Role: Admin, Token: s.ID()}
	w.await(s, boss)
	held, release := w.c.Hold(ctx, boss)
	defer release()
	w.changeTenant("acme", func(r *control.Tenant) { r.Disabled = true })
	off := boss
	off.Paused = true
	w.await(s, off)
	if held.Err() != nil {
		t.Error("what goes on ends")
	}
	// These, and no others, are refused to it that were not before.
	begins := []string{"/wray.jobs.v1.Jobs/Submit", "POST /v1/jobs", "POST /v1/tokens", "POST /v1/users", "unix 16", "unix 22", "unix 61", "unix 65"}
	var refused []string
	for _, call := range Calls() {
		_, before := Decide(boss, call)
		_, err := Decide(off, call)
		if before == nil && err != nil {
			refused = append(refused, call)
			if !errors.Is(err, ErrDenied) || !errors.Is(err, wray.ErrDenied) {
				t.Errorf("%s: %v", call, err)
			}
		}
	}
	slices.Sort(refused)
	if !slices.Equal(refused, begins) {
		t.Errorf("refused are\n%q, want\n%q", refused, begins)
	}
	if _, _, err := w.p.NewToken(ctx, "acme", "boss", TokenOptions{}); !errors.Is(err, wray.ErrDenied) {
		t.Errorf("a token: %v", err)
	}
	if err := w.p.AddUser(ctx, "acme", "ann", Viewer, false, ""); !errors.Is(err, wray.ErrDenied) {
		t.Errorf("a user: %v", err)
	}
	w.changeTenant("acme", func(r *control.Tenant) { r.Disabled = false })
	w.await(s, boss)
}

// TestKeptBounded makes tokens that expire at once: what is kept of a user does not
// grow with them.
func TestKeptBounded(t *testing.T) {
	ctx := context.Background()
	clock := &hands{}
	w := newWorld(t, clock.Now)
	w.user(Home, "ann", Viewer)
	whole := w.token(Home, "ann", TokenOptions{})
	for range 2 * maxKept {
		w.token(Home, "ann", TokenOptions{Life: time.Second})
		clock.move(2 * time.Second)
	}
	list, err := w.p.ListTokens(ctx, Home)
	if err != nil || len(list) > maxKept {
		t.Errorf("%d tokens are kept, %v", len(list), err)
	}
	if p, err := w.c.Verify(whole.Reveal()); err != nil {
		t.Errorf("one that has not expired is %v, %v", p, err)
	}
	if err := w.p.Known(ctx, "nope"); !errors.Is(err, wray.ErrBadArgument) {
		t.Errorf("a tenant that there is not: %v", err)
	}
	if err := w.p.AddUser(ctx, Home, "ünï", Viewer, false, ""); err == nil || !strings.Contains(err.Error(), "'ü'") {
		t.Errorf("a name that is no ASCII: %v", err)
	}
}
