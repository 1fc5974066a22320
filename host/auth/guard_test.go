package auth

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/control/controltest"
)

// shake makes a TLS connection between two configurations and sends a byte each
// way; both errors come back.
func shake(t testing.TB, client, server *tls.Config) (cc, sc *tls.Conn, err error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- err
			return
		}
		sc = tls.Server(c, server)
		var b [1]byte
		if _, err = sc.Read(b[:]); err == nil {
			_, err = sc.Write(b[:])
		}
		if err != nil {
			sc.Close()
		}
		got <- err
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	cc = tls.Client(c, client)
	var b [1]byte
	if _, err = cc.Write(b[:]); err == nil {
		_, err = cc.Read(b[:])
	}
	if err != nil {
		c.Close()
	}
	t.Cleanup(func() { c.Close() })
	serr := <-got
	if sc != nil {
		t.Cleanup(func() { sc.Close() })
	}
	return cc, sc, errors.Join(err, serr)
}

func TestHandshake(t *testing.T) {
	ctx := context.Background()
	c := newTestCluster(t)
	a, b := c.node("a"), c.node("b")
	ga, gb := c.guard(a), c.guard(b)
	server := gb.ServerConfig([]string{"p", "q"}, nil, c.auth.HeadCertificates("b", c.now), "join")

	cc, sc, err := shake(t, ga.ClientConfig("b", "p"), server)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := gb.Identify(sc.ConnectionState()); err != nil || id.Name != "a" {
		t.Errorf("%v %v", id, err)
	}
	if id, err := ga.Identify(cc.ConnectionState()); err != nil || id.Name != "b" {
		t.Errorf("%v %v", id, err)
	}
	if _, _, err := shake(t, ga.ClientConfig("c", "p"), server); !errors.Is(err, ErrIdentity) {
		t.Errorf("b answered for c: %v", err)
	}
	other := newTestCluster(t)
	if _, _, err := shake(t, other.guard(other.node("a")).ClientConfig("b", "p"), server); !errors.Is(err, ErrIdentity) {
		t.Errorf("another cluster's: %v", err)
	}
	if _, _, err := shake(t, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"p"}}, server); err == nil {
		t.Error("let in without a certificate")
	}
	// A head's certificate is for those who join, and nobody else.
	head, err := c.auth.HeadCertificate("b", c.now())
	if err != nil {
		t.Fatal(err)
	}
	as := ga.ClientConfig("b", "p")
	as.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return head, nil }
	if _, _, err := shake(t, as, server); !errors.Is(err, ErrIdentity) {
		t.Errorf("let in as a head: %v", err)
	}
	for what, proto := range map[string]string{"no": "", "an unknown": "x"} {
		conf := ga.ClientConfig("b", proto)
		if proto == "" {
			conf.NextProtos = nil
		}
		if _, _, err := shake(t, conf, server); err == nil {
			t.Errorf("let in with %s protocol", what)
		}
	}

	// Joining: the pin decides.
	tok := c.token(TokenOptions{})
	var found *Trust
	if _, _, err := shake(t, JoinConfig(tok, "join", c.now, func(t *Trust) { found = t }), server); err != nil || found.Cluster() != c.auth.cluster {
		t.Errorf("%v %v", found, err)
	}
	bad := tok
	bad.Pin[5] ^= 1
	if _, _, err := shake(t, JoinConfig(bad, "join", c.now, func(*Trust) { t.Error("trusted") }), server); !errors.Is(err, ErrPin) {
		t.Errorf("wrong pin: %v", err)
	}
	if _, _, err := shake(t, JoinConfig(tok, "p", c.now, func(*Trust) { t.Error("trusted") }), server); err == nil {
		t.Error("spoke to nodes without a certificate")
	}
	// A node that is no head, and would like to see tokens.
	leaf := *a.Certificate()
	leaf.Certificate = append(leaf.Certificate[:1:1], c.auth.authority.Raw)
	liar := gb.ServerConfig([]string{"p"}, nil, func() (*tls.Certificate, error) { return &leaf, nil }, "join")
	if _, _, err := shake(t, JoinConfig(tok, "join", c.now, func(*Trust) { t.Error("trusted") }), liar); !errors.Is(err, ErrIdentity) {
		t.Errorf("a node took a token: %v", err)
	}

	// Expiry.
	c.pass(DefaultLife)
	if _, _, err := shake(t, ga.ClientConfig("b", "p"), server); !errors.Is(err, ErrIdentity) {
		t.Errorf("expired: %v", err)
	}
	c.pass(-DefaultLife)

	// Revocation: open connections end, new ones are refused, renewal too.
	release, err := gb.Admit(c.identity(a), sc)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	who := c.identity(a)
	if err := c.reg.Revoke(ctx, "a", "stolen"); err != nil {
		t.Fatal(err)
	}
	if _, err := cc.Read(make([]byte, 1)); err == nil {
		t.Error("an open connection went on")
	}
	// The Admit above has ended, so that gb has seen the record.
	if _, _, err := shake(t, ga.ClientConfig("b", "p"), server); !errors.Is(err, ErrRevoked) {
		t.Errorf("revoked: %v", err)
	}
	if _, err := gb.Admit(who, sc); !errors.Is(err, ErrRevoked) {
		t.Errorf("admitted: %v", err)
	}
	req, err := NewRequest(newKey(t), c.auth.cluster, "a")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.reg.Renew(ctx, who, req)
	wants(t, err, ErrRevoked)
	// It comes back by a token for its name, with a key that is new.
	if _, err := c.reg.Join(ctx, c.token(TokenOptions{Name: "a"}), csrOf(t, newKey(t), "a")); err != nil {
		t.Error(err)
	}
	_, err = c.reg.Renew(ctx, who, req)
	wants(t, err, ErrRevoked)
}

