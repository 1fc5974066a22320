// Package client asks servers over HTTP for guests, which have no network. A guest
// is an attacker who chooses what is asked, and hopes that the node reaches what he
// does not: so what is asked is checked before anything is looked up, each name is
// looked up once, all its addresses are checked, and one of those is connected to.
//
// A request is sent as it is, with no credential, proxy or cookie of the node, over
// HTTP/1.1. An answer comes as it is: redirects are not followed, which the guest
// does by asking anew, and nothing is decompressed.
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/egress"
)

// Resolver looks up the addresses of a name. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Config configures a Client.
type Config struct {
	// Private are networks whose addresses may be asked although they are not of the
	// public internet.
	Private []netip.Prefix
	// Own reports whether an address is the node's own, or of another node of its
	// cluster, and whether wray itself listens at that port there. The first is
	// refused unless Private has it, the second always. It may be nil.
	Own func(a netip.AddrPort) (node, port bool)

	// Hold takes note of a connection that is about to be made, until release is
	// called, or says why there may be none. It may be nil.
	Hold func() (release func(), err error)

	Resolver Resolver       // nil: the system's
	Roots    *x509.CertPool // nil: the system's
	// Connect connects to a checked address; nil: over the network. Tests set it.
	Connect func(ctx context.Context, a netip.AddrPort) (net.Conn, error)
}

// Client asks for one tenant. Its connections are used again, for that tenant
// alone. Methods may be called by several goroutines.
type Client struct {
	cfg       Config
	transport *http.Transport
	conns     chan struct{} // holds one for each connection, made or being made
}

// MaxConns is how many connections a client has, those that are being made and
// those that nobody uses taken together. More requests wait.
const MaxConns = 128

// asking is the key under which a request's context is in itself: whoever dials for
// a request gets its values, and not its end.
type asking struct{}

// Bounds of time, each of a part of a request.
const (
	lookupTime  = 10 * time.Second
	connectTime = 10 * time.Second // for each address
	headerTime  = 2 * time.Minute  // until an answer begins
	idleTime    = 30 * time.Second // of a connection that nobody uses
	maxAddrs    = 8                // of a name that are tried
)

// New returns a client. Close it.
func New(cfg Config) *Client {
	if cfg.Resolver == nil {
		cfg.Resolver = net.DefaultResolver
	}
	c := &Client{cfg: cfg, conns: make(chan struct{}, MaxConns)}
	if c.cfg.Connect == nil {
		c.cfg.Connect = c.connect
	}
	c.transport = &http.Transport{
		Proxy:                  nil, // whatever the environment says
		DialContext:            c.dial,
		TLSClientConfig:        &tls.Config{RootCAs: cfg.Roots, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}},
		TLSNextProto:           map[string]func(string, *tls.Conn) http.RoundTripper{}, // HTTP/1.1 alone
		TLSHandshakeTimeout:    connectTime,
		ResponseHeaderTimeout:  headerTime,
		IdleConnTimeout:        idleTime,
		MaxIdleConns:           32,
		MaxIdleConnsPerHost:    8,
		MaxResponseHeaderBytes: egress.MaxHeaderBytes,
		DisableCompression:     true, // the guest unpacks what it asked for
		ReadBufferSize:         16 << 10,
	}
	return c
}

// Close ends connections that nobody uses. What is under way goes on.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Response is an answer. Who has it closes Body.
type Response struct {
	Status int
	Header []egress.Header
	Body   io.ReadCloser
}

// Allowed says of a host and a port whether they may be asked. Its error is the
// one of Do.
type Allowed func(host string, port int) error

// Do asks, and returns when the answer has begun. length is the bytes of body, of
// which Do reads as the server takes it, also after it has returned, and which it
// closes; it may be nil. Who ends ctx has the reading of body end, too. ctx bounds
// the answer's body as well. Errors are
// of CodeBadArgument where the request makes no sense, of CodeDenied where it may
// not be, and of CodeUserError where the server or the network failed.
func (c *Client) Do(ctx context.Context, r *egress.Request, body io.ReadCloser, length int64, allowed Allowed) (*Response, error) {
	sent := false
	defer func() {
		if body != nil && !sent {
			body.Close()
		}
	}()
	t, err := r.Parse()
	if err != nil {
		return nil, err
	}
	if length < 0 || length > egress.MaxRequestBytes {
		return nil, wray.Errorf(wray.CodeBadArgument, "a body of %d bytes, the most are %d", length, int64(egress.MaxRequestBytes))
	}
	if err := allowed(t.Host, t.Port); err != nil {
		return nil, err
	}
	if t.Addr.IsValid() {
		if err := c.check(netip.AddrPortFrom(t.Addr, uint16(t.Port))); err != nil {
			return nil, refusedAddr(t.String(), err)
		}
	}
	req := (&http.Request{Method: r.Method, URL: t.URL, Host: t.URL.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}}).WithContext(context.WithValue(ctx, asking{}, ctx))
	for _, h := range r.Header {
		req.Header.Add(h.Name, h.Value)
	}
	if req.Header["User-Agent"] == nil {
		req.Header["User-Agent"] = []string{"wray"}
	}
	if length > 0 {
		req.Body, req.ContentLength, sent = body, length, true
	}
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		var denied *wray.Error
		if errors.As(err, &denied) {
			return nil, denied
		}
		return nil, &wray.Error{Code: failureCode(ctx, err), Message: fmt.Sprintf("%s %s: %v", r.Method, t.String(), err)}
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		resp.Body.Close()
		return nil, wray.Errorf(wray.CodeUserError, "%s switched protocols, which nobody has asked for", t.String())
	}
	out := &Response{Status: resp.StatusCode, Body: &bounded{ReadCloser: resp.Body, left: egress.MaxResponseBytes}}
	names := make([]string, 0, len(resp.Header))
	for name := range resp.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, v := range resp.Header[name] {
			if len(out.Header) == egress.MaxHeaders {
				resp.Body.Close()
				return nil, wray.Errorf(wray.CodeUserError, "%s answered with more than %d headers", t.String(), egress.MaxHeaders)
			}
			out.Header = append(out.Header, egress.Header{Name: name, Value: v})
		}
	}
	return out, nil
}

