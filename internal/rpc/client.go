package rpc

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/internal/rpc/internal/nodepb"
)

// Client calls one node. It connects when it is first used, and again, with
// pauses that grow, when the connection is lost.
type Client struct {
	name string
	conn *grpc.ClientConn
	last *atomic.Pointer[error] // why there was no handshake, the last time
}

// NewClient returns a client of the node of that name at an address HOST:PORT.
// Whoever answers there must have its certificate.
func NewClient(g *auth.Guard, name, addr string) (*Client, error) {
	last := new(atomic.Pointer[error])
	c, err := grpc.NewClient("passthrough:///"+addr, clientOptions(
		grpc.WithTransportCredentials(clientCreds{guard: g, name: name, last: last}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxFrame+1<<10), grpc.MaxCallSendMsgSize(MaxFrame+1<<10)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}),
		grpc.WithStaticStreamWindowSize(4<<20), grpc.WithStaticConnWindowSize(8<<20),
		grpc.WithWriteBufferSize(128<<10), grpc.WithReadBufferSize(128<<10),
	)...)
	if err != nil {
		return nil, fmt.Errorf("node %s at %s: %w", name, addr, err)
	}
	return &Client{name: name, conn: c, last: last}, nil
}

func clientOptions(more ...grpc.DialOption) []grpc.DialOption {
	return append([]grpc.DialOption{
		grpc.WithNoProxy(), // nodes reach each other directly
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0),
		grpc.WithConnectParams(grpc.ConnectParams{
			// A node that is back is found within seconds.
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
			MinConnectTimeout: handshakeTime,
		}),
	}, more...)
}

// Close ends the connection and what is called over it. It may be called more
// than once.
func (c *Client) Close() error {
	if err := c.conn.Close(); err != nil && status.Code(err) != codes.Canceled {
		return err
	}
	return nil
}

// Renew asks the node, which must be a head, for a new certificate.
func (c *Client) Renew(ctx context.Context, csr []byte) (auth.Grant, error) {
	g, err := grantOf(nodepb.NewIdentityClient(c.conn).Renew(ctx, &nodepb.RenewRequest{SigningRequest: csr}))
	if err != nil {
		return g, fmt.Errorf("node %s: %w", c.name, err)
	}
	return g, nil
}

// Session opens a stream for a session, and waits for the connection as long as
// ctx lets it. The stream ends with ctx.
func (c *Client) Session(ctx context.Context) (Stream, error) {
	s, err := nodepb.NewPeerClient(c.conn).Session(ctx, grpc.WaitForReady(true))
	if err != nil {
		return nil, fmt.Errorf("session with node %s: %w", c.name, callError(err))
	}
	return stream{s}, nil
}

// ErrHash says that what came is not what was asked for.
var ErrHash = errors.New("content has another hash")

// Blob writes to w the blob of that hash, which has limit bytes at most. What
// was written is worth nothing unless the error is nil: the hash is known last.
// After a connection that was lost it goes on where it was.
func (c *Client) Blob(ctx context.Context, hash [32]byte, limit int64, w io.Writer) (int64, error) {
	sum := sha256.New()
	var n, size int64 = 0, -1
	for try := 0; ; try++ {
		before := n
		err := c.blob(ctx, hash, limit, &n, &size, io.MultiWriter(sum, w))
		if err == nil {
			break
		}
		if n > before {
			try = 0
		}
		if !errors.Is(err, ErrUnavailable) || try == 3 {
			return n, fmt.Errorf("blob %x of node %s: %w", hash, c.name, err)
		}
	}
	if got := sum.Sum(nil); string(got) != string(hash[:]) {
		return n, fmt.Errorf("blob %x of node %s: %w: %x", hash, c.name, ErrHash, got)
	}
	return n, nil
}

