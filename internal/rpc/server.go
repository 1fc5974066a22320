package rpc

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/wray-project/wray/host/access"
	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/internal/fewer"
	"github.com/wray-project/wray/internal/httpgate"
	"github.com/wray-project/wray/internal/rpc/internal/controlpb"
	"github.com/wray-project/wray/internal/rpc/internal/headspb"
	"github.com/wray-project/wray/internal/rpc/internal/jobspb"
	"github.com/wray-project/wray/internal/rpc/internal/nodepb"
)

// Registrar signs certificates; *auth.Registrar is one.
type Registrar interface {
	Join(ctx context.Context, token auth.Token, csr []byte) (auth.Grant, error)
	Renew(ctx context.Context, who auth.Identity, csr []byte) (auth.Grant, error)
}

// Stream carries the frames of a session, both ways, in order, until it is cut.
// Send and Recv may be called at the same time, each by one goroutine. A frame
// belongs to whoever received it, and to its sender until Send returns.
type Stream interface {
	Send(frame []byte) error
	Recv() ([]byte, error)
}

// Blob is bytes that are named by their SHA-256.
type Blob interface {
	io.ReaderAt
	io.Closer
}

// Options say what a node serves. Handlers that are nil refuse.
type Options struct {
	Guard *auth.Guard
	// Registrar and Head are a head's: what signs, and what it shows to
	// machines that join (auth.Authority.HeadCertificates).
	Registrar Registrar
	Head      func() (*tls.Certificate, error)
	// Control is a head's control state, as a node may have it that reaches it
	// through the head. It decides what that may.
	Control func(who auth.Identity) control.Store
	// Enlist is a head's: it lets more heads in.
	Enlist Enlister
	// Session serves a session that the node calls for, until it returns.
	Session func(ctx context.Context, from auth.Identity, s Stream) error
	// Blob opens a blob for a node, or returns an error that matches
	// fs.ErrNotExist.
	Blob func(ctx context.Context, from auth.Identity, sha256 [32]byte) (Blob, int64, error)
	// Protocols are for connections of nodes that are no gRPC, by ALPN. A
	// handler has the connection until it returns, and then it is closed.
	Protocols map[string]func(ctx context.Context, c *Conn)
	// Access knows users by their tokens; nil knows none. Denied is told of calls
	// that were refused, and may be nil.
	Access *access.Checker
	Denied func(p access.Principal, call, from string)
	// Jobs is what the node does about jobs, for people and other nodes; HTTP
	// the same as JSON, and what else is served so, behind a gate that asks
	// package access. HTTPHosts are names by which it may be called.
	Jobs      Jobs
	HTTP      *http.ServeMux
	HTTPHosts []string
	// Plain takes, and owns, connections that do not begin with TLS. Nobody
	// knows whose they are.
	Plain func(c net.Conn)
	// Log is told of connections that were refused, and why. It may be nil.
	Log func(format string, args ...any)
}

// Server serves one port.
type Server struct {
	opt      Options // set by Serve, as is config; read by who saw ready closed
	ready    chan struct{}
	heads    *HeadPort // nil where no other heads call
	front    *tls.Config
	listener net.Listener
	config   *tls.Config
	nodes    *grpc.Server // for nodes
	joiners  *grpc.Server // for machines that join
	toNodes  *queue
	toJoin   *queue
	// For people: operators and users. Their requests as JSON are http's.
	operators   *grpc.Server
	http        *http.Server
	toOperators *queue
	toHTTP      *queue
	ctx         context.Context // ends with Close
	cancel      context.CancelFunc
	wait        sync.WaitGroup

	handshakes  *gate  // that are under way
	familiar    *gate  // likewise, from addresses that are familiar
	plainKnown  *gate  // connections without TLS from such addresses
	lately      lately // familiar addresses
	joining     *gate  // connections of machines that join
	people      *gate  // connections without a certificate
	peopleKnown *gate  // likewise, from addresses that are familiar
	plain       *gate  // connections without TLS
	known       *known // connections of people, by tenant or operator

	few *fewer.Log // before Options.Log

	mu    sync.Mutex
	conns map[net.Conn]bool // guarded by mu; those that no gRPC server has
}

// Serve takes what comes to l, which the server owns, until Close.
func Serve(l net.Listener, o Options) *Server {
	s := newServer(l, nil)
	s.Serve(o)
	s.wait.Go(s.accept)
	return s
}

// Listen takes what comes to l, which the server owns, until Close: first for
// heads alone, and all of it from the call of Serve on. Others that come before
// wait for a moment, and are then to come again.
func Listen(l net.Listener, heads *HeadPort) *Server {
	s := newServer(l, heads)
	s.wait.Go(s.accept)
	return s
}

