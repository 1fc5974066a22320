package rpc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/access"
	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/control"
)

// TestKnown: nobody has more connections than are his, nor keeps others from the
// few that they are sure of, and those that are closed count no more.
func TestKnown(t *testing.T) {
	c := newKnown(6, 3, 1)
	enter := func(whose string, refused string) {
		t.Helper()
		var e *wray.Error
		err := c.enter(whose)
		if refused == "" && err != nil || refused != "" && (!errors.As(err, &e) || e.Limit == nil || !strings.HasPrefix(e.Limit.Name, refused)) {
			t.Errorf("%s: %v, want %q", whose, err, refused)
		}
	}
	for _, whose := range []string{"a", "b"} {
		for range 3 {
			enter(whose, "")
		}
		enter(whose, "connections of "+whose)
	}
	enter("c", "")
	enter("c", "connections of people")
	enter("d", "")
	for range 3 {
		c.leave("a")
	}
	enter("c", "")
	c.leave("c")
	c.leave("c")
	c.leave("d")
	for range 3 {
		c.leave("b")
	}
	if len(c.count) != 0 || c.all != 0 {
		t.Errorf("when all have left there are %d, %v", c.all, c.count)
	}
	// One that shows many tokens is one, and leaves once.
	left := 0
	b := &visit{all: c, stranger: func() { left++ }}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := b.vouch(fmt.Sprint("t", i%2)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if c.all != 1 || left != 1 {
		t.Errorf("a connection counts as %d, and left the gate %d times", c.all, left)
	}
	b.leave()
	b.leave()
	if err := b.vouch("late"); err != nil || c.all != 0 {
		t.Errorf("one that is closed: %v, and %d are there", err, c.all)
	}
}

// TestManyConnections has a tenant's people open many connections, over gRPC and
// HTTP: those beyond what is theirs are refused, and others come in.
func TestManyConnections(t *testing.T) {
	ctx := t.Context()
	store := control.NewMemory(control.MemoryOptions{})
	t.Cleanup(func() { store.Close() })
	check := access.NewChecker(store, access.CheckerOptions{})
	t.Cleanup(func() { check.Close() })
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/jobs", func(http.ResponseWriter, *http.Request) {})
	w := newWorld(t, Options{Jobs: &fakeJobs{}, HTTP: mux, Access: check})
	w.srv.known.mu.Lock()
	w.srv.known.each = 2
	w.srv.known.mu.Unlock()
	pin := w.auth.Trust.Pin()
	p := &access.People{Store: store, Pin: &pin}
	if _, err := control.Tenants(store).Create(ctx, "acme", "acme", control.Tenant{}); err != nil {
		t.Fatal(err)
	}
	token := func(tenant, user string) access.Secret {
		t.Helper()
		err := p.AddUser(ctx, tenant, user, access.Viewer, false, "")
		s, _, terr := p.NewToken(ctx, tenant, user, access.TokenOptions{})
		if err := errors.Join(err, terr); err != nil {
			t.Fatal(err)
		}
		awaitToken(t, check, s)
		return s
	}
	loud, other, home := token("acme", "loud"), token("acme", "other"), token(access.Home, "ann")
	comes := func(s access.Secret) (*Client, error) {
		c, err := NewUser(s, w.addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		_, err = c.Jobs(ctx)
		return c, err
	}
	one, err := comes(loud)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := comes(loud); err != nil {
		t.Fatal(err)
	}
	for _, s := range []access.Secret{loud, other} { // who is of the same tenant
		if _, err := comes(s); !errors.Is(err, wray.ErrLimitExceeded) || !strings.Contains(err.Error(), "tenant acme") {
			t.Errorf("one connection more: %v", err)
		}
	}
	get := func(s access.Secret) int {
		t.Helper()
		tr := &http.Transport{TLSClientConfig: auth.PeopleConfig(pin, protoHTTP, nil)}
		defer tr.CloseIdleConnections()
		req, err := http.NewRequestWithContext(ctx, "GET", "https://"+w.addr()+"/v1/jobs", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+s.Reveal())
		r, err := (&http.Client{Transport: tr}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		return r.StatusCode
	}
	if code := get(loud); code != http.StatusTooManyRequests {
		t.Errorf("one more over HTTP: %d", code)
	}
	if _, err := comes(home); err != nil {
		t.Errorf("another tenant: %v", err)
	}
	one.Close()
	for late := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) { // the server hears of it when it does
		if code := get(other); code == http.StatusOK {
			break
		} else if time.Now().After(late) {
			t.Fatalf("after one was closed: %d", code)
		}
	}
}
