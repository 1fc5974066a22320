package auth

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wray-project/wray/host/control"
)

// cluster is an authority, its state, and a clock.
type cluster struct {
	t     testing.TB
	store control.Store
	auth  *Authority
	reg   *Registrar
	time  time.Time
	mu    sync.Mutex
}

func newTestCluster(t testing.TB) *cluster {
	c := &cluster{t: t, store: control.NewMemory(control.MemoryOptions{}), time: time.Now()}
	t.Cleanup(func() { c.store.Close() })
	var err error
	if c.auth, err = OpenAuthority(t.TempDir(), c.now()); err != nil {
		t.Fatal(err)
	}
	c.reg = &Registrar{Authority: c.auth, Store: c.store, Now: c.now}
	return c
}

func (c *cluster) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.time
}

func (c *cluster) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.time = c.time.Add(d)
}

func (c *cluster) token(o TokenOptions) Token {
	c.t.Helper()
	t, err := c.reg.NewToken(context.Background(), o)
	if err != nil {
		c.t.Fatal(err)
	}
	// As it is carried.
	if t, err = ParseToken(t.Reveal()); err != nil {
		c.t.Fatal(err)
	}
	return t
}

// node joins one, in a directory of its own.
func (c *cluster) node(name string) *Credentials {
	c.t.Helper()
	e, err := Enroll(c.t.TempDir(), "", name)
	if err != nil {
		c.t.Fatal(err)
	}
	g, err := c.reg.Join(context.Background(), c.token(TokenOptions{}), e.Request)
	if err != nil {
		c.t.Fatal(err)
	}
	cred, err := e.Finish(g, c.auth.Trust, c.now())
	if err != nil {
		c.t.Fatal(err)
	}
	return cred
}

func (c *cluster) identity(cred *Credentials) Identity {
	c.t.Helper()
	id, err := c.auth.Verify(cred.Certificate().Leaf, c.now())
	if err != nil {
		c.t.Fatal(err)
	}
	return id
}

func (c *cluster) guard(cred *Credentials) *Guard {
	c.t.Helper()
	g, err := NewGuard(context.Background(), cred, c.store, c.now)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { g.Close() })
	return g
}

