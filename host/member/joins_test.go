package member_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/wray-project/wray/host/access"
	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/member"
)

// TestJoinsAreTold: a head tells whom it lets in and whom not, and lets nobody in
// where that cannot be recorded.
func TestJoinsAreTold(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	var told []string
	var ready error
	c := w.config("head", t.TempDir())
	c.OpenControl = func(context.Context, string, control.Port) (control.Store, error) { return kept{w.store}, nil }
	c.Decided = func(_ context.Context, p access.Principal, a access.Action, object string, err error) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, fmt.Sprintf("%v %s %s %v, by a token: %v", p, a, object, err == nil, p.Token != ""))
	}
	c.Ready = func() error {
		mu.Lock()
		defer mu.Unlock()
		return ready
	}
	head := w.start(c)
	a := w.config("a", t.TempDir())
	a.Join, a.Token = head.Self().Addr, w.token(head)
	w.start(a)
	b := w.config("b", t.TempDir())
	b.Join, b.Token = a.Join, a.Token // which is used
	if _, err := member.Start(w.ctx(), b); !errors.Is(err, auth.ErrTokenUsed) {
		t.Fatal(err)
	}
	mu.Lock()
	want := []string{`joiner node.join node "a" true, by a token: true`, `joiner node.join node "b" false, by a token: true`}
	if !slices.Equal(told, want) {
		t.Errorf("told of %q, want %q", told, want)
	}
	ready = errors.New("the disk is full")
	mu.Unlock()
	b.Token = w.token(head)
	if m, err := member.Start(w.ctx(), b); err == nil {
		m.Close()
		t.Error("one joins that is not recorded")
	}
	mu.Lock()
	if ready = nil; len(told) != 2 {
		t.Errorf("told of %q", told)
	}
	mu.Unlock()
	w.start(b) // whose token was not spent
}

// TestHeadsAreTold: a head tells which node it lets be one, and which not.
func TestHeadsAreTold(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	var told []string
	open := func(context.Context, string, control.Port) (control.Store, error) {
		return quorum{kept: kept{w.store}}, nil
	}
	c := w.config("head", t.TempDir())
	c.OpenControl = open
	c.Decided = func(_ context.Context, p access.Principal, a access.Action, _ string, err error) {
		mu.Lock()
		defer mu.Unlock()
		if a == access.NodeHead {
			told = append(told, fmt.Sprint(p, " ", err == nil))
		}
	}
	head := w.start(c)
	for name, may := range map[string]bool{"a": false, "b": true} {
		tok, err := head.NewToken(w.ctx(), auth.TokenOptions{Head: may})
		if err != nil {
			t.Fatal(err)
		}
		c := w.config(name, t.TempDir())
		c.Join, c.Token, c.OpenControl = head.Self().Addr, tok.Reveal(), open
		c.ControlKept = func(string) bool { return false }
		m, err := member.Start(w.ctx(), c)
		if (err == nil) != may {
			t.Errorf("node %s is to be a head: %v", name, err)
		}
		if m != nil {
			m.Close()
		}
	}
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(told)
	if want := []string{"node a false", "node b true"}; !slices.Equal(told, want) {
		t.Errorf("told of %q, want %q", told, want)
	}
}