func (c *Client) blob(ctx context.Context, hash [32]byte, limit int64, n, size *int64, w io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := nodepb.NewBlobClient(c.conn).Get(ctx, &nodepb.BlobRequest{Sha256: hash[:], Offset: *n}, grpc.WaitForReady(true))
	if err != nil {
		return callError(err)
	}
	for first := true; ; first = false {
		m, err := s.Recv()
		if err == io.EOF {
			if *n != *size {
				return fmt.Errorf("%w: it ended after %d of %d bytes", ErrUnavailable, *n, *size)
			}
			return nil
		}
		if status.Code(err) == codes.NotFound {
			return fs.ErrNotExist
		}
		if err != nil {
			return callError(err)
		}
		if first {
			if m.Size < 0 || m.Size > limit || *size >= 0 && m.Size != *size {
				return fmt.Errorf("it has %d bytes, at most %d are taken", m.Size, limit)
			}
			*size = m.Size
		}
		if int64(len(m.Data)) > *size-*n {
			return fmt.Errorf("%w: more came than the %d bytes that it has", ErrHash, *size)
		}
		k, err := w.Write(m.Data)
		*n += int64(k)
		if err != nil {
			return err
		}
	}
}

type blobService struct {
	nodepb.UnsafeBlobServer
	s *Server
}

func (b blobService) Get(req *nodepb.BlobRequest, st grpc.ServerStreamingServer[nodepb.BlobChunk]) error {
	var hash [32]byte
	if len(req.Sha256) != len(hash) || req.Offset < 0 {
		return status.Error(codes.InvalidArgument, "no SHA-256, or an offset below zero")
	}
	copy(hash[:], req.Sha256)
	if b.s.opt.Blob == nil {
		return status.Error(codes.NotFound, "this node has no blobs")
	}
	id, _ := Caller(st.Context())
	blob, size, err := b.s.opt.Blob(st.Context(), id, hash)
	if errors.Is(err, fs.ErrNotExist) {
		return status.Error(codes.NotFound, "there is none")
	}
	if err != nil {
		b.s.opt.Log("open blob %x for node %s: %v", hash, id.Name, err)
		return status.Error(codes.Internal, "it cannot be opened")
	}
	defer blob.Close()
	buf := make([]byte, blobChunk)
	for at, first := req.Offset, true; first || at < size; first = false {
		n, err := blob.ReadAt(buf[:max(0, min(int64(len(buf)), size-at))], at)
		if err != nil && (err != io.EOF || at+int64(n) < size) {
			b.s.opt.Log("read blob %x for node %s: %v", hash, id.Name, err)
			return status.Error(codes.Internal, "it cannot be read")
		}
		if err := st.Send(&nodepb.BlobChunk{Size: size, Data: buf[:n]}); err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

// Join asks a head at addr, for a machine that has a token, to sign a request
// of e. The head must be of the cluster that made the token, by its pin, before
// it is sent anything. It may be called again after any error.
func Join(ctx context.Context, addr string, token auth.Token, e *auth.Enrollment) (*auth.Credentials, error) {
	var mu sync.Mutex // gRPC may be in another handshake yet
	var trust *auth.Trust
	var shake error
	config := auth.JoinConfig(token, protoJoin, time.Now, func(t *auth.Trust) { trust = t })
	verify := config.VerifyConnection
	config.VerifyConnection = func(s tls.ConnectionState) error {
		mu.Lock()
		defer mu.Unlock()
		shake = verify(s)
		return shake
	}
	conn, err := grpc.NewClient("passthrough:///"+addr, clientOptions(
		grpc.WithTransportCredentials(joinCreds{config}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxJoin)),
	)...)
	if err != nil {
		return nil, fmt.Errorf("join at %s: %w", addr, err)
	}
	g, err := grantOf(nodepb.NewJoinClient(conn).Join(ctx, &nodepb.JoinRequest{
		TokenId: token.ID[:], TokenSecret: token.Secret[:], SigningRequest: e.Request,
	}))
	conn.Close()
	mu.Lock()
	defer mu.Unlock()
	if err != nil {
		if shake != nil { // gRPC keeps the text of it alone
			err = shake
		}
		return nil, fmt.Errorf("join at %s: %w", addr, err)
	}
	return e.Finish(g, trust, time.Now())
}
