// Package wrayhttp lets programs that use net/http ask servers from within a
// sandbox, which has no network:
//
//	client := &http.Client{Transport: wrayhttp.Transport}
//	resp, err := client.Get("https://api.example.com/v1/items")
//
// It is a package of its own as net/http is some megabytes of a guest; sdk.Fetch
// does without.
package wrayhttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wray-project/wray/sdk"
)

// MaxBody is the most bytes of a request's body, which is read to its end before
// the request begins.
const MaxBody = 256 << 20

// Transport makes requests as sdk.Fetch does, where the job was granted them. It
// keeps no connections: the node does.
var Transport http.RoundTripper = transport{}

type transport struct{}

// RoundTrip implements http.RoundTripper.
func (transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		defer req.Body.Close()
	}
	switch {
	case req.URL == nil:
		return nil, errors.New("wrayhttp: a request without a URL")
	case req.Host != "" && !strings.EqualFold(req.Host, req.URL.Host):
		return nil, fmt.Errorf("wrayhttp: a request to %s with the Host %s: the host of the URL alone is sent", req.URL.Host, req.Host)
	}
	u := *req.URL
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	q := sdk.HTTPRequest{Method: req.Method, URL: u.String()}
	for name, values := range req.Header {
		for _, v := range values {
			q.Header = append(q.Header, sdk.HTTPHeader{Name: name, Value: v})
		}
	}
	slices.SortStableFunc(q.Header, func(a, b sdk.HTTPHeader) int { return strings.Compare(a.Name, b.Name) })
	if req.Body != nil {
		b, err := io.ReadAll(io.LimitReader(req.Body, MaxBody+1))
		if err != nil {
			return nil, err
		}
		if len(b) > MaxBody {
			return nil, fmt.Errorf("wrayhttp: the body of a request has more than %d bytes", MaxBody)
		}
		q.Body = b
	}
	if d, ok := req.Context().Deadline(); ok {
		q.Timeout = max(time.Until(d), 1)
	}
	r, err := sdk.Fetch(req.Context(), q)
	if err != nil {
		return nil, err
	}
	resp := &http.Response{StatusCode: r.Status, Status: strings.TrimSpace(strconv.Itoa(r.Status) + " " + http.StatusText(r.Status)),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: r.Body, ContentLength: -1, Request: req}
	for _, h := range r.Header {
		resp.Header.Add(h.Name, h.Value)
	}
	if n, err := strconv.ParseInt(resp.Header.Get("Content-Length"), 10, 64); err == nil && n >= 0 {
		resp.ContentLength = n
	}
	return resp, nil
}

// Get is http.Get through Transport.
func Get(ctx context.Context, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return (&http.Client{Transport: Transport}).Do(req)
}