// readyTime is how long a connection waits for Serve.
const readyTime = time.Second

func newServer(l net.Listener, heads *HeadPort) *Server {
	s := &Server{
		listener: l, heads: heads, ready: make(chan struct{}),
		handshakes:  newFairGate(maxHandshakes, eachHandshakes),
		familiar:    newFairGate(maxHandshakes, eachHandshakes),
		plainKnown:  newGate(maxPlain, eachPlain, grace),
		few:         fewer.New(logMost, logWindow),
		joining:     newGate(maxJoining, eachJoining, grace),
		people:      newGate(maxPeople, eachPeople, grace),
		peopleKnown: newGate(maxPeople, eachPeople, grace),
		plain:       newGate(maxPlain, eachPlain, grace),
		known:       newKnown(maxKnown, eachKnown, sureKnown),
		conns:       map[net.Conn]bool{},
		toNodes:     newQueue(l.Addr()), toJoin: newQueue(l.Addr()),
		toOperators: newQueue(l.Addr()), toHTTP: newQueue(l.Addr()),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.front = &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if s.heads != nil && h.ServerName == auth.HeadsName {
			return s.heads.Config, nil
		}
		if !s.awaitReady() {
			return nil, errors.New("this node is starting")
		}
		if s.config.GetConfigForClient != nil {
			return s.config.GetConfigForClient(h)
		}
		return s.config, nil
	}}
	return s
}

// awaitReady waits for a moment until Serve was called.
func (s *Server) awaitReady() bool {
	select {
	case <-s.ready:
		return true
	default:
	}
	t := time.NewTimer(readyTime)
	defer t.Stop()
	select {
	case <-s.ready:
		return true
	case <-s.ctx.Done():
	case <-t.C:
	}
	return false
}

// logf is Options.Log, if there is one yet.
func (s *Server) logf(format string, args ...any) {
	select {
	case <-s.ready:
		s.few.Write(format, func(more string) { s.opt.Log(format+"%s", append(slices.Clip(args), more)...) })
	default:
	}
}

// Anybody can cause what is logged: of each kind so much is in a window.
const (
	logMost   = 10
	logWindow = 10 * time.Second
)

// Serve serves all that the server is for. It is called once.
func (s *Server) Serve(o Options) {
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	s.opt = o
	protos := []string{protoHTTP, protoGRPC} // who offers both is no program of ours
	if o.HTTP == nil {
		protos = protos[1:]
	}
	for p := range o.Protocols {
		protos = append(protos, p)
	}
	var bearers []string // what those may speak who have no certificate
	if o.Access != nil {
		bearers = []string{protoGRPC, protoHTTP}
	}
	s.config = o.Guard.ServerConfig(protos, bearers, o.Head, protoJoin)

	s.nodes = grpc.NewServer(append((&door{s: s}).guarded(),
		grpc.MaxRecvMsgSize(MaxFrame+1<<10), grpc.MaxSendMsgSize(MaxFrame+1<<10),
		grpc.MaxConcurrentStreams(256),
		grpc.StaticStreamWindowSize(4<<20), grpc.StaticConnWindowSize(8<<20),
		grpc.WriteBufferSize(128<<10), grpc.ReadBufferSize(128<<10),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)...)
	nodepb.RegisterPeerServer(s.nodes, peerService{s: s})
	nodepb.RegisterBlobServer(s.nodes, blobService{s: s})
	nodepb.RegisterIdentityServer(s.nodes, identityService{s: s})
	controlpb.RegisterControlServer(s.nodes, controlService{s: s})
	s.joiners = grpc.NewServer(append((&door{s: s, joins: true}).guarded(),
		grpc.MaxRecvMsgSize(maxJoin), grpc.MaxConcurrentStreams(2),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: time.Minute, MaxConnectionAgeGrace: handshakeTime}),
	)...)
	nodepb.RegisterJoinServer(s.joiners, joinService{s: s})
	s.serveOperators()

	headspb.RegisterHeadsServer(s.nodes, headsService{s: s})
	s.wait.Go(func() { s.nodes.Serve(s.toNodes) })
	s.wait.Go(func() { s.joiners.Serve(s.toJoin) })
	close(s.ready)
}

// Addr is where it listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Quiet ends all calls, and serves other heads alone from then on. It may be
// called more than once, after Serve.
func (s *Server) Quiet() error {
	s.nodes.Stop()
	s.joiners.Stop()
	s.operators.Stop()
	s.http.Close()
	return nil
}

// Close ends all connections and waits for their handlers. It may be called
// more than once.
func (s *Server) Close() error {
	s.cancel()
	s.listener.Close()
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	if s.nodes != nil {
		s.nodes.Stop()
		s.joiners.Stop()
		s.operators.Stop()
		s.http.Close()
	}
	if s.heads != nil {
		s.heads.Close()
	}
	s.wait.Wait()
	s.few.Close()
	return nil
}