func newKey(t testing.TB) crypto.Signer {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func csrOf(t testing.TB, key crypto.Signer, name string) []byte {
	b, err := NewRequest(key, "", name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func wants(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func TestTokens(t *testing.T) {
	ctx := context.Background()
	c := newTestCluster(t)
	join := func(tok Token, name string) error {
		_, err := c.reg.Join(ctx, tok, csrOf(t, newKey(t), name))
		return err
	}

	once := c.token(TokenOptions{})
	wants(t, join(once, "a"), nil)
	wants(t, join(once, "b"), ErrTokenUsed)
	twice := c.token(TokenOptions{Uses: 2})
	wants(t, join(twice, "c"), nil)
	wants(t, join(twice, "d"), nil)
	wants(t, join(twice, "e"), ErrTokenUsed)

	short := c.token(TokenOptions{Life: time.Minute})
	c.pass(time.Minute - time.Millisecond)
	wants(t, join(short, "f"), nil)
	short = c.token(TokenOptions{Life: time.Minute})
	c.pass(time.Minute)
	wants(t, join(short, "g"), ErrTokenExpired)

	named := c.token(TokenOptions{Name: "h"})
	wants(t, join(named, "i"), ErrToken)
	wants(t, join(named, "h"), nil)

	// Made up, of another cluster, withdrawn: one and the same error.
	forged := c.token(TokenOptions{})
	forged.Secret[3] ^= 1
	absent := c.token(TokenOptions{})
	absent.ID[3] ^= 1
	gone := c.token(TokenOptions{})
	if err := c.reg.Withdraw(ctx, gone.ID); err != nil {
		t.Fatal(err)
	}
	texts := map[string]bool{}
	for _, tok := range []Token{forged, absent, gone, newTestCluster(t).token(TokenOptions{})} {
		err := join(tok, "j")
		wants(t, err, ErrToken)
		texts[err.Error()] = true
	}
	if len(texts) != 1 {
		t.Errorf("the error tells which tokens there are: %v", texts)
	}
	// Names are not given twice.
	wants(t, join(c.token(TokenOptions{}), "a"), ErrNameTaken)
}

// TestTokenAtRest holds that the state does not have a token's secret, nor what
// prints a Token its.
func TestTokenAtRest(t *testing.T) {
	c := newTestCluster(t)
	tok := c.token(TokenOptions{})
	p, err := c.store.List(context.Background(), control.ListRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range p.Records {
		if strings.Contains(string(r.Value), string(tok.Secret[:])) {
			t.Errorf("%s has the secret", r.Key)
		}
	}
	for _, s := range []string{tok.String(), fmt.Sprintf("%v %+v %#v %s", tok, tok, tok, &tok)} {
		if strings.Contains(s, fmt.Sprintf("%x", tok.Secret)) || strings.Contains(s, fmt.Sprint(tok.Secret[:])) || strings.Contains(s, tok.Reveal()[20:40]) {
			t.Errorf("printed with its secret: %s", s)
		}
	}
}

func TestParseToken(t *testing.T) {
	c := newTestCluster(t)
	s := c.token(TokenOptions{}).Reveal()
	for i := range len(s) {
		b := []byte(s)
		if b[i] == 'q' {
			b[i] = 'p'
		} else {
			b[i] = 'q'
		}
		if _, err := ParseToken(string(b)); !errors.Is(err, ErrToken) {
			t.Fatalf("a letter wrong at %d of %s: %v", i, s, err)
		}
	}
	for _, bad := range []string{"", "wray1", s + "a", s[:len(s)-1], strings.ToUpper(s)} {
		if _, err := ParseToken(bad); !errors.Is(err, ErrToken) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// together has the first reads of a token wait for each other, so that all who
// race for it have seen the same.
type together struct {
	control.Store
	all sync.WaitGroup
}

type onceKey struct{}

func (s *together) Get(ctx context.Context, key string) (control.Record, error) {
	r, err := s.Store.Get(ctx, key)
	if strings.HasPrefix(key, KindToken) {
		ctx.Value(onceKey{}).(*sync.Once).Do(func() {
			s.all.Done()
			s.all.Wait()
		})
	}
	return r, err
}

// TestLastUse has heads race for the last uses of a token: no more get in than
// it is good for.
func TestLastUse(t *testing.T) {
	c := newTestCluster(t)
	const heads, uses = 8, 3
	tok := c.token(TokenOptions{Uses: uses})
	var wg sync.WaitGroup
	errs := make([]error, heads)
	store := &together{Store: c.store}
	store.all.Add(heads)
	for i := range heads {
		wg.Add(1)
		go func() {
			defer wg.Done()
			reg := &Registrar{Authority: c.auth, Store: store, Now: c.now}
			ctx := context.WithValue(context.Background(), onceKey{}, new(sync.Once))
			_, errs[i] = reg.Join(ctx, tok, csrOf(t, newKey(t), fmt.Sprint("n", i)))
		}()
	}
	wg.Wait()
	in := 0
	for _, err := range errs {
		if err == nil {
			in++
		} else {
			wants(t, err, ErrTokenUsed)
		}
	}
	if in != uses {
		t.Errorf("%d joined with a token for %d", in, uses)
	}
}

// lossy forgets the reply of each other commit.
type lossy struct {
	control.Store
	n int
}

func (l *lossy) Commit(ctx context.Context, txn control.Txn) (control.Revision, error) {
	rev, err := l.Store.Commit(ctx, txn)
	if l.n++; l.n%2 == 1 && err == nil {
		return 0, control.Unavailable("commit", nil)
	}
	return rev, err
}

// TestRepeated holds that each request may be made again after a lost reply.
func TestRepeated(t *testing.T) {
	ctx := context.Background()
	c := newTestCluster(t)
	tok := c.token(TokenOptions{Life: 7 * 24 * time.Hour})
	c.reg.Store = &lossy{Store: c.store}
	dir := t.TempDir()
	e, err := Enroll(dir, "", "a")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.reg.Join(ctx, tok, e.Request)
	wants(t, err, control.ErrUnavailable)
	// The node starts anew, and has its key yet.
	if e, err = Enroll(dir, "", "a"); err != nil {
		t.Fatal(err)
	}
	g1, err := c.reg.Join(ctx, tok, e.Request)
	wants(t, err, nil)
	g2, err := c.reg.Join(ctx, tok, e.Request)
	wants(t, err, nil)
	if string(g1.Certificate) != string(g2.Certificate) {
		t.Error("the same request gave two certificates")
	}
	cred, err := e.Finish(g2, c.auth.Trust, c.now())
	if err != nil {
		t.Fatal(err)
	}
	renew := func(ctx context.Context, csr []byte) (Grant, error) {
		return c.reg.Renew(ctx, c.identity(cred), csr)
	}
	c.reg.Store = &lossy{Store: c.store}
	c.pass(DefaultLife / 2)
	wants(t, cred.Renew(ctx, c.now(), renew), control.ErrUnavailable)
	wants(t, cred.Renew(ctx, c.now(), renew), nil)
	c.reg.Store = &lossy{Store: c.store}
	wants(t, c.reg.Revoke(ctx, "a", "test"), control.ErrUnavailable)
	wants(t, c.reg.Revoke(ctx, "a", "test"), nil)
	// A token that let it in does so no more, whoever has it.
	_, err = c.reg.Join(ctx, tok, e.Request)
	wants(t, err, ErrNameTaken)
}

func TestForgedRequests(t *testing.T) {
	ctx := context.Background()
	c := newTestCluster(t)
	a := c.node("a")
	key := newKey(t)
	uri := func(s string) []*url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return []*url.URL{u}
	}
	good := uri("spiffe://" + c.auth.cluster + "/node/b")
	csr := func(key crypto.Signer, r x509.CertificateRequest) []byte {
		b, err := x509.CreateCertificateRequest(rand.Reader, &r, key)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	broken := csr(key, x509.CertificateRequest{URIs: good})
	broken[len(broken)-1] ^= 1
	for what, b := range map[string][]byte{
		"empty":               nil,
		"no name":             csr(key, x509.CertificateRequest{}),
		"a head":              csr(key, x509.CertificateRequest{URIs: uri("spiffe://" + c.auth.cluster + "/head/b")}),
		"another cluster":     csr(key, x509.CertificateRequest{URIs: uri("spiffe://elsewhere/node/b")}),
		"two names":           csr(key, x509.CertificateRequest{URIs: append(good, uri("spiffe://"+c.auth.cluster+"/node/c")...)}),
		"a host name":         csr(key, x509.CertificateRequest{URIs: good, DNSNames: []string{"b"}}),
		"an address":          csr(key, x509.CertificateRequest{URIs: good, IPAddresses: []net.IP{{127, 0, 0, 1}}}),
		"a subject":           csr(key, x509.CertificateRequest{URIs: good, Subject: pkix.Name{CommonName: "a"}}),
		"an extension":        csr(key, x509.CertificateRequest{URIs: good, ExtraExtensions: []pkix.Extension{{Id: []int{2, 5, 29, 19}, Value: []byte{0x30, 3, 1, 1, 0xff}}}}),
		"a path":              csr(key, x509.CertificateRequest{URIs: uri("spiffe://" + c.auth.cluster + "/node/b/../a")}),
		"a port":              csr(key, x509.CertificateRequest{URIs: uri("spiffe://" + c.auth.cluster + ":1/node/b")}),
		"a query":             csr(key, x509.CertificateRequest{URIs: uri("spiffe://" + c.auth.cluster + "/node/b?a")}),
		"escaped letters":     csr(key, x509.CertificateRequest{URIs: uri("spiffe://" + c.auth.cluster + "/node/%62")}),
		"an RSA key":          csr(rsaKey, x509.CertificateRequest{URIs: good}),
		"another's signature": broken,
	} {
		_, err := c.reg.Join(ctx, c.token(TokenOptions{}), b)
		if !errors.Is(err, ErrRequest) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := c.reg.Renew(ctx, c.identity(a), b); !errors.Is(err, ErrRequest) {
			t.Errorf("renewal of %s: %v", what, err)
		}
	}
	// Somebody else's name, and what another sent, again.
	b := c.node("b")
	other, err := NewRequest(newKey(t), c.auth.cluster, "b")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.reg.Renew(ctx, c.identity(a), other)
	wants(t, err, ErrRequest)
	_, err = c.reg.Renew(ctx, c.identity(b), other)
	wants(t, err, nil)
	// A node that takes what it is given is not given another's name.
	e, err := Enroll(t.TempDir(), "", "c")
	if err != nil {
		t.Fatal(err)
	}
	for what, g := range map[string]*x509.Certificate{"another's certificate": a.Certificate().Leaf, "the authority's": c.auth.authority} {
		if _, err := e.Finish(Grant{Certificate: g.Raw}, c.auth.Trust, c.now()); !errors.Is(err, ErrIdentity) {
			t.Errorf("%s: %v", what, err)
		}
	}
	wrong, err := c.auth.issue(RoleNode, "a", e.key.Public(), c.now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.Finish(Grant{Certificate: wrong.Raw}, c.auth.Trust, c.now())
	wants(t, err, ErrIdentity)
}

// TestFiles holds what is made of files that were exchanged, opened, or lost.
func TestFiles(t *testing.T) {
	c := newTestCluster(t)
	a, b := c.node("a"), c.node("b")
	again, err := Open(a.dir)
	if err != nil || again.Name() != "a" {
		t.Fatal(again, err)
	}
	path := filepath.Join(a.dir, NodeFile)
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if _, err := Enroll(a.dir, "", "a"); err == nil {
		t.Error("joined twice")
	}
	// a's certificate with b's key.
	mixed, err := encodePEM(b.Certificate().PrivateKey.(crypto.Signer), a.Certificate().Leaf)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, mixed, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(a.dir); err == nil || !strings.Contains(err.Error(), "exchanged") {
		t.Errorf("an exchanged key: %v", err)
	}
	// A node of this cluster with the authority of another.
	ca, err := encodePEM(nil, newTestCluster(t).auth.authority)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, ClusterFile), ca, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(b.dir)
	wants(t, err, ErrIdentity)

	d := c.node("d")
	if err := os.Chmod(filepath.Join(d.dir, NodeFile), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(d.dir); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key others can read: %v", err)
	}
	_, err = Open(t.TempDir())
	wants(t, err, ErrNotJoined)

	// Many that make the authority at once have one.
	dir := t.TempDir()
	pins := make(chan [32]byte)
	for range 8 {
		go func() {
			a, err := OpenAuthority(dir, c.now())
			if err != nil {
				t.Error(err)
				pins <- [32]byte{}
				return
			}
			pins <- a.Pin()
		}()
	}
	first := <-pins
	for range 7 {
		if p := <-pins; p != first {
			t.Error("two authorities in one directory")
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("%v left, %v", left, err)
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add(csrOf(f, newKey(f), "a"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRequest(b)
		if err == nil && CheckName(r.name) != nil {
			t.Errorf("name %q", r.name)
		}
	})
}

func FuzzParseToken(f *testing.F) {
	f.Add(Token{}.Reveal())
	f.Fuzz(func(t *testing.T, s string) {
		if tok, err := ParseToken(s); err == nil && tok.Reveal() != strings.TrimSpace(s) {
			t.Errorf("%q and %q are one token", s, tok.Reveal())
		}
	})
}

func FuzzDecodePEM(f *testing.F) {
	b, err := encodePEM(newKey(f), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) { decodePEM(b) })
}
