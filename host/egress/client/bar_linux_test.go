package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/egress"
	"github.com/wray-project/wray/internal/testenv"
)

// TestBar13 tries to reach a server of this machine that no policy opens, in all
// ways in which such a one is spelled, by names that lead there, by a name that
// leads there the second time, and by an answer that leads there. Connections are
// made by the real dialer: none may arrive.
func TestBar13(t *testing.T) {
	l, err := net.Listen("tcp", "0.0.0.0:0") // and so at each of this machine's addresses
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	arrived := make(chan string, 1<<10) // from where
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			arrived <- conn.RemoteAddr().String()
			conn.Close()
		}
	}()
	port := l.Addr().(*net.TCPAddr).Port
	// A server that may be asked, and leads to the one that may not.
	open, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	leads := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, fmt.Sprintf("http://127.0.0.1:%d%s", port, r.URL.Path), http.StatusTemporaryRedirect)
	}))
	leads.Listener = open
	leads.Start()
	defer leads.Close()

	n := &names{of: map[string][]string{
		"loop.example": {"127.0.0.1"}, "mapped.example": {"::ffff:127.0.0.1"}, "nat64.example": {"64:ff9b::7f00:1"}, "old.example": {"::7f00:1"}, "any.example": {"0.0.0.0"}, "any6.example": {"::"}, "loop6.example": {"::1"},
		"some.example": {"93.184.216.34 127.0.0.1"}, "other.example": {"127.0.0.1 93.184.216.34"}, "sixtofour.example": {"2002:7f00:1::"}, "localhost": {"127.0.0.1"},
		"rebind.example": {"127.0.0.2", "127.0.0.1"},
	}}
	c := New(Config{Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}, Resolver: n})
	defer c.Close()
	ask := func(url string) (*Response, error) {
		return c.Do(t.Context(), &egress.Request{Method: "GET", URL: url}, nil, 0, anything)
	}
	hosts := []string{
		"127.0.0.1", "127.1", "127.0.1", "127.0.0.1.", "2130706433", "0x7f000001", "0x7f.0.0.1", "0x7f.1", "0177.0.0.1", "017700000001", "127.0.0.01", "0127.0.0.1", "00000127.0.0.1", "127.000.000.001", "4294967295.127.0.0.1",
		"0", "0.0.0.0", "0x0", "[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[::127.0.0.1]", "[::1%25lo]", "[::1%lo]", "[64:ff9b::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
		"localhost", "LOCALHOST", "localhost.", "127.0.0.2@127.0.0.1", "a:b@127.0.0.1", "127.0.0.1%2f", "%31%32%37.0.0.1", "127。0。0。1", "①②⑦.⓪.⓪.①", "127.0.0.1\t", "127.0.0.1\\", " 127.0.0.1",
		"loop.example", "mapped.example", "nat64.example", "old.example", "any.example", "any6.example", "loop6.example", "some.example", "other.example", "sixtofour.example",
	}
	for a := range localAddrs(t) {
		hosts = append(hosts, a)
	}
	for _, h := range hosts {
		n.asked.Store(0)
		for _, url := range []string{fmt.Sprintf("http://%s:%d/", h, port), fmt.Sprintf("https://%s:%d/", h, port)} {
			if r, err := ask(url); err == nil {
				r.Body.Close()
				t.Errorf("%s is answered", url)
			} else if !errors.Is(err, wray.ErrDenied) && !errors.Is(err, wray.ErrBadArgument) {
				t.Errorf("%s: %v", url, err)
			}
		}
	}
	// What may be asked the first time may not when its name leads elsewhere.
	n.asked.Store(0)
	url := fmt.Sprintf("http://rebind.example:%d/", open.Addr().(*net.TCPAddr).Port)
	if r, err := ask(url); err != nil || r.Status != http.StatusTemporaryRedirect {
		t.Errorf("%+v, %v", r, err)
	} else {
		r.Body.Close()
	}
	c.Close()
	if _, err := ask(fmt.Sprintf("http://rebind.example:%d/", port)); !errors.Is(err, wray.ErrDenied) {
		t.Errorf("the second time: %v", err)
	}
	// A guest that follows an answer asks anew.
	r, err := ask(leads.URL)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	for _, h := range r.Header {
		if h.Name == "Location" {
			if _, err := ask(h.Value); !errors.Is(err, wray.ErrDenied) {
				t.Errorf("%s: %v", h.Value, err)
			}
		}
	}
	// One more that is seen, after all that came before it.
	conn, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got := 0
	for from := range arrived {
		if from == conn.LocalAddr().String() {
			break
		}
		got++
	}
	if got > 0 {
		t.Errorf("%d connections arrived", got)
	}
	testenv.Bar(t, 13, got, fmt.Sprintf("connections that arrived, of %d spellings, redirects and rebinding", len(hosts)), got == 0 && len(hosts) >= 50)
}

// localAddrs are the addresses of this machine, as URLs have them, that are not
// of the public internet: others are refused by Config.Own.
func localAddrs(t *testing.T) map[string]bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, x := range addrs {
		p, ok := x.(*net.IPNet)
		if !ok {
			continue
		}
		if a, ok := netip.AddrFromSlice(p.IP); ok && checkPublic(a.Unmap()) != nil {
			text := a.Unmap().String()
			if strings.Contains(text, ":") {
				text = "[" + text + "]"
			}
			all[text] = true
		}
	}
	return all
}