// serveOperators serves people: less is known of them than of nodes, and they may
// be many.
func (s *Server) serveOperators() {
	people := &door{s: s, bears: true}
	s.operators = grpc.NewServer(append(people.guarded(), grpc.InTapHandle(people.tap),
		grpc.MaxRecvMsgSize(maxJobMessage), grpc.MaxConcurrentStreams(32),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)...)
	jobspb.RegisterJobsServer(s.operators, jobsService{s: s})
	jobspb.RegisterJobsServer(s.nodes, jobsService{s: s})
	mux := s.opt.HTTP
	if mux == nil {
		mux = http.NewServeMux()
	}
	s.http = &http.Server{
		Handler: httpgate.New(mux, httpgate.Options{Check: s.opt.Access, Hosts: s.opt.HTTPHosts, Denied: s.opt.Denied, MaxBody: maxHTTPBody,
			Known: func(req *http.Request, p access.Principal) error {
				c, _ := req.Context().Value(connKey{}).(*Conn)
				return vouched(c, p.Tenant)
			},
			Certified: func(req *http.Request) access.Principal {
				id, _ := Caller(req.Context())
				return access.Certified(id)
			}}),
		ReadHeaderTimeout: handshakeTime, ReadTimeout: uploadTime, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 16 << 10,
		ErrorLog:       slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // what callers do is answered, and not logged
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if c, ok := c.(*Conn); ok {
				ctx = context.WithValue(ctx, connKey{}, c)
				if c.id.Name != "" {
					ctx = WithCaller(ctx, c.id)
				}
			}
			return ctx
		},
	}
	s.wait.Go(func() { s.operators.Serve(s.toOperators) })
	s.wait.Go(func() { s.http.Serve(s.toHTTP) })
}

func (s *Server) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			s.logf("accept: %v", err) // too many open files, as a rule
			select {
			case <-time.After(50 * time.Millisecond):
			case <-s.ctx.Done():
			}
			continue
		}
		g := s.handshakes
		if s.lately.has(c) {
			g = s.familiar
		}
		if v, ok := g.visit(c); ok {
			s.wait.Go(func() { s.begin(c, v) })
		}
	}
}

// begin finds out what a connection is, and has it served. v leaves when that is
// known.
func (s *Server) begin(c net.Conn, v *visitor) {
	defer v.leave()
	if !s.track(c) {
		return
	}
	defer s.untrack(c)
	c.SetDeadline(time.Now().Add(handshakeTime))
	p := &peeked{Conn: c, r: bufio.NewReaderSize(c, 1)}
	first, err := p.r.Peek(1)
	if err != nil {
		c.Close()
		return
	}
	v.said()
	if first[0] != 22 { // a handshake's record begins with it, RFC 8446 5.1
		if !s.awaitReady() || s.opt.Plain == nil {
			c.Close()
			return
		}
		v.leave()
		plain := s.plain
		if v.g == s.familiar {
			plain = s.plainKnown
		}
		leave, ok := plain.enter(c)
		if !ok {
			return
		}
		// Nothing that comes without TLS takes long.
		end := time.AfterFunc(plainTime, func() { c.Close() })
		c.SetDeadline(time.Time{})
		s.opt.Plain(&guest{Conn: p, leave: func() { end.Stop(); leave() }})
		return
	}
	t := tls.Server(p, s.front)
	if err := t.HandshakeContext(s.ctx); err != nil {
		if s.ctx.Err() == nil { // Close's own doing is no news
			s.logf("handshake of %s: %v", c.RemoteAddr(), err)
		}
		c.Close()
		return
	}
	c.SetDeadline(time.Time{})
	if s.heads != nil && t.ConnectionState().ServerName == auth.HeadsName {
		s.heads.queue.put(&Conn{Conn: t, release: func() {}})
		return
	}
	proto := t.ConnectionState().NegotiatedProtocol
	if proto == protoJoin {
		if leave, ok := s.joining.enter(c); ok {
			s.toJoin.put(&Conn{Conn: t, release: leave})
		}
		return
	}
	if len(t.ConnectionState().PeerCertificates) == 0 { // each call says who it is
		g := s.people
		if v.g == s.familiar {
			g = s.peopleKnown
		}
		leave, ok := g.enter(c)
		if !ok {
			return
		}
		b := &visit{all: s.known, stranger: leave, shown: func() { s.lately.note(c) }}
		if conn := (&Conn{Conn: t, release: b.leave, bearer: b}); proto == protoHTTP {
			s.toHTTP.put(conn)
		} else {
			s.toOperators.put(conn)
		}
		return
	}
	conn, err := admit(s.opt.Guard, t, s.opt.Guard.IdentifyCaller)
	if err != nil {
		s.logf("connection of %s: %v", c.RemoteAddr(), err)
		c.Close()
		return
	}
	s.lately.note(c)
	if conn.id.Role == auth.RoleOperator {
		who := "operator " + conn.id.Name
		if err := s.known.enter(who); err != nil {
			s.logf("connection of %s: %s: %v", c.RemoteAddr(), conn.id.URI(), err)
			conn.Close()
			return
		}
		admitted := conn.release
		conn.release = func() { s.known.leave(who); admitted() }
	}
	switch {
	case conn.id.Role == auth.RoleOperator && proto == protoHTTP:
		s.toHTTP.put(conn)
		return
	case conn.id.Role == auth.RoleOperator && proto == protoGRPC:
		s.toOperators.put(conn)
		return
	case conn.id.Role != auth.RoleNode, proto == protoHTTP:
		s.logf("connection of %s: %s may not speak %s", c.RemoteAddr(), conn.id.URI(), proto)
		conn.Close()
		return
	case proto == protoGRPC:
		s.toNodes.put(conn)
		return
	}
	v.leave()
	defer conn.Close()
	s.opt.Protocols[proto](s.ctx, conn)
}