// TestRotation holds that a node in use takes its new certificate from then on,
// also after it starts again.
func TestRotation(t *testing.T) {
	c := newTestCluster(t)
	a, b := c.node("a"), c.node("b")
	ga, gb := c.guard(a), c.guard(b)
	server := gb.ServerConfig([]string{"p"}, nil, nil, "")
	client := ga.ClientConfig("b", "p")
	old := a.Certificate().Leaf
	for i := range 40 {
		d := a.RenewAt().Sub(c.now())
		if d <= 0 || d > DefaultLife*2/3 {
			t.Fatalf("renew in %v", d)
		}
		c.pass(d)
		for _, cred := range []*Credentials{a, b} {
			err := cred.Renew(context.Background(), c.now(), func(ctx context.Context, csr []byte) (Grant, error) {
				return c.reg.Renew(ctx, c.identity(cred), csr)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if i%10 == 0 {
			if _, _, err := shake(t, client, server); err != nil {
				t.Fatal(i, err)
			}
		}
	}
	again, err := Open(a.dir)
	if err != nil || !again.Certificate().Leaf.Equal(a.Certificate().Leaf) || old.Equal(a.Certificate().Leaf) {
		t.Error(err)
	}
	if err := c.reg.Revoke(context.Background(), "a", ""); err != nil {
		t.Fatal(err)
	}
	c.pass(3 * DefaultLife)
	if err := c.reg.Prune(context.Background()); err != nil {
		t.Fatal(err)
	}
	for e, err := range revocations(c.store).All(context.Background(), "") {
		t.Errorf("left: %v %v", e, err)
	}
}

// TestOutage holds that with the control state away nobody is let in anew, and
// the list stays.
func TestOutage(t *testing.T) {
	c := newTestCluster(t)
	a, b := c.node("a"), c.node("b")
	link := controltest.NewLink(c.store)
	g, err := NewGuard(context.Background(), b, link, c.now)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if err := c.reg.Revoke(context.Background(), "a", ""); err != nil {
		t.Fatal(err)
	}
	who := c.identity(a)
	closed := make(chan struct{})
	if release, err := g.Admit(who, closer(func() { close(closed) })); err == nil {
		<-closed
		release()
	}
	link.Cut()
	wants(t, g.Check(who), ErrRevoked)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_, err = NewGuard(ctx, b, link, c.now)
	wants(t, err, control.ErrUnavailable)
}

type closer func()

func (c closer) Close() error { c(); return nil }
