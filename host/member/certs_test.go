package member_test

import (
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/member"
)

// A node that was away for longer than its certificate lasts is told so, and
// comes back with a token for nodes.
func TestExpired(t *testing.T) {
	w := newWorld(t)
	headDir, dir := t.TempDir(), t.TempDir()
	head := w.head(headDir)
	w.join("a", dir, head).Close()
	authority, err := auth.OpenAuthority(headDir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cred, err := auth.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	short := &auth.Registrar{Authority: authority, Store: w.store, Life: time.Second}
	leaf := cred.Certificate().Leaf
	who := auth.Identity{Cluster: head.Cluster(), Role: auth.RoleNode, Name: "a", Serial: hex.EncodeToString(leaf.SerialNumber.Bytes()), NotAfter: leaf.NotAfter}
	if err := cred.Renew(w.ctx(), time.Now(), func(ctx context.Context, csr []byte) (auth.Grant, error) { return short.Renew(ctx, who, csr) }); err != nil {
		t.Fatal(err)
	}
	for !cred.Expired(time.Now()) {
		time.Sleep(time.Until(cred.Certificate().Leaf.NotAfter))
	}
	if m, err := member.Start(w.ctx(), w.config("a", dir)); !errors.Is(err, auth.ErrExpired) || !errors.Is(err, member.ErrTokenNeeded) {
		if err == nil {
			m.Close()
		}
		t.Errorf("a node whose certificate has ended: %v", err)
	}
	w.join("a", dir, head)
	w.await(head, map[string]string{"a": "2 alive"})
}

// A node that is revoked is cut off, is told that nobody knows it when it tries
// again, and comes back with a token for its name alone.
func TestRevoked(t *testing.T) {
	w := newWorld(t)
	w.ttl = 2 * time.Second
	head := w.head(t.TempDir())
	dir := t.TempDir()
	a := w.join("a", dir, head)
	b := w.join("b", t.TempDir(), head)
	w.await(b, map[string]string{"a": "1 alive", "head": "1 alive"})
	if err := a.Revoke(w.ctx(), "b", "no"); !errors.Is(err, member.ErrNoHead) && (err == nil || !strings.Contains(err.Error(), "no head")) {
		t.Errorf("a node revokes another: %v", err)
	}
	if err := head.Revoke(w.ctx(), "a", "it was stolen"); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*member.Member{head, b} {
		w.await(m, map[string]string{"a": "1 dead", "head": "1 alive", "b": "1 alive"})
	}
	a.Close()
	ctx, cancel := context.WithTimeout(w.ctx(), 20*time.Second)
	defer cancel()
	m, err := member.Start(ctx, w.config("a", dir))
	if err == nil {
		m.Close()
		t.Fatal("a node that was revoked is back")
	}
	if !strings.Contains(err.Error(), "was it revoked?") {
		t.Errorf("a node that was revoked is told: %v", err)
	}
	c := w.config("a", t.TempDir())
	c.Join, c.Token = head.Self().Addr, w.token(head)
	if m, err := member.Start(w.ctx(), c); !errors.Is(err, auth.ErrNameTaken) {
		if err == nil {
			m.Close()
		}
		t.Errorf("the name of a node that was revoked: %v", err)
	}
	tok, err := head.NewToken(w.ctx(), auth.TokenOptions{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	c.Token = tok.Reveal()
	w.start(c)
	w.await(head, map[string]string{"a": "2 alive"})
}
