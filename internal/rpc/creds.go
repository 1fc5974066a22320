package rpc

import (
	"context"
	"crypto/tls"
	"errors"

	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/wray-project/wray/host/auth"
)

// Conn is a connection whose handshake is done, from the time on at which the
// guard lets it in until it is closed.
type Conn struct {
	*tls.Conn
	id      auth.Identity // zero for a machine that joins
	release func()
	once    sync.Once
	bearer  *visit // of who shows tokens; nil where a certificate says who it is
}

// Identity says who is at the other end.
func (c *Conn) Identity() auth.Identity { return c.id }

// Close implements net.Conn. It may be called more than once.
func (c *Conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.release)
	return err
}

// admit has the guard watch over a connection.
func admit(g *auth.Guard, c *tls.Conn, identify func(tls.ConnectionState) (auth.Identity, error)) (*Conn, error) {
	id, err := identify(c.ConnectionState())
	if err != nil {
		return nil, err
	}
	// The bare connection: closing TLS would wait for whoever is writing.
	release, err := g.Admit(id, c.NetConn())
	if err != nil {
		return nil, err
	}
	return &Conn{Conn: c, id: id, release: release}, nil
}

// Dial connects to a node, which must be of that name, for an application
// protocol.
func Dial(ctx context.Context, g *auth.Guard, name, addr, proto string) (*Conn, error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w: %w", name, ErrUnavailable, err)
	}
	return handshake(ctx, g, raw, name, proto)
}

func handshake(ctx context.Context, g *auth.Guard, raw net.Conn, name, proto string) (*Conn, error) {
	c := tls.Client(raw, g.ClientConfig(name, proto))
	err := c.HandshakeContext(ctx)
	var conn *Conn
	if err == nil {
		conn, err = admit(g, c, g.Identify)
	}
	if err != nil {
		raw.Close()
		return nil, fmt.Errorf("handshake with node %s at %s: %w", name, raw.RemoteAddr(), err)
	}
	return conn, nil
}

// info is what gRPC knows of a connection.
type info struct {
	credentials.CommonAuthInfo
	id    auth.Identity
	known bool
	conn  *Conn // nil at clients
}

func (info) AuthType() string { return "wray" }

func newInfo(id auth.Identity, known bool) info {
	return info{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, id: id, known: known}
}

// vouched notes that who calls by a connection is known by a token of a tenant: it
// does not make room for strangers any more. An error says that the tenant has too
// many connections.
func vouched(c *Conn, tenant string) error {
	if c == nil || c.bearer == nil {
		return nil
	}
	return c.bearer.vouch(tenant)
}

// connKey is where the context of an HTTP request has its connection.
type connKey struct{}

// callerKey is where the context of an HTTP request has who makes it.
type callerKey struct{}

// WithCaller returns a context as a request over HTTP has it.
func WithCaller(ctx context.Context, who auth.Identity) context.Context {
	return context.WithValue(ctx, callerKey{}, who)
}

// Caller says which node or operator calls; false where none does, but a machine
// that joins.
func Caller(ctx context.Context) (auth.Identity, bool) {
	if id, ok := ctx.Value(callerKey{}).(auth.Identity); ok {
		return id, true
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return auth.Identity{}, false
	}
	i, ok := p.AuthInfo.(info)
	return i.id, ok && i.known
}

// clientCreds makes the handshake of a gRPC connection to one node.
type clientCreds struct {
	guard *auth.Guard
	name  string
	last  *atomic.Pointer[error] // of the last handshake; nil after one that succeeded
}

func (c clientCreds) ClientHandshake(ctx context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, err := handshake(ctx, c.guard, raw, c.name, protoGRPC)
	if err != nil {
		c.last.Store(&err)
		return nil, nil, err
	}
	c.last.Store(nil)
	return conn, newInfo(conn.id, true), nil
}

func (clientCreds) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("BUG: a client's credentials in a server")
}

func (clientCreds) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (c clientCreds) Clone() credentials.TransportCredentials { return c }

func (clientCreds) OverrideServerName(string) error { return nil }

// joinCreds makes the handshake of a machine that has a token.
type joinCreds struct{ config *tls.Config }

func (c joinCreds) ClientHandshake(ctx context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn := tls.Client(raw, c.config)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, nil, err
	}
	return conn, newInfo(auth.Identity{}, false), nil
}

func (joinCreds) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("BUG: a client's credentials in a server")
}

func (c joinCreds) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (c joinCreds) Clone() credentials.TransportCredentials { return c }

func (joinCreds) OverrideServerName(string) error { return nil }

// serverCreds takes connections whose handshake is done.
type serverCreds struct{}

func (serverCreds) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, ok := raw.(*Conn)
	if !ok {
		return nil, nil, errors.New("BUG: a connection without a handshake")
	}
	i := newInfo(c.id, c.id.Name != "")
	i.conn = c
	return c, i, nil
}

func (serverCreds) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("BUG: a server's credentials in a client")
}

func (serverCreds) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (c serverCreds) Clone() credentials.TransportCredentials { return c }

func (serverCreds) OverrideServerName(string) error { return nil }
