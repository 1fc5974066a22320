package rpc

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	grpctap "google.golang.org/grpc/tap"

	"github.com/wray-project/wray/host/access"
)

// door is one of the gRPC servers of the port, and says who comes by it.
type door struct {
	s     *Server
	joins bool // who comes has no certificate, and a token for a first one
	bears bool // who has no certificate may show a user's token
}

// principal is who calls.
func (d *door) principal(ctx context.Context) access.Principal {
	if id, known := Caller(ctx); known {
		return access.Certified(id)
	}
	if d.joins {
		return access.Principal{Kind: access.Joiner}
	}
	if md, ok := metadata.FromIncomingContext(ctx); ok && d.bears {
		if values := md.Get("authorization"); len(values) == 1 {
			p, _ := d.s.opt.Access.Bearer(values[0], addrOf(ctx)) // nobody, where it is none
			return p
		}
	}
	return access.Principal{}
}

// addrOf is the address that a call comes from.
func addrOf(ctx context.Context) string {
	if at, ok := peer.FromContext(ctx); ok && at.Addr != nil {
		return at.Addr.String()
	}
	return ""
}

// room notes whose connection a call comes by that shows a token.
func room(ctx context.Context, p access.Principal) error {
	if at, ok := peer.FromContext(ctx); ok && p.Token != "" {
		if i, ok := at.AuthInfo.(info); ok {
			return vouched(i.conn, p.Tenant)
		}
	}
	return nil
}

// allow decides about one call, and returns the context that it has.
func (d *door) allow(ctx context.Context, method string) (context.Context, context.CancelFunc, error) {
	p := d.principal(ctx)
	if err := room(ctx, p); err != nil {
		return nil, nil, jobFailure(err)
	}
	if _, err := access.Decide(p, method); err != nil {
		if d.s.opt.Denied != nil {
			d.s.opt.Denied(p, method, addrOf(ctx))
		}
		if errors.Is(err, access.ErrUnknown) {
			return nil, nil, status.Error(codes.Unauthenticated, err.Error())
		}
		return nil, nil, jobFailure(err)
	}
	ctx, release := d.s.opt.Access.Hold(access.At(access.With(ctx, p), addrOf(ctx)), p)
	return ctx, release, nil
}

func (d *door) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	ctx, release, err := d.allow(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	defer release()
	return next(ctx, req)
}

func (d *door) stream(srv any, st grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, release, err := d.allow(st.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	defer release()
	return next(srv, allowed{st, ctx})
}

// allowed is a stream whose context has who calls.
type allowed struct {
	grpc.ServerStream
	ctx context.Context
}

func (a allowed) Context() context.Context { return a.ctx }

// tap refuses a call by its headers alone. The interceptors come too late for who
// is not known: gRPC has read a call's message before it asks them, however long
// that takes, and a stranger may begin many.
func (d *door) tap(ctx context.Context, call *grpctap.Info) (context.Context, error) {
	_, release, err := d.allow(ctx, call.FullMethodName)
	if err != nil {
		return nil, err
	}
	release() // the interceptor holds who calls for as long as the call lasts
	return ctx, nil
}

// guarded are the options of a server with the door in front of all its methods,
// those that it has not as well.
func (d *door) guarded() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(serverCreds{}),
		grpc.UnaryInterceptor(d.unary), grpc.StreamInterceptor(d.stream),
		grpc.UnknownServiceHandler(func(_ any, st grpc.ServerStream) error {
			m, _ := grpc.MethodFromServerStream(st)
			return status.Errorf(codes.PermissionDenied, "%q is not for who calls", m)
		}),
		grpc.ConnectionTimeout(handshakeTime),
		grpc.MaxHeaderListSize(16 << 10),
	}
}
