package rpc

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/wray-project/wray/host/access"
	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/internal/rpc/internal/nodepb"
	"github.com/wray-project/wray/internal/testenv"
)

// world is a cluster with a head that serves.
type world struct {
	t     testing.TB
	store control.Store
	auth  *auth.Authority
	reg   *auth.Registrar
	head  *auth.Guard
	srv   *Server
	tap   *tap
}

// tap is a listener whose connections can be cut.
type tap struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func (l *tap) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.conns = append(l.conns, c)
	}
	return c, err
}

func (l *tap) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		c.Close()
	}
	l.conns = nil
}

func newWorld(t testing.TB, o Options) *world {
	ctx := context.Background()
	w := &world{t: t, store: control.NewMemory(control.MemoryOptions{})}
	t.Cleanup(func() { w.store.Close() })
	dir := t.TempDir()
	a, err := auth.OpenAuthority(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	w.auth, w.reg = a, &auth.Registrar{Authority: a, Store: w.store}
	e, err := auth.Enroll(dir, a.Cluster(), "head")
	if err != nil {
		t.Fatal(err)
	}
	g, err := w.reg.Admit(ctx, e.Request)
	if err != nil {
		t.Fatal(err)
	}
	cred, err := e.Finish(g, a.Trust, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	w.head = w.guard(cred)
	o.Guard, o.Head, o.Log = w.head, a.HeadCertificates("head", time.Now), t.Logf
	if o.Registrar == nil {
		o.Registrar = w.reg
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.tap = &tap{Listener: l}
	w.srv = Serve(w.tap, o)
	t.Cleanup(func() { w.srv.Close() })
	return w
}

func (w *world) guard(cred *auth.Credentials) *auth.Guard {
	w.t.Helper()
	g, err := auth.NewGuard(context.Background(), cred, w.store, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { g.Close() })
	return g
}

func (w *world) addr() string { return w.srv.Addr().String() }

func (w *world) token(o auth.TokenOptions) auth.Token {
	w.t.Helper()
	t, err := w.reg.NewToken(context.Background(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	return t
}

// node joins one over the network.
func (w *world) node(name string) (*auth.Credentials, *auth.Guard) {
	w.t.Helper()
	e, err := auth.Enroll(w.t.TempDir(), "", name)
	if err != nil {
		w.t.Fatal(err)
	}
	cred, err := Join(context.Background(), w.addr(), w.token(auth.TokenOptions{}), e)
	if err != nil {
		w.t.Fatal(err)
	}
	return cred, w.guard(cred)
}

// operator makes the credential of one.
func (w *world) operator(name string) *auth.Operator {
	w.t.Helper()
	b, err := w.reg.NewOperator(context.Background(), name, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	o, err := auth.ParseOperator(b)
	if err != nil {
		w.t.Fatal(err)
	}
	return o
}

func (w *world) client(g *auth.Guard) *Client {
	w.t.Helper()
	c, err := NewClient(g, "head", w.addr())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}

func wants(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func TestJoin(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, Options{})
	a, ga := w.node("a")
	if a.Name() != "a" || a.Trust().Cluster() != w.auth.Cluster() {
		t.Error(a.Name(), a.Trust().Cluster())
	}
	if err := a.Renew(ctx, time.Now(), w.client(ga).Renew); err != nil {
		t.Error(err)
	}
	join := func(name string, tok auth.Token) error {
		e, err := auth.Enroll(t.TempDir(), "", name)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Join(ctx, w.addr(), tok, e)
		return err
	}
	tok := w.token(auth.TokenOptions{})
	wants(t, join("b", tok), nil)
	wants(t, join("c", tok), auth.ErrTokenUsed)
	wants(t, join("b", w.token(auth.TokenOptions{})), auth.ErrNameTaken)
	bad := w.token(auth.TokenOptions{})
	bad.Pin[0] ^= 1
	wants(t, join("d", bad), auth.ErrPin)
	bad.Pin[0] ^= 1
	bad.Secret[0] ^= 1
	wants(t, join("d", bad), auth.ErrToken)
	other := newWorld(t, Options{})
	wants(t, join("d", other.token(auth.TokenOptions{})), auth.ErrPin)
}

// fickle loses what a registrar is asked, or answers, has it done late, or
// twice, in turn.
type fickle struct {
	Registrar
	mu    sync.Mutex
	turn  int // guarded by mu
	tried map[string]int
}

func (f *fickle) call(what string, do func() (auth.Grant, error)) (auth.Grant, error) {
	f.mu.Lock()
	f.turn++
	turn := f.turn
	f.tried[what]++
	f.mu.Unlock()
	switch turn % 4 {
	case 1: // the request is lost
		return auth.Grant{}, control.ErrUnavailable
	case 2: // the reply is
		do()
		return auth.Grant{}, control.ErrUnavailable
	case 3: // twice, at once, and the other's reply
		other := make(chan struct{})
		go func() { defer close(other); do() }()
		g, err := do()
		<-other
		return g, err
	}
	return do()
}

func (f *fickle) Join(ctx context.Context, t auth.Token, csr []byte) (auth.Grant, error) {
	return f.call("join", func() (auth.Grant, error) { return f.Registrar.Join(ctx, t, csr) })
}

func (f *fickle) Renew(ctx context.Context, id auth.Identity, csr []byte) (auth.Grant, error) {
	return f.call("renew", func() (auth.Grant, error) { return f.Registrar.Renew(ctx, id, csr) })
}

// TestFaults has each message that is no frame of a session, which has tests of
// its own, lost, answered in vain and doubled.
func TestFaults(t *testing.T) {
	ctx := context.Background()
	f := &fickle{tried: map[string]int{}}
	w := newWorld(t, Options{Registrar: f})
	f.Registrar = w.reg
	tok := w.token(auth.TokenOptions{Uses: 3})
	for i := range 3 {
		e, err := auth.Enroll(t.TempDir(), "", fmt.Sprint("n", i))
		if err != nil {
			t.Fatal(err)
		}
		cred, err := Join(ctx, w.addr(), tok, e)
		for ; errors.Is(err, ErrUnavailable); cred, err = Join(ctx, w.addr(), tok, e) {
		}
		if err != nil {
			t.Fatal(err)
		}
		c := w.client(w.guard(cred))
		for range 12 { // a node may have 16 certificates
			for {
				if err = cred.Renew(ctx, time.Now(), c.Renew); !errors.Is(err, ErrUnavailable) {
					break
				}
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	e, err := auth.Enroll(t.TempDir(), "", "late")
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.reg.Join(ctx, tok, e.Request)
	wants(t, err, auth.ErrTokenUsed)
	if f.tried["join"] < 5 || f.tried["renew"] < 15 {
		t.Errorf("nothing was tried: %v", f.tried)
	}
}

// TestAccess holds that every method of the servers stands in the table of package
// access, and none beside them, and that it and all others refuse whom they are
// not for.
func TestAccess(t *testing.T) {
	ctx := context.Background()
	w, people := newPeople(t, Options{})
	_, ga := w.node("a")
	node := w.client(ga).conn
	stranger := newWorld(t, Options{})
	_, gs := stranger.node("a")
	other := w.client(gs).conn
	joiner, err := grpc.NewClient("passthrough:///"+w.addr(), grpc.WithTransportCredentials(joinCreds{
		auth.JoinConfig(w.token(auth.TokenOptions{}), protoJoin, time.Now, func(*auth.Trust) {})}))
	if err != nil {
		t.Fatal(err)
	}
	defer joiner.Close()
	oc, err := NewOperator(w.operator("o"), w.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer oc.Close()
	operator := oc.conn
	served := map[string]bool{}
	for _, s := range []*grpc.Server{w.srv.nodes, w.srv.joiners, w.srv.operators} {
		for service, info := range s.GetServiceInfo() {
			for _, m := range info.Methods {
				name := "/" + service + "/" + m.Name
				served[name] = true
				if _, ok := access.Find(name); !ok {
					t.Errorf("%s does not stand in access: nobody has said who may call it", name)
				}
			}
		}
	}
	for _, c := range access.Calls() {
		if strings.HasPrefix(c, "/") && !served[c] {
			t.Errorf("%s stands in access, and is not served", c)
		}
	}
	call := func(c *grpc.ClientConn, method string) codes.Code {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		return status.Code(c.Invoke(ctx, method, &emptypb.Empty{}, &emptypb.Empty{}))
	}
	methods := []string{"/wray.node.v1.Peer/None", "/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"}
	for m := range served {
		methods = append(methods, m)
	}
	tried, through := 0, 0
	for _, m := range methods {
		rule, _ := access.Find(m)
		if got := call(other, m); got != codes.Unavailable {
			t.Errorf("%s by a node of another cluster: %v", m, got)
		}
		if got := call(node, m); rule.Node == (got == codes.PermissionDenied) {
			t.Errorf("%s by a node: %v", m, got)
		}
		if got := call(operator, m); (rule.Least != access.NoRole) == (got == codes.PermissionDenied) {
			t.Errorf("%s by an operator: %v", m, got)
		}
		if got := call(joiner, m); rule.Joiner == (got == codes.PermissionDenied) {
			t.Errorf("%s by who joins: %v", m, got)
		}
		for who, c := range people {
			got := call(c.conn, m)
			if c.role < rule.Least || rule.Least == access.NoRole {
				if tried++; got != codes.Unauthenticated && got != codes.PermissionDenied {
					through++
				}
			}
			switch {
			case c.role == access.NoRole: // none of them is told from another
				if got != codes.Unauthenticated {
					t.Errorf("%s by %s: %v", m, who, got)
				}
			case (rule.Least != access.NoRole && c.role >= rule.Least) == (got == codes.PermissionDenied):
				t.Errorf("%s by %s: %v", m, who, got)
			}
		}
		for _, c := range []*grpc.ClientConn{node, joiner} {
			if got := call(c, m[1:]); got == codes.OK || got == codes.Unknown {
				t.Errorf("%s without its slash: %v", m, got)
			}
		}
	}
	testenv.Bar(t, 9, through, fmt.Sprintf("of %d calls by who may not, of %d methods, are let through", tried, len(methods)), through == 0 && tried > 100)
	if call(node, nodepb.Identity_Renew_FullMethodName) == codes.PermissionDenied || call(joiner, nodepb.Join_Join_FullMethodName) == codes.PermissionDenied {
		t.Error("nobody may call anything")
	}
}

// TestUnannotated holds that a method nobody thought about is refused, to
// everybody.
func TestUnannotated(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, Options{})
	_, ga := w.node("a")
	q := newQueue(l.Addr())
	s := grpc.NewServer((&door{s: w.srv}).guarded()...)
	healthpb.RegisterHealthServer(s, health.NewServer())
	go s.Serve(q)
	defer s.Stop()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		tc := tls.Server(c, w.head.ServerConfig([]string{protoGRPC}, nil, nil, ""))
		if tc.Handshake() == nil {
			if conn, err := admit(w.head, tc, w.head.Identify); err == nil {
				q.put(conn)
			}
		}
	}()
	defer l.Close()
	c, err := NewClient(ga, "head", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	h := healthpb.NewHealthClient(c.conn)
	if _, err := h.Check(context.Background(), &healthpb.HealthCheckRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a call: %v", err)
	}
	st, err := h.Watch(context.Background(), &healthpb.HealthCheckRequest{})
	if err == nil {
		_, err = st.Recv()
	}
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("a stream: %v", err)
	}
}

func TestSession(t *testing.T) {
	w := newWorld(t, Options{Session: func(_ context.Context, from auth.Identity, s Stream) error {
		if err := s.Send([]byte(from.Name)); err != nil {
			return err
		}
		for {
			f, err := s.Recv()
			if err != nil {
				return err
			}
			if err := s.Send(f); err != nil {
				return err
			}
		}
	}})
	_, ga := w.node("a")
	c := w.client(ga)
	s, err := c.Session(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if f, err := s.Recv(); err != nil || string(f) != "a" {
		t.Fatalf("%q %v", f, err)
	}
	for _, n := range []int{0, 1, MaxFrame} {
		want := bytes.Repeat([]byte{7}, n)
		if err := s.Send(want); err != nil {
			t.Fatal(err)
		}
		if f, err := s.Recv(); err != nil || !bytes.Equal(f, want) {
			t.Fatalf("%d bytes of %d, %v", len(f), n, err)
		}
	}
	if err := s.Send(make([]byte, MaxFrame+1)); err == nil {
		t.Error("a frame that is too large was sent")
	}
	// Who is revoked loses the session, and gets no other.
	if err := w.reg.Revoke(context.Background(), "a", "test"); err != nil {
		t.Fatal(err)
	}
	_, err = s.Recv()
	wants(t, err, ErrUnavailable)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if s, err = c.Session(ctx); err == nil {
		_, err = s.Recv()
	}
	if err == nil {
		t.Error("a revoked node has a session")
	}
}

// TestProtocols holds that one port tells apart what comes to it.
func TestProtocols(t *testing.T) {
	plain := make(chan string, 1)
	w := newWorld(t, Options{
		Protocols: map[string]func(context.Context, *Conn){"echo/1": func(_ context.Context, c *Conn) {
			fmt.Fprintf(c, "hello %s\n", c.Identity().Name)
			io.Copy(c, c)
		}},
		Plain: func(c net.Conn) {
			defer c.Close()
			b, _ := io.ReadAll(c)
			plain <- string(b)
		},
	})
	_, ga := w.node("a")
	c, err := Dial(context.Background(), ga, "head", w.addr(), "echo/1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "x")
	got := make([]byte, len("hello a\nx"))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello a\nx" {
		t.Errorf("%q %v", got, err)
	}
	_, err = Dial(context.Background(), ga, "elsewhere", w.addr(), "echo/1")
	wants(t, err, auth.ErrIdentity)
	_, err = Dial(context.Background(), ga, "head", w.addr(), "other/1")
	if err == nil {
		t.Error("an unknown protocol was served")
	}
	raw, err := net.Dial("tcp", w.addr())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(raw, "gossip")
	raw.Close()
	if got := <-plain; got != "gossip" {
		t.Errorf("plain: %q", got)
	}
}

// memBlob is a blob in memory: every fifth read of it loses the connection.
type memBlob struct {
	*bytes.Reader
	cut func()
	n   *atomic.Int64
}

func (m memBlob) ReadAt(b []byte, off int64) (int, error) {
	if m.n.Add(1)%5 == 0 && m.cut != nil {
		m.cut()
	}
	return m.Reader.ReadAt(b, off)
}

func (memBlob) Close() error { return nil }

func TestBlob(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 3<<16) // 3 MiB
	hash := sha256.Sum256(content)
	empty := sha256.Sum256(nil)
	var n atomic.Int64
	var w *world
	cut := func() { w.tap.cut() }
	w = newWorld(t, Options{Blob: func(_ context.Context, from auth.Identity, h [32]byte) (Blob, int64, error) {
		switch h {
		case hash:
			return memBlob{bytes.NewReader(content), cut, &n}, int64(len(content)), nil
		case empty:
			return memBlob{bytes.NewReader(nil), nil, &n}, 0, nil
		case [32]byte{1}: // a holder that has other bytes under the name
			return memBlob{bytes.NewReader(content), nil, &n}, 5, nil
		}
		return nil, 0, fmt.Errorf("%w: nothing", fs.ErrNotExist)
	}})
	_, ga := w.node("a")
	c := w.client(ga)
	ctx := context.Background()
	get := func(h [32]byte, limit int64) ([]byte, error) {
		var b bytes.Buffer
		_, err := c.Blob(ctx, h, limit, &b)
		return b.Bytes(), err
	}
	if b, err := get(empty, 0); err != nil || len(b) != 0 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	_, err := get([32]byte{2}, 100)
	wants(t, err, fs.ErrNotExist)
	_, err = get([32]byte{1}, 100)
	wants(t, err, ErrHash)
	if _, err := get(hash, int64(len(content)-1)); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("too large: %v", err)
	}
	if b, err := get(hash, int64(len(content))); err != nil || !bytes.Equal(b, content) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}
