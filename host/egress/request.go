// Package egress is what a guest asks of a server: an HTTP request, checked by its
// text, before anything is looked up. What two programs might read in two ways is
// no request. Package client sends it.
package egress

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/wray-project/wray"
	"golang.org/x/net/http/httpguts"
)

// Bounds of a request and its answer.
const (
	MaxURL           = 8 << 10  // bytes
	MaxHeaders       = 100      // of a request, and of an answer
	MaxHeaderBytes   = 64 << 10 // of all together
	MaxRequestBytes  = 1 << 30  // of a body
	MaxResponseBytes = 16 << 30
)

// Header is a header of a request or of an answer.
type Header struct {
	Name  string `cbor:"1,keyasint"`
	Value string `cbor:"2,keyasint"`
}

// Request is what is asked.
type Request struct {
	Method string
	URL    string
	Header []Header
}

// Target is where a request goes.
type Target struct {
	URL  *url.URL
	Host string // as wray.CheckHost returns it
	Port int
	Addr netip.Addr // of a Host that is one
}

// ownHeaders are those of the connection, which the client alone sets.
var ownHeaders = map[string]bool{
	"host": true, "connection": true, "keep-alive": true, "proxy-connection": true, "proxy-authorization": true, "proxy-authenticate": true,
	"te": true, "trailer": true, "transfer-encoding": true, "upgrade": true, "content-length": true, "expect": true, "http2-settings": true,
}

func bad(format string, args ...any) error { return wray.Errorf(wray.CodeBadArgument, format, args...) }

// Parse checks a request, and returns where it goes. Errors are of
// CodeBadArgument.
func (r *Request) Parse() (t Target, err error) {
	if !httpguts.ValidHeaderFieldName(r.Method) || len(r.Method) > 32 {
		return t, bad("%.40q is not a method", r.Method)
	}
	switch strings.ToUpper(r.Method) {
	case "CONNECT", "TRACE", "TRACK":
		return t, bad("the method %s is not for programs", strings.ToUpper(r.Method))
	}
	if t, err = ParseURL(r.URL); err != nil {
		return t, err
	}
	if len(r.Header) > MaxHeaders {
		return t, bad("%d headers, the most are %d", len(r.Header), MaxHeaders)
	}
	size := 0
	for _, h := range r.Header {
		size += len(h.Name) + len(h.Value)
		switch {
		case !httpguts.ValidHeaderFieldName(h.Name):
			return t, bad("%.80q is not the name of a header", h.Name)
		case ownHeaders[strings.ToLower(h.Name)]:
			return t, bad("the header %s is set by who sends the request", h.Name)
		case !httpguts.ValidHeaderFieldValue(h.Value):
			return t, bad("the header %s has a value with line ends or other control characters", h.Name)
		}
	}
	if size > MaxHeaderBytes {
		return t, bad("headers of %d bytes, the most are %d", size, MaxHeaderBytes)
	}
	return t, nil
}

// ParseURL checks a URL, and returns where it leads.
func ParseURL(text string) (t Target, err error) {
	if len(text) > MaxURL {
		return t, bad("a URL of %d bytes, the most are %d", len(text), MaxURL)
	}
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c >= 0x7f || c == '\\' {
			return t, bad("the URL %.200q has a blank, a backslash or what is not ASCII in it", text)
		}
	}
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok || scheme != "http" && scheme != "https" {
		return t, bad("the URL %.200q begins with neither https:// nor http://", text)
	}
	// The authority is what every reader takes for it: net/url is asked for the rest.
	authority := rest
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority = rest[:i]
	}
	if strings.ContainsAny(authority, "@%") {
		return t, bad("the URL %.200q has a user or an escape before its path", text)
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return t, bad("the URL %.200q cannot be read: %v", text, err)
	case u.Host != authority || u.User != nil || u.Opaque != "" || u.Scheme != scheme:
		return t, bad("the URL %.200q can be read in two ways", text)
	case u.Fragment != "" || strings.Contains(text, "#"):
		return t, bad("the URL %.200q has a fragment, which no server is asked for", text)
	}
	t.URL, t.Port = u, wray.PortHTTPS
	if scheme == "http" {
		t.Port = wray.PortHTTP
	}
	host, port := authority, ""
	if i := strings.LastIndexByte(authority, ':'); i >= 0 && !strings.HasSuffix(authority, "]") {
		host, port = authority[:i], authority[i+1:]
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || port[0] < '1' || port[0] > '9' {
			return t, bad("the URL %.200q: %.20q is not a port", text, port)
		}
		t.Port = int(n)
	}
	if strings.HasPrefix(host, "[") != strings.HasSuffix(host, "]") || strings.HasPrefix(host, "[") != strings.Contains(host, ":") {
		return t, bad("the URL %.200q: an IPv6 address, and it alone, stands in brackets", text)
	}
	if t.Host, err = wray.CheckHost(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")); err != nil {
		return t, bad("the URL %.200q: %v", text, err)
	}
	t.Addr, _ = netip.ParseAddr(t.Host)
	if t.URL.Host = t.Host; t.Addr.Is6() {
		t.URL.Host = "[" + t.Host + "]"
	}
	if port != "" {
		t.URL.Host += ":" + port
	}
	return t, nil
}

// String is the host and port, for errors.
func (t *Target) String() string { return HostPort(t.Host, t.Port) }

// HostPort is a host and a port as a rule has them.
func HostPort(host string, port int) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return fmt.Sprintf("%s:%d", host, port)
}
