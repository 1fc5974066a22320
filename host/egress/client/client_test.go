package client

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/egress"
)

// names is a resolver: of each name the addresses of its first look-up, of its
// second, and so on; the last ones stay.
type names struct {
	of    map[string][]string
	asked atomic.Int64
}

func (n *names) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	at := n.asked.Add(1) - 1
	if network != "ip" || !strings.HasSuffix(host, ".") {
		return nil, fmt.Errorf("asked for %s of %q", network, host)
	}
	answers := n.of[strings.TrimSuffix(host, ".")]
	if answers == nil {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	var list []netip.Addr
	for text := range strings.SplitSeq(answers[min(int(at), len(answers)-1)], " ") {
		list = append(list, netip.MustParseAddr(text))
	}
	return list, nil
}

// sentinel counts what is connected to, which is nothing.
type sentinel struct{ touched atomic.Int64 }

func (s *sentinel) connect(_ context.Context, a netip.AddrPort) (net.Conn, error) {
	s.touched.Add(1)
	return nil, fmt.Errorf("connected to %v", a)
}

func anything(string, int) error { return nil }

// TestAddresses holds which addresses are not asked, whatever name leads there, and
// that nothing is sent to one.
func TestAddresses(t *testing.T) {
	refused := []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255", "127.0.0.1", "127.1.2.3", "168.63.129.16", "169.254.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255",
		"192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "2002:7f00:1::", "2002:a9fe:a9fe::1",
		"3fff::1", "4000::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "::ffff:0:7f00:1",
	}
	var s sentinel
	n := &names{of: map[string][]string{}}
	c := New(Config{Resolver: n, Connect: s.connect})
	defer c.Close()
	ask := func(url string) error {
		_, err := c.Do(t.Context(), &egress.Request{Method: "GET", URL: url}, nil, 0, anything)
		return err
	}
	for _, text := range refused {
		n.of["inner.example"] = []string{text}
		n.of["mixed.example"] = []string{"93.184.216.34 " + text} // one of them is enough
		for _, url := range []string{"http://inner.example/", "https://inner.example:8443/", "http://mixed.example/"} {
			n.asked.Store(0)
			if err := ask(url); !errors.Is(err, wray.ErrDenied) {
				t.Errorf("%s, which is at %s: %v", url, text, err)
			}
		}
		a := netip.MustParseAddr(text)
		host := text
		if a.Is6() {
			host = "[" + text + "]"
		}
		if err := ask("http://" + host + "/"); !errors.Is(err, wray.ErrDenied) && !errors.Is(err, wray.ErrBadArgument) {
			t.Errorf("http://%s/: %v", host, err)
		}
	}
	for _, zone := range []string{"fe80::1%eth0", "2606:2800::1%eth0"} {
		n.of["zone.example"] = []string{zone}
		if err := ask("http://zone.example/"); !errors.Is(err, wray.ErrDenied) {
			t.Errorf("%s: %v", zone, err)
		}
	}
	if got := s.touched.Load(); got != 0 {
		t.Errorf("%d connections were made", got)
	}
	for _, text := range []string{"93.184.216.34", "1.1.1.1", "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::5db8:d822"} {
		n.of["outer.example"] = []string{text}
		before := s.touched.Load()
		if err := ask("http://outer.example/"); errors.Is(err, wray.ErrDenied) || s.touched.Load() != before+1 {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestOwnAddresses holds that the addresses of nodes are asked where a policy opens
// them, and their own ports never.
func TestOwnAddresses(t *testing.T) {
	var s sentinel
	own := func(a netip.AddrPort) (bool, bool) {
		return a.Addr() == netip.MustParseAddr("93.184.216.34") || a.Addr() == netip.MustParseAddr("10.1.1.1"), a.Port() == 7420
	}
	for at, want := range map[string]bool{"93.184.216.34:80": false, "93.184.216.34:7420": false, "10.1.1.1:80": true, "10.1.1.1:7420": false, "10.2.1.1:80": true, "11.1.1.1:7420": false, "11.1.1.1:80": true, "127.0.0.1:80": false} {
		c := New(Config{Private: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Own: own, Resolver: &names{}, Connect: s.connect})
		_, err := c.Do(t.Context(), &egress.Request{Method: "GET", URL: "http://" + at + "/"}, nil, 0, anything)
		if got := !errors.Is(err, wray.ErrDenied); got != want {
			t.Errorf("%s: %v", at, err)
		}
		c.Close()
	}
}

// TestRebinding holds that the address that was checked is the one that is connected
// to: the name is looked up once, and a name that leads elsewhere later leads nowhere.
func TestRebinding(t *testing.T) {
	inner := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the inner server was asked") }))
	defer inner.Close()
	n := &names{of: map[string][]string{"rebind.example": {"93.184.216.34", "127.0.0.1"}}}
	var at []netip.AddrPort
	c := New(Config{Resolver: n, Connect: func(_ context.Context, a netip.AddrPort) (net.Conn, error) {
		at = append(at, a)
		return nil, errors.New("down")
	}})
	defer c.Close()
	port := inner.Listener.Addr().(*net.TCPAddr).Port
	req := &egress.Request{Method: "GET", URL: fmt.Sprintf("http://rebind.example:%d/", port)}
	if _, err := c.Do(t.Context(), req, nil, 0, anything); !errors.Is(err, wray.ErrUserError) {
		t.Errorf("the first time: %v", err)
	}
	if n.asked.Load() != 1 || len(at) != 1 || at[0].Addr() != netip.MustParseAddr("93.184.216.34") {
		t.Errorf("looked up %d times, connected to %v", n.asked.Load(), at)
	}
	if _, err := c.Do(t.Context(), req, nil, 0, anything); !errors.Is(err, wray.ErrDenied) || len(at) != 1 {
		t.Errorf("the second time: %v, connected to %v", err, at)
	}
	// The real way to connect looks once more.
	real := New(Config{})
	defer real.Close()
	if conn, err := real.connect(t.Context(), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port))); !errors.Is(err, wray.ErrDenied) {
		t.Errorf("connected to loopback: %v, %v", conn, err)
	}
}

