package etcdstore

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/wray-project/wray/host/control"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// DialOptions say which etcd to use.
type DialOptions struct {
	// Endpoints are addresses of its members, host:port.
	Endpoints []string
	// TLS says who they must be, and who this node is. It may be nil only where
	// all endpoints are loopback addresses.
	TLS *tls.Config
	// User and Password, where the etcd asks for them.
	User, Password string
	// Prefix of the keys, by default Prefix. Two clusters in one etcd have
	// different ones.
	Prefix string
}

// outside is an etcd that runs elsewhere: who its members are is not for heads
// to say, so it is no control.Quorum.
type outside struct{ control.Store }

// Dial uses an etcd that runs elsewhere, and returns when it has answered.
func Dial(ctx context.Context, o DialOptions) (control.Store, error) {
	if len(o.Endpoints) == 0 {
		return nil, fmt.Errorf("%w: no address of an etcd", control.ErrInvalid)
	}
	for _, e := range o.Endpoints {
		host, _, err := net.SplitHostPort(e)
		if err != nil {
			return nil, fmt.Errorf("%w: etcd at %q; an address is host:port", control.ErrInvalid, e)
		}
		if ip := net.ParseIP(host); o.TLS == nil && (ip == nil || !ip.IsLoopback()) {
			return nil, fmt.Errorf("%w: etcd at %s without TLS: give it certificates; without, only a loopback address is used", control.ErrInvalid, e)
		}
	}
	if o.Prefix == "" {
		o.Prefix = Prefix
	}
	c, err := clientv3.New(clientv3.Config{
		Endpoints: o.Endpoints,
		TLS:       o.TLS,
		Username:  o.User,
		Password:  o.Password,
		// A member that went away without a word is noticed.
		DialKeepAliveTime:    2 * time.Second,
		DialKeepAliveTimeout: 2 * time.Second,
		DialTimeout:          control.Patience,
		MaxUnaryRetries:      3,
		Logger:               zap.NewNop(),
		Context:              context.WithoutCancel(ctx),
	})
	if err != nil {
		return nil, fmt.Errorf("etcd at %v: %w", o.Endpoints, control.Unavailable("connect", err))
	}
	s := newStore(c, o.Prefix)
	leases := pb.NewLeaseClient(c.ActiveConnection())
	s.renew = func(ctx context.Context, id clientv3.LeaseID) (int64, error) {
		// Not KeepAliveOnce, which spins while there is no leader.
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := leases.LeaseKeepAlive(ctx)
		if err != nil {
			return 0, err
		}
		// What Send has to say, but for io.EOF, Recv says too.
		if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(id)}); err != nil && err != io.EOF {
			return 0, err
		}
		r, err := stream.Recv()
		if err != nil {
			return 0, err
		}
		return r.TTL, nil
	}
	s.shut = sync.OnceValue(c.Close)
	if _, err := s.List(ctx, control.ListRequest{Limit: 1}); err != nil {
		s.Close()
		return nil, fmt.Errorf("etcd at %v: %w", o.Endpoints, err)
	}
	return outside{s}, nil
}
