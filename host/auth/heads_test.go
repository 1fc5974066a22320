package auth

import (
	"context"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// let joins a node with a token.
func (c *cluster) let(dir, name string, o TokenOptions) *Credentials {
	c.t.Helper()
	e, err := Enroll(dir, "", name)
	if err != nil {
		c.t.Fatal(err)
	}
	g, err := c.reg.Join(context.Background(), c.token(o), e.Request)
	if err != nil {
		c.t.Fatal(err)
	}
	cred, err := e.Finish(g, c.auth.Trust, c.now())
	if err != nil {
		c.t.Fatal(err)
	}
	return cred
}

// Only who was let in by a token for heads may be one: as long as it is not
// dismissed, revoked, or replaced.
func TestMayHead(t *testing.T) {
	ctx := context.Background()
	c := newTestCluster(t)
	plain, head := c.node("plain"), c.let(t.TempDir(), "head", TokenOptions{Head: true})
	wants(t, c.reg.MayHead(ctx, c.identity(plain)), ErrNotHead)
	wants(t, c.reg.MayHead(ctx, Identity{Name: "nobody"}), ErrNotHead)
	id := c.identity(head)
	wants(t, c.reg.MayHead(ctx, id), nil)
	// Another certificate in its name is not its.
	forged := id
	forged.Serial = c.identity(plain).Serial
	wants(t, c.reg.MayHead(ctx, forged), ErrNotHead)
	// What it renews is, and it stays a head.
	if err := head.Renew(ctx, c.now(), func(ctx context.Context, csr []byte) (Grant, error) { return c.reg.Renew(ctx, id, csr) }); err != nil {
		t.Fatal(err)
	}
	wants(t, c.reg.MayHead(ctx, c.identity(head)), nil)
	wants(t, c.reg.Dismiss(ctx, "head"), nil)
	wants(t, c.reg.MayHead(ctx, c.identity(head)), ErrNotHead)
	// A machine that takes the name over with a token for nodes is a node.
	second := c.let(t.TempDir(), "second", TokenOptions{Head: true})
	wants(t, c.reg.MayHead(ctx, c.identity(second)), nil)
	again := c.let(t.TempDir(), "second", TokenOptions{Name: "second"})
	wants(t, c.reg.MayHead(ctx, c.identity(again)), ErrNotHead)
	third := c.let(t.TempDir(), "third", TokenOptions{Head: true})
	wants(t, c.reg.Revoke(ctx, "third", "test"), nil)
	wants(t, c.reg.MayHead(ctx, c.identity(third)), ErrNotHead)
}

// Of two heads that go at the same time one stays.
func TestDismissBeside(t *testing.T) {
	ctx := context.Background()
	c := newTestCluster(t)
	for _, name := range []string{"a", "b"} {
		c.let(t.TempDir(), name, TokenOptions{Head: true})
	}
	wants(t, c.reg.DismissBeside(ctx, "a", nil), ErrLastHead)
	wants(t, c.reg.DismissBeside(ctx, "a", []string{"a", "nobody"}), ErrLastHead)
	errs := make([]error, 2)
	var wg sync.WaitGroup
	for i, name := range []string{"a", "b"} {
		wg.Go(func() { errs[i] = c.reg.DismissBeside(ctx, name, []string{"a", "b"}) })
	}
	wg.Wait()
	left := 0
	for i, name := range []string{"a", "b"} {
		is, err := c.reg.IsHead(ctx, name)
		if err != nil || is != errors.Is(errs[i], ErrLastHead) || !is && errs[i] != nil {
			t.Errorf("%s: %v, and is a head: %v, %v", name, errs[i], is, err)
		}
		if is {
			left++
			wants(t, c.reg.DismissBeside(ctx, name, []string{"a", "b"}), ErrLastHead)
		}
	}
	if left != 1 {
		t.Errorf("%d heads are left", left)
	}
}

// The authority is kept by who is given it, for its owner alone, and nothing
// else takes its place.
func TestImportAuthority(t *testing.T) {
	c, other := newTestCluster(t), newTestCluster(t)
	b, err := c.auth.Export()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for range 2 { // again, as after a crash
		a, err := ImportAuthority(dir, b, c.auth.Trust)
		if err != nil {
			t.Fatal(err)
		}
		if a.Pin() != c.auth.Pin() {
			t.Error("another authority came")
		}
	}
	info, err := os.Stat(filepath.Join(dir, AuthorityFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the authority is kept as %v, %v", info, err)
	}
	_, err = ImportAuthority(t.TempDir(), b, other.auth.Trust)
	wants(t, err, ErrPin)
	_, err = ImportAuthority(t.TempDir(), b[:len(b)/2], c.auth.Trust)
	wants(t, err, ErrIdentity)
	theirs, err := other.auth.Export()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ImportAuthority(dir, theirs, other.auth.Trust); err == nil {
		t.Error("the authority of another cluster took the place of this one's")
	}
}

// Heads know each other by certificates of their own: those of nodes, of heads
// that speak to machines that join, and of other clusters are not let in, and
// theirs are good for nothing else.
func TestHeadKeys(t *testing.T) {
	c, other := newTestCluster(t), newTestCluster(t)
	dir := t.TempDir()
	one, err := c.auth.HeadKeys(dir, "one", c.now)
	if err != nil {
		t.Fatal(err)
	}
	cert := func(k *HeadKeys) *tls.Certificate {
		got, err := k.Certificate()
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	keys := func(c *cluster, name string) *tls.Certificate {
		k, err := c.auth.HeadKeys(t.TempDir(), name, c.now)
		if err != nil {
			t.Fatal(err)
		}
		return cert(k)
	}
	joining, err := c.auth.HeadCertificate("two", c.now())
	if err != nil {
		t.Fatal(err)
	}
	joining.Certificate = joining.Certificate[:1]
	for what, x := range map[string]struct {
		cert *tls.Certificate
		ok   bool
	}{
		"another head":              {keys(c, "two"), true},
		"a head of another cluster": {keys(other, "two"), false},
		"a node":                    {c.node("node").Certificate(), false},
		"what joining machines see": {joining, false},
		"nothing":                   {nil, false},
	} {
		config := &tls.Config{InsecureSkipVerify: true, ServerName: HeadsName, MinVersion: tls.VersionTLS13}
		if x.cert != nil {
			config.Certificates = []tls.Certificate{*x.cert}
		}
		cc, sc, err := shake(t, config, one.ServerConfig())
		if (err == nil) != x.ok {
			t.Errorf("%s: %v", what, err)
		}
		if err == nil {
			cc.Close()
			sc.Close()
		}
	}
	_, err = c.auth.Verify(cert(one).Leaf, c.now())
	wants(t, err, ErrIdentity)
	// The file has the newest.
	first := cert(one)
	c.pass(DefaultLife/2 + time.Minute)
	second := cert(one)
	kept, err := tls.LoadX509KeyPair(one.File(), one.File())
	if err != nil {
		t.Fatal(err)
	}
	if string(first.Certificate[0]) == string(second.Certificate[0]) || string(kept.Certificate[0]) != string(second.Certificate[0]) {
		t.Error("the certificate for other heads is not renewed, or its file is not")
	}
	c.pass(DefaultLife)
	if _, err := c.auth.VerifyOfHeads(second.Leaf, c.now()); !errors.Is(err, ErrIdentity) {
		t.Errorf("an old certificate: %v", err)
	}
}

// A node whose certificate has ended comes back with its key and a token for
// nodes; with another key it needs one for its name.
func TestReenroll(t *testing.T) {
	ctx := context.Background()
	c := newTestCluster(t)
	dir := t.TempDir()
	c.let(dir, "away", TokenOptions{})
	c.pass(3 * DefaultLife)
	cred, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !cred.Expired(c.now()) {
		t.Fatal("the certificate has not ended")
	}
	e, err := cred.Reenroll()
	if err != nil {
		t.Fatal(err)
	}
	g, err := c.reg.Join(ctx, c.token(TokenOptions{}), e.Request)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = e.Finish(g, c.auth.Trust, c.now()); err != nil {
		t.Fatal(err)
	}
	if cred, err = Open(dir); err != nil || cred.Expired(c.now()) {
		t.Errorf("it is back with what has ended: %v", err)
	}
	thief, err := Enroll(t.TempDir(), c.auth.Cluster(), "away")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.reg.Join(ctx, c.token(TokenOptions{}), thief.Request)
	wants(t, err, ErrNameTaken)
}
