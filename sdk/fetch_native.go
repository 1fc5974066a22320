//go:build !wasip1

package sdk

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/wray-project/wray"
)

// direct asks as a node does: no proxy, no HTTP/2, nothing unpacked.
var direct = &http.Transport{DisableCompression: true, MaxResponseHeaderBytes: 64 << 10, IdleConnTimeout: 30 * time.Second,
	TLSHandshakeTimeout: 10 * time.Second}

// fetchTime is how long a request may take that names no time.
const fetchTime = 10 * time.Minute

func fetch(ctx context.Context, r *HTTPRequest) (*HTTPResponse, error) {
	limit := r.Timeout
	if limit == 0 {
		limit = fetchTime
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	var body io.Reader
	if len(r.Body) > 0 {
		body = bytes.NewReader(r.Body)
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, r.URL, body)
	if err != nil {
		cancel()
		return nil, wray.Errorf(wray.CodeBadArgument, "%v", err)
	}
	for _, h := range r.Header {
		req.Header.Add(h.Name, h.Value)
	}
	resp, err := direct.RoundTrip(req)
	if err != nil {
		over := ctx.Err()
		cancel()
		if over != nil {
			return nil, over
		}
		return nil, wray.Errorf(wray.CodeUserError, "%s %s: %v", r.Method, r.URL, err)
	}
	out := &HTTPResponse{Status: resp.StatusCode, Body: &closing{resp.Body, cancel}}
	names := make([]string, 0, len(resp.Header))
	for name := range resp.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, v := range resp.Header[name] {
			out.Header = append(out.Header, HTTPHeader{name, v})
		}
	}
	return out, nil
}

// closing ends a request with its body.
type closing struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (c *closing) Close() error {
	defer c.cancel()
	return c.ReadCloser.Close()
}
