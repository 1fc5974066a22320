// Package httpgate stands in front of all that is served over HTTP: it finds out
// who makes a request, has package access decide, and refuses what browsers send
// for pages of others. A route that nobody has put into access's table is
// refused. What is behind it finds who asks by access.From.
package httpgate

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/access"
)

// Options say how requests are let in.
type Options struct {
	// Certified returns who has made the connection of a request, by a
	// certificate; nobody where there was none.
	Certified func(*http.Request) access.Principal
	// Check knows bearer tokens; nil knows none.
	Check *access.Checker
	// Hosts are names, without a port, by which the server is called beside
	// addresses and localhost. A page whose name leads here (DNS rebinding) has
	// another.
	Hosts []string
	// MaxBody is the most bytes of a request's body; 0 is no bound.
	MaxBody int64
	// Known is told of requests that show a good token, and whose: an error refuses
	// the request, as there are too many. It may be nil.
	Known func(*http.Request, access.Principal) error
	// Denied is told of requests that were refused. It may be nil.
	Denied func(p access.Principal, call, from string)
}

// gate is a handler in front of another.
type gate struct {
	o      Options
	mux    *http.ServeMux
	origin http.CrossOriginProtection
}

// New returns a handler that lets requests through to mux.
func New(mux *http.ServeMux, o Options) http.Handler { return &gate{o: o, mux: mux} }

// ErrorBody is the body of an answer that is no success.
type ErrorBody struct {
	Error string `json:"error"`
	Code  string `json:"code,omitempty"` // the class of a wray.Error
	Hint  string `json:"hint,omitempty"`
}

// Fail answers with an error.
func Fail(w http.ResponseWriter, status int, err error) {
	body := ErrorBody{Error: err.Error()}
	if e := (*wray.Error)(nil); errors.As(err, &e) {
		body.Error, body.Code, body.Hint = strings.TrimPrefix(e.Error(), e.Code.String()+": "), e.Code.String(), e.Hint
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // who is gone reads no answer
}

func denied(what, hint string) error {
	return &wray.Error{Code: wray.CodeDenied, Message: what, Hint: hint}
}

// hostAllowed reports whether a request's Host is this server: an address, which
// no page can pretend to be at, or a name that is known.
func (g *gate) hostAllowed(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	if net.ParseIP(name) != nil {
		return true
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return name == "localhost" || slices.Contains(g.o.Hosts, name)
}

// ServeHTTP implements http.Handler.
func (g *gate) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	// What was asked for, as it is recorded: what a path has that is served by no
	// route may be anything, a secret as well.
	_, pattern := g.mux.Handler(req)
	call := pattern
	if pattern == "" || pattern == "/" {
		call = "HTTP " + req.Method
	}
	refuse := func(p access.Principal, status int, err error) {
		if g.o.Denied != nil {
			g.o.Denied(p, call, req.RemoteAddr)
		}
		Fail(w, status, err)
	}
	if !g.hostAllowed(req.Host) {
		refuse(access.Principal{}, http.StatusMisdirectedRequest, denied("this server is not known by the name that the request calls it", "call it by its address, or start the node with --http-host NAME"))
		return
	}
	p := g.o.Certified(req)
	byCertificate := p.Kind != access.Nobody
	if !byCertificate {
		var err error
		if p, err = g.o.Check.Bearer(req.Header.Get("Authorization"), req.RemoteAddr); err == nil && g.o.Known != nil {
			if err := g.o.Known(req, p); err != nil {
				refuse(p, http.StatusTooManyRequests, err)
				return
			}
		}
	}
	// A browser that has the certificate shows it for every page; a token it shows
	// for none, so that only what a page of this server does with it is left.
	fromPage := req.Header.Get("Origin") != "" || req.Header.Get("Sec-Fetch-Site") != ""
	check := req
	if req.Header.Get("Upgrade") != "" { // what a WebSocket does is no reading
		check = req.Clone(req.Context())
		check.Method = http.MethodPost
	}
	if byCertificate && fromPage || g.origin.Check(check) != nil {
		refuse(p, http.StatusForbidden, denied("pages of browsers are not served", "use a token, from a program"))
		return
	}
	if p.Kind == access.Nobody {
		w.Header().Set("WWW-Authenticate", "Bearer")
		refuse(p, http.StatusUnauthorized, denied(access.ErrUnknown.Error(), "send a token as Authorization: Bearer TOKEN, or a certificate"))
		return
	}
	if pattern == "" || pattern == "/" { // there is no such route, and all may know which there are
		g.mux.ServeHTTP(w, req)
		return
	}
	if _, err := access.Decide(p, pattern); err != nil {
		refuse(p, http.StatusForbidden, err)
		return
	}
	ctx, release := g.o.Check.Hold(access.At(access.With(req.Context(), p), req.RemoteAddr), p)
	defer release()
	if g.o.MaxBody > 0 {
		req.Body = http.MaxBytesReader(w, req.Body, g.o.MaxBody)
	}
	g.mux.ServeHTTP(w, req.WithContext(ctx))
}
