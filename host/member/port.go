package member

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
)

// listen opens a TCP and a UDP port of the same number. Where any will do, one
// that is free of both is looked for.
func listen(addr, advertise string) (*port, error) {
	host, number, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("listen at %q: %w", addr, err)
	}
	for try := 0; ; try++ {
		tcp, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, err
		}
		at := net.JoinHostPort(host, strconv.Itoa(tcp.Addr().(*net.TCPAddr).Port))
		udp, err := net.ListenPacket("udp", at)
		if err != nil {
			tcp.Close()
			if number == "0" && try < 16 {
				continue
			}
			return nil, err
		}
		p := &port{advertise: advertise, tcp: tcp, udp: udp, streams: &streams{addr: tcp.Addr(), conns: make(chan net.Conn), done: make(chan struct{})}}
		if advertise == "" {
			p.advertise = at
		}
		if ip := net.ParseIP(host); advertise == "" && (host == "" || ip != nil && ip.IsUnspecified()) {
			_ = p.Close()
			return nil, fmt.Errorf("listening at %s says not how others reach this node: advertise an address of this machine", addr)
		}
		return p, nil
	}
}

// Close closes what nobody took over, or did.
func (p *port) Close() error {
	ignore := func(err error) error {
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		return err
	}
	return errors.Join(ignore(p.tcp.Close()), ignore(p.udp.Close()), p.streams.Close())
}

// plain takes a connection that begins without TLS: gossip, which has a key of
// its own.
func (p *port) plain(c net.Conn) {
	select {
	case p.streams.conns <- c:
	case <-p.streams.done:
		c.Close()
	}
}

// dial connects to the gossip of another node.
func (p *port) dial(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

// streams is a listener of the connections that plain takes.
type streams struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// Accept implements net.Listener.
func (s *streams) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (s *streams) Close() error {
	s.once.Do(func() { close(s.done) })
	return nil
}

// Addr implements net.Listener.
func (s *streams) Addr() net.Addr { return s.addr }
