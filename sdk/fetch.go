package sdk

import (
	"context"
	"io"
	"time"

	"github.com/wray-project/wray"
)

// Grants gives a task, or an actor, fewer grants than its job has: what is named,
// of what whoever submits it has, and nothing else.
//
//	parse.With(sdk.Grants())                                  // nothing at all
//	load.With(sdk.Grants("egress=api.example.com", "dir=/data:ro"))
//
// A grant is "dir=/PATH", a granted directory by its path in the sandbox,
// "dir=/PATH:ro", the same for reading alone, or "egress=HOST[:PORT]". Nothing is
// added that the job was not given with --dir and --egress; and what the task
// submits has no more than it. It runs in a sandbox that no other task has used, on
// the node of its job. What it is passed, such as an actor, it may use. In one
// process (go run) everything is granted.
func Grants(grants ...string) Option {
	return func(o *options) {
		var g wray.Grants
		for _, text := range grants {
			if err := g.ParseGrant(text); err != nil {
				o.bad("Grants: %v", err)
				return
			}
		}
		o.grants = string(g.Append(nil))
	}
}

// HTTPHeader is a header of a request or of an answer.
type HTTPHeader struct{ Name, Value string }

// HTTPRequest is what a server is asked.
type HTTPRequest struct {
	Method string // empty: GET
	URL    string // http:// or https://
	Header []HTTPHeader
	Body   []byte
	// Timeout bounds all of it, with the reading of the answer. 0: ten minutes. An
	// hour is the most.
	Timeout time.Duration
}

// HTTPResponse is an answer.
type HTTPResponse struct {
	Status int
	Header []HTTPHeader
	// Body is what the server sends, as it comes. Close it: a request whose answer
	// nobody reads ends then.
	Body io.ReadCloser
}

// Fetch asks a server over HTTP, and returns when its answer has begun. The node
// makes the request, where the job was granted it (wray run --egress HOST) and the
// policy of its tenant has it; else the error is a wray.ErrDenied. Redirects are not
// followed, and nothing is decompressed. A server that cannot be reached, and an
// answer that breaks off, are wray.ErrUserError, and one that takes too long is
// wray.ErrTimeout. When ctx ends the request does, too, and so does the reading of
// Body.
//
// Package wrayhttp has an http.RoundTripper that is made of it.
//
// In one process (go run), and in the driver of a native client, the program makes
// the request itself, with its own rights.
func Fetch(ctx context.Context, r HTTPRequest) (*HTTPResponse, error) {
	if r.Method == "" {
		r.Method = "GET"
	}
	if r.Timeout < 0 {
		return nil, wray.Errorf(wray.CodeBadArgument, "fetch: a timeout of %v", r.Timeout)
	}
	resp, err := fetch(ctx, &r)
	return resp, local("fetch", err)
}
