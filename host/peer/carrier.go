package peer

import (
	"context"
	"sync"

	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/internal/rpc"
)

// NewCarrier returns the carrier of a node in a cluster: gRPC over TLS, to nodes
// that the guard lets in.
func NewCarrier(g *auth.Guard) Carrier { return carrier{g} }

type carrier struct{ guard *auth.Guard }

func (c carrier) Dial(ctx context.Context, name, addr string) (Conn, error) {
	client, err := rpc.NewClient(c.guard, name, addr)
	if err != nil {
		return nil, err
	}
	// The stream outlives ctx, which is for dialing.
	life, cancel := context.WithCancel(context.Background())
	stop := context.AfterFunc(ctx, cancel)
	s, err := client.Session(life)
	if err == nil && !stop() {
		err = ctx.Err()
	}
	if err != nil {
		cancel()
		client.Close()
		return nil, err
	}
	return &dialed{Stream: s, cancel: cancel, client: client}, nil
}

type dialed struct {
	rpc.Stream
	cancel context.CancelFunc
	client *rpc.Client
}

func (d *dialed) Close() error {
	d.cancel()
	return d.client.Close()
}

// Serve is the Session of rpc.Options: it serves what the node from calls for.
func (m *Mesh) Serve(ctx context.Context, from auth.Identity, s rpc.Stream) error {
	a := &accepted{Stream: s, closed: make(chan struct{})}
	// A call ends when its handler returns, and with it whatever receives.
	done := make(chan error, 1)
	go func() { done <- m.Accept(from.Name, a) }()
	select {
	case err := <-done:
		return err
	case <-a.closed:
	case <-ctx.Done():
	}
	return nil
}

type accepted struct {
	rpc.Stream
	closed chan struct{}
	once   sync.Once
}

func (a *accepted) Close() error {
	a.once.Do(func() { close(a.closed) })
	return nil
}