func failureCode(ctx context.Context, err error) wray.Code {
	var timeout net.Error
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return wray.CodeCanceled
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return wray.CodeTimeout
	}
	return wray.CodeUserError
}

// bounded is a body that has no more than left bytes.
type bounded struct {
	io.ReadCloser
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, wray.Errorf(wray.CodeLimitExceeded, "the answer has more than %d bytes", int64(egress.MaxResponseBytes))
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// dial connects for a request, until that has ended: the transport itself would go
// on without it, and one who begins requests and drops them would have connections
// without number.
func (c *Client) dial(ctx context.Context, _, address string) (net.Conn, error) {
	if r, ok := ctx.Value(asking{}).(context.Context); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(r, cancel)()
	}
	select {
	case c.conns <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	release := func() { <-c.conns }
	if c.cfg.Hold != nil {
		held, err := c.cfg.Hold()
		if err != nil {
			release()
			return nil, err
		}
		release = func() { held(); <-c.conns }
	}
	conn, err := c.reach(ctx, address)
	if err != nil {
		release()
		return nil, err
	}
	return &counted{Conn: conn, release: sync.OnceFunc(release)}, nil
}

// counted is a connection that is given back when it is closed.
type counted struct {
	net.Conn
	release func()
}

func (c *counted) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// reach connects to a host that the client's own request names: the one look-up of
// its name is here.
func (c *Client) reach(ctx context.Context, address string) (net.Conn, error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	var port uint16
	if _, err := fmt.Sscan(portText, &port); err != nil {
		return nil, err
	}
	addrs, err := c.lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	// One that may not be asked tells of all: who answers so means to lead there.
	for _, a := range addrs {
		if err := c.check(netip.AddrPortFrom(a, port)); err != nil {
			return nil, refusedAddr(address, err)
		}
	}
	var errs []error
	for _, a := range addrs[:min(len(addrs), maxAddrs)] {
		conn, err := c.cfg.Connect(ctx, netip.AddrPortFrom(a, port))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func (c *Client) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	// With the dot no search domain of the node's is tried.
	addrs, err := c.cfg.Resolver.LookupNetIP(ctx, "ip", host+".")
	if err != nil {
		return nil, err
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("the name %s has no address", host)
	}
	for i, a := range addrs {
		addrs[i] = a.Unmap()
	}
	return addrs, nil
}

// credentialAddrs are where clouds tell their machines who they are, beside
// 169.254.0.0/16: in networks that a policy may open for what else is there.
// Amazon's and Google's by IPv6, Alibaba's, Oracle's, and Azure's host agent, as
// each documents them.
var credentialAddrs = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("fd20:ce::254"),
	netip.MustParseAddr("100.100.100.200"), netip.MustParseAddr("192.0.0.192"), netip.MustParseAddr("168.63.129.16"),
}

// check says why an address may not be connected to.
func (c *Client) check(a netip.AddrPort) error {
	to := unembed(a.Addr())
	if slices.Contains(credentialAddrs, to) {
		return fmt.Errorf("at %v a cloud tells its machines their credentials", a.Addr())
	}
	open := a.Addr().Zone() == "" && slices.ContainsFunc(c.cfg.Private, func(n netip.Prefix) bool { return n.Contains(to) })
	if !open {
		if err := checkPublic(a.Addr()); err != nil {
			return err
		}
	}
	if c.cfg.Own == nil {
		return nil
	}
	switch node, port := c.cfg.Own(netip.AddrPortFrom(to, a.Port())); {
	case port:
		return fmt.Errorf("at %v a node of wray listens", a)
	case node && !open:
		return fmt.Errorf("the address %v is of a node of wray", a.Addr())
	}
	return nil
}

func refusedAddr(what string, why error) error {
	return &wray.Error{Code: wray.CodeDenied, Message: fmt.Sprintf("%s is not asked: %v", what, why),
		Hint: "an admin of the cluster can open a network that is not public: wray policy set TENANT --private ADDRESS/BITS"}
}

// connect connects over the network, and looks once more at where to, in the
// moment before it does.
func (c *Client) connect(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Timeout: connectTime, KeepAlive: idleTime, Control: func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		if err := c.check(to); err != nil {
			return refusedAddr(address, err)
		}
		return nil
	}}
	return d.DialContext(ctx, "tcp", a.String())
}
