package client

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/egress"
)

// TestDialEnds holds that who gives up a request ends the connection that is made
// for it: the transport would go on by itself.
func TestDialEnds(t *testing.T) {
	dialing, over := make(chan struct{}), make(chan error, 1)
	var held atomic.Int64
	c := New(Config{Resolver: &names{of: map[string][]string{"far.example": {"93.184.216.34"}}},
		Hold: func() (func(), error) { held.Add(1); return func() { held.Add(-1) }, nil },
		Connect: func(ctx context.Context, _ netip.AddrPort) (net.Conn, error) {
			close(dialing)
			<-ctx.Done()
			over <- ctx.Err()
			return nil, ctx.Err()
		}})
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := c.Do(ctx, &egress.Request{Method: "GET", URL: "http://far.example/"}, nil, 0, anything)
		ended <- err
	}()
	<-dialing
	cancel()
	if err := <-ended; !errors.Is(err, wray.ErrCanceled) {
		t.Errorf("the request: %v", err)
	}
	if err := <-over; !errors.Is(err, context.Canceled) {
		t.Errorf("the connection: %v", err)
	}
	// What was held is given back when dial returns, of which nobody else is told.
	for held.Load() != 0 || len(c.conns) != 0 {
		runtime.Gosched()
	}
}

// TestConnsBounded holds that a client has no more than MaxConns connections, that
// each is held until it is closed, and that none is made where none may be.
func TestConnsBounded(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	var held atomic.Int64
	asked := 0
	full := errors.New("no descriptors")
	var why error
	c := New(Config{Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Hold: func() (func(), error) {
		if why != nil {
			return nil, why
		}
		asked++
		held.Add(1)
		return func() { held.Add(-1) }, nil
	}})
	address := s.Listener.Addr().String()
	var conns []net.Conn
	for range MaxConns {
		conn, err := c.dial(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 64 { // what is over begins all the same half of the time, where there is room
		if _, err := c.dial(ctx, "tcp", address); !errors.Is(err, context.Canceled) || asked != MaxConns {
			t.Fatalf("one more: %v, and %d were held", err, asked)
		}
	}
	for _, conn := range conns {
		conn.Close()
		conn.Close() // the second gives nothing back
	}
	if held.Load() != 0 || len(c.conns) != 0 {
		t.Errorf("%d are held after all were closed", held.Load())
	}
	why = full
	if _, err := c.dial(t.Context(), "tcp", address); !errors.Is(err, full) || len(c.conns) != 0 {
		t.Errorf("without a descriptor: %v", err)
	}
}

// TestCredentials holds that no policy opens where clouds tell credentials.
func TestCredentials(t *testing.T) {
	var s sentinel
	c := New(Config{Resolver: &names{}, Connect: s.connect, Private: []netip.Prefix{
		netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("168.63.0.0/16")}})
	defer c.Close()
	for _, url := range []string{"http://[fd00:ec2::254]/", "http://[fd20:ce::254]/", "http://100.100.100.200/", "http://192.0.0.192/", "http://168.63.129.16/"} {
		if _, err := c.Do(t.Context(), &egress.Request{Method: "GET", URL: url}, nil, 0, anything); !errors.Is(err, wray.ErrDenied) {
			t.Errorf("%s: %v", url, err)
		}
	}
	if s.touched.Load() != 0 {
		t.Errorf("%d connections were made", s.touched.Load())
	}
	if _, err := c.Do(t.Context(), &egress.Request{Method: "GET", URL: "http://100.100.100.201/"}, nil, 0, anything); errors.Is(err, wray.ErrDenied) {
		t.Errorf("beside one of them, where a policy opened the network: %v", err)
	}
}
