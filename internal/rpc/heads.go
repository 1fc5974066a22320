package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/internal/rpc/internal/headspb"
)

// HeadPort is what comes to a head from other heads, for the control state that
// they keep together: under the server name auth.HeadsName. It is served from
// Listen on, before anything else can be.
type HeadPort struct {
	Config *tls.Config // auth.HeadKeys.ServerConfig
	queue  *queue
}

// NewHeadPort returns the port of a head at an address.
func NewHeadPort(addr net.Addr, config *tls.Config) *HeadPort {
	return &HeadPort{Config: config, queue: newQueue(addr)}
}

// Accept implements net.Listener: it returns connections whose handshake is
// done.
func (p *HeadPort) Accept() (net.Conn, error) {
	select {
	case c := <-p.queue.conns:
		return c.Conn, nil // as TLS, which HTTP asks for
	case <-p.queue.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (p *HeadPort) Close() error { return p.queue.Close() }

// Addr implements net.Listener.
func (p *HeadPort) Addr() net.Addr { return p.queue.Addr() }

// Enlisted is what a node needs to be one more head.
type Enlisted struct {
	Authority []byte   // auth.Authority.Export
	Heads     []string // addresses of all, that of the node among them
}

// Enlister lets nodes in that are to be heads. Errors that match auth.ErrNotHead
// or control.ErrInvalid are final.
type Enlister func(ctx context.Context, who auth.Identity, addr string) (Enlisted, error)

type headsService struct {
	headspb.UnsafeHeadsServer
	s *Server
}

// Enlist implements the service.
func (h headsService) Enlist(ctx context.Context, req *headspb.EnlistRequest) (*headspb.EnlistReply, error) {
	if h.s.opt.Enlist == nil {
		return nil, status.Error(codes.Unimplemented, "this node is no head, or its control state is its own alone")
	}
	if _, _, err := net.SplitHostPort(req.Addr); err != nil || len(req.Addr) > maxAddr {
		return nil, status.Error(codes.InvalidArgument, "the address is no host:port")
	}
	id, _ := Caller(ctx)
	e, err := h.s.opt.Enlist(ctx, id, req.Addr)
	switch {
	case err == nil:
		return &headspb.EnlistReply{Authority: e.Authority, Heads: e.Heads}, nil
	case errors.Is(err, auth.ErrNotHead):
		return nil, status.Error(codes.PermissionDenied, err.Error())
	case errors.Is(err, control.ErrInvalid):
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	return nil, status.Error(codes.Unavailable, err.Error())
}

// maxAddr is the most bytes of an address.
const maxAddr = 300

// Enlist asks the node, a head, to let this node be one more at an address. It
// may be repeated.
func (c *Client) Enlist(ctx context.Context, addr string) (Enlisted, error) {
	r, err := headspb.NewHeadsClient(c.conn).Enlist(ctx, &headspb.EnlistRequest{Addr: addr})
	switch status.Code(err) {
	case codes.OK:
		return Enlisted{Authority: r.Authority, Heads: r.Heads}, nil
	case codes.PermissionDenied:
		return Enlisted{}, fmt.Errorf("node %s: %w", c.name, &remoteError{is: auth.ErrNotHead, why: status.Convert(err).Message()})
	case codes.FailedPrecondition, codes.InvalidArgument, codes.Unimplemented:
		return Enlisted{}, fmt.Errorf("node %s: %w", c.name, &remoteError{is: control.ErrInvalid, why: status.Convert(err).Message()})
	}
	return Enlisted{}, fmt.Errorf("node %s: %w", c.name, callError(err))
}
