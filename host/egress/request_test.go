package egress

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/wray-project/wray"
)

// spellings are URLs that lead, or may be read to lead, where their text does not
// say.
var spellings = []string{
	"", "example.com", "//example.com/", "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "HTTP://example.com/", "https:example.com", "https:/example.com", "https:///example.com", "http://",
	"http://2130706433/", "http://0x7f000001/", "http://0x7f.0.0.1/", "http://0177.0.0.1/", "http://017700000001/", "http://127.1/", "http://127.0.1/", "http://127.0.0.1./", "http://localhost./", "http://0/", "http://00000.0/",
	"http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[0:0:0:0:0:0:0:1]/", "http://[::1%25lo]/", "http://[::1%lo]/", "http://[fe80::1%25eth0]/", "http://::1/", "http://[::1]x/", "http://[127.0.0.1]/", "http://[example.com]/", "http://[::1/",
	"http://user@169.254.169.254/", "http://example.com@169.254.169.254/", "http://user:pass@example.com/", "http://example.com:80@169.254.169.254/", "http://example.com%40169.254.169.254/", "http://@example.com/", "http://example.com#@169.254.169.254/", "http://example.com/#x",
	"http://example.com\\@169.254.169.254/", "http://example.com\\.evil.net/", "http://169.254.169.254\t/", "http://ex ample.com/", "http://example.com /", " http://example.com/", "http://example.com/\r\nHost: x", "http://example.com/a b", "http://example.com/\x00",
	"http://\u2469\u2463.example/", "http://\uff11\uff12\uff17.0.0.1/", "http://127\u30020\u30020\u30021/", "http://ex\u00e4mple.com/", "http://%31%32%37.0.0.1/", "http://example%2ecom/",
	"http://example.com:/", "http://example.com:0/", "http://example.com:080/", "http://example.com:65536/", "http://example.com:-1/", "http://example.com:+80/", "http://example.com:80:80/", "http://example.com:http/", "http://example..com/", "http://.example.com/", "http://a_b.com/", "http://-a.com/",
}

// TestSpellings holds that no URL is taken that can be read in two ways.
func TestSpellings(t *testing.T) {
	if len(spellings) < 60 {
		t.Fatalf("%d spellings", len(spellings))
	}
	for _, text := range spellings {
		to, err := ParseURL(text)
		if err == nil {
			t.Errorf("%q is taken, and leads to %v", text, to.String())
		} else if !errors.Is(err, wray.ErrBadArgument) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for text, want := range map[string]string{
		"https://Example.COM/a?b=c": "example.com:443", "http://a.b:8080": "a.b:8080", "http://127.0.0.1/": "127.0.0.1:80", "https://[2001:db8::1]:8443/x": "[2001:db8::1]:8443", "https://a.b?c": "a.b:443",
		"http://[::1]": "[::1]:80", "http://a.b/%0d%0aHost:x": "a.b:80", "http://a.b/@c": "a.b:80",
	} {
		to, err := ParseURL(text)
		if err != nil || to.String() != want {
			t.Errorf("%s: %s, %v", text, to.String(), err)
		}
	}
}

// TestHeaders holds that a request has no header of the connection's, and no text in
// which another request begins.
func TestHeaders(t *testing.T) {
	ok := func(method string, h ...Header) error {
		_, err := (&Request{Method: method, URL: "https://a.b/", Header: h}).Parse()
		return err
	}
	for _, name := range []string{"Host", "hOST", "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "TE", "Trailer", "Transfer-Encoding", "transfer-encoding", "Upgrade", "Content-Length", "Expect", "", "a b", "a:", "a\r\nb", "Host ", "\u00e4"} {
		if ok("GET", Header{name, "x"}) == nil {
			t.Errorf("the header %q is sent", name)
		}
	}
	for _, value := range []string{"a\r\nHost: b", "a\nb", "a\x00", "a\rb", "\x7f"} {
		if ok("GET", Header{"X", value}) == nil {
			t.Errorf("the value %q is sent", value)
		}
	}
	for _, method := range []string{"", "CONNECT", "connect", "TRACE", "Track", "GET /", "GET\r\n", "G\x00T", strings.Repeat("A", 33)} {
		if ok(method) == nil {
			t.Errorf("the method %q is sent", method)
		}
	}
	if ok("GET", make([]Header, MaxHeaders+1)...) == nil || ok("GET", Header{"X", strings.Repeat("a", MaxHeaderBytes)}) == nil {
		t.Error("more headers than there may be")
	}
	if err := ok("PROPFIND", Header{"Authorization", "Bearer x"}, Header{"X-\u0041", "\u00fc"}); err != nil {
		t.Error(err)
	}
}

// FuzzURL holds that a URL that is taken leads where net/url says, to a host of one
// spelling.
func FuzzURL(f *testing.F) {
	for _, text := range spellings {
		f.Add(text)
	}
	f.Add("https://[2001:db8::1]:8443/x?y")
	f.Fuzz(func(t *testing.T, text string) {
		to, err := ParseURL(text)
		if err != nil {
			return
		}
		u, err := url.Parse(text)
		if err != nil || strings.ToLower(u.Hostname()) != to.Host || u.User != nil {
			t.Fatalf("%q leads to %s here, and to %v, %v, by net/url", text, to.String(), u, err)
		}
		if h, err := wray.CheckHost(to.Host); err != nil || h != to.Host {
			t.Fatalf("%q leads to the host %q: %v", text, to.Host, err)
		}
		if again, err := ParseURL(to.URL.String()); err != nil || again.String() != to.String() {
			t.Fatalf("%q is sent as %q, which leads to %s, %v", text, to.URL, again.String(), err)
		}
	})
}