// loopback returns a client that may ask servers of this machine.
func loopback(t *testing.T) *Client {
	c := New(Config{Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	t.Cleanup(c.Close)
	return c
}

// TestRedirect holds that an answer that leads on is an answer, and is not followed.
func TestRedirect(t *testing.T) {
	var s atomic.Int64
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { s.Add(1) }))
	defer target.Close()
	for _, to := range []string{"http://169.254.169.254/latest/meta-data/", target.URL, "//127.0.0.1/", "file:///etc/passwd"} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusFound)
		}))
		r, err := loopback(t).Do(t.Context(), &egress.Request{Method: "GET", URL: srv.URL}, nil, 0, anything)
		if err != nil || r.Status != http.StatusFound {
			t.Errorf("%s: %+v, %v", to, r, err)
		} else {
			r.Body.Close()
		}
		srv.Close()
	}
	if s.Load() != 0 {
		t.Error("it was followed")
	}
}

// TestNothingOfTheNodes holds that a request has no proxy, credential or cookie of
// the environment's, and that an answer is not unpacked.
func TestNothingOfTheNodes(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1/")
	t.Setenv("http_proxy", "http://127.0.0.1:1/")
	t.Setenv("ALL_PROXY", "http://127.0.0.1:1/")
	var got http.Header
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Clone()
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = z.Write(make([]byte, 1<<20))
		_ = z.Close()
	}))
	defer srv.Close()
	// Not by its address: Go itself uses no proxy for loopback.
	c := New(Config{Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Resolver: &names{of: map[string][]string{"srv.example": {"127.0.0.1"}}}})
	defer c.Close()
	url := fmt.Sprintf("http://srv.example:%d/", srv.Listener.Addr().(*net.TCPAddr).Port)
	r, err := c.Do(t.Context(), &egress.Request{Method: "GET", URL: url, Header: []egress.Header{{Name: "X-One", Value: "1"}}}, nil, 0, anything)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || len(b) > 64<<10 || len(b) < 100 || b[0] != 0x1f {
		t.Errorf("%d bytes came: %v", len(b), err)
	}
	if len(got) != 2 || got.Get("X-One") != "1" || got.Get("User-Agent") != "wray" {
		t.Errorf("it was asked with %v", got)
	}
}

// TestBadAnswers holds that answers which two readers might read in two ways, or
// that never end, are failures and nothing more.
func TestBadAnswers(t *testing.T) {
	for name, answer := range map[string]string{
		"two lengths":      "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhelloX",
		"a bad length":     "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
		"a bad chunk":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
		"a strange coding": "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\nhello",
		"too few bytes":    "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello",
		"another protocol": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello",
		"long headers":     "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", egress.MaxHeaderBytes) + "\r\n\r\n",
		"many headers":     "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: a\r\n", egress.MaxHeaders+1) + "\r\n",
		"no HTTP":          "SSH-2.0-x\r\n",
		"nothing":          "",
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, _ = io.WriteString(conn, answer)
			}
		}()
		r, err := loopback(t).Do(t.Context(), &egress.Request{Method: "GET", URL: "http://" + l.Addr().String()}, nil, 0, anything)
		if err == nil {
			_, err = io.ReadAll(r.Body)
			r.Body.Close()
		}
		if err == nil {
			t.Errorf("%s: an answer", name)
		}
		l.Close()
	}
}

// TestTLS holds that a server is one of whom the system's authorities know.
func TestTLS(t *testing.T) {
	srv := httptest.NewTLSServer(http.NotFoundHandler())
	srv.Config.ErrorLog = nil
	defer srv.Close()
	req := &egress.Request{Method: "GET", URL: srv.URL}
	if _, err := loopback(t).Do(t.Context(), req, nil, 0, anything); !errors.Is(err, wray.ErrUserError) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown authority: %v", err)
	}
	pool := srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	c := New(Config{Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Roots: pool})
	defer c.Close()
	r, err := c.Do(t.Context(), req, nil, 0, anything)
	if err != nil || r.Status != http.StatusNotFound {
		t.Fatalf("%+v, %v", r, err)
	}
	r.Body.Close()
}

// TestBodies holds that bodies pass both ways, of the length that was said.
func TestBodies(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	defer srv.Close()
	text := strings.Repeat("x", 1<<20)
	c := loopback(t)
	r, err := c.Do(t.Context(), &egress.Request{Method: "POST", URL: srv.URL}, io.NopCloser(strings.NewReader(text)), int64(len(text)), anything)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r.Body)
	r.Body.Close()
	if err != nil || string(b) != text {
		t.Errorf("%d bytes came back: %v", len(b), err)
	}
	if r, err := c.Do(t.Context(), &egress.Request{Method: "POST", URL: srv.URL}, io.NopCloser(strings.NewReader("x")), 2, anything); err == nil {
		r.Body.Close()
		t.Error("a body shorter than its length was sent")
	}
	no := errors.New("no")
	if _, err := c.Do(t.Context(), &egress.Request{Method: "GET", URL: srv.URL}, nil, 0, func(string, int) error { return no }); err != no {
		t.Errorf("not allowed: %v", err)
	}
}