func (s *Server) track(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		c.Close()
		return false
	}
	s.conns[c] = true
	return true
}

func (s *Server) untrack(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// peeked is a connection of whose bytes one was looked at.
type peeked struct {
	net.Conn
	r *bufio.Reader
}

func (p *peeked) Read(b []byte) (int, error) {
	if p.r.Buffered() > 0 {
		return p.r.Read(b)
	}
	return p.Conn.Read(b)
}

// queue is a listener of connections that were accepted elsewhere.
type queue struct {
	addr  net.Addr
	conns chan *Conn
	done  chan struct{}
	once  sync.Once
}

func newQueue(addr net.Addr) *queue {
	return &queue{addr: addr, conns: make(chan *Conn), done: make(chan struct{})}
}

func (q *queue) put(c *Conn) {
	select {
	case q.conns <- c:
	case <-q.done:
		c.Close()
	}
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

func (q *queue) Addr() net.Addr { return q.addr }

type joinService struct {
	nodepb.UnsafeJoinServer
	s *Server
}

func (j joinService) Join(ctx context.Context, req *nodepb.JoinRequest) (*nodepb.CertificateReply, error) {
	if j.s.opt.Registrar == nil {
		return grantReply(auth.Grant{}, ErrNoHead)
	}
	var t auth.Token
	if len(req.TokenId) != len(t.ID) || len(req.TokenSecret) != len(t.Secret) {
		return grantReply(auth.Grant{}, auth.ErrToken)
	}
	copy(t.ID[:], req.TokenId)
	copy(t.Secret[:], req.TokenSecret)
	return grantReply(j.s.opt.Registrar.Join(ctx, t, req.SigningRequest))
}

type identityService struct {
	nodepb.UnsafeIdentityServer
	s *Server
}

func (i identityService) Renew(ctx context.Context, req *nodepb.RenewRequest) (*nodepb.CertificateReply, error) {
	if i.s.opt.Registrar == nil {
		return grantReply(auth.Grant{}, fmt.Errorf("%w: ask a head", ErrNoHead))
	}
	id, _ := Caller(ctx)
	return grantReply(i.s.opt.Registrar.Renew(ctx, id, req.SigningRequest))
}

type peerService struct {
	nodepb.UnsafePeerServer
	s *Server
}

func (p peerService) Session(st grpc.BidiStreamingServer[nodepb.Frame, nodepb.Frame]) error {
	if p.s.opt.Session == nil {
		return status.Error(codes.Unimplemented, "this node has no sessions")
	}
	id, _ := Caller(st.Context())
	if err := p.s.opt.Session(st.Context(), id, stream{st}); err != nil {
		return status.Error(codes.Aborted, err.Error())
	}
	return nil
}

// stream is a Stream over gRPC, of either side.
type stream struct {
	s interface {
		Send(*nodepb.Frame) error
		Recv() (*nodepb.Frame, error)
	}
}

func (s stream) Send(frame []byte) error {
	if len(frame) > MaxFrame {
		return fmt.Errorf("frame of %d bytes, at most %d", len(frame), MaxFrame)
	}
	// gRPC has encoded the message when Send returns.
	return s.s.Send(&nodepb.Frame{Payload: frame})
}

func (s stream) Recv() ([]byte, error) {
	f, err := s.s.Recv()
	if err == io.EOF {
		return nil, io.EOF
	}
	if err != nil {
		return nil, callError(err)
	}
	return f.Payload, nil
}
