package sdk

import (
	"context"
	"io"

	"github.com/fxamacker/cbor/v2"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk/internal/rt"
	"github.com/wray-project/wray/wasm/abi"
)

func fetch(ctx context.Context, r *HTTPRequest) (*HTTPResponse, error) {
	q := rt.HTTPRequest{Method: r.Method, URL: r.URL, Timeout: r.Timeout}
	for _, h := range r.Header {
		q.Header = append(q.Header, h.Name, h.Value)
	}
	if len(r.Body) > 0 {
		body, err := rt.Put(ctx, &rt.Value{Encoding: abi.EncodingRaw, Data: r.Body})
		if err != nil {
			return nil, err
		}
		defer body.Drop() // the host has its own reference
		q.Body = body
	}
	st, err := rt.Fetch(ctx, &q)
	if err != nil {
		return nil, err
	}
	body := &answer{ctx: ctx, stream: st}
	head, err := body.next()
	if err == io.EOF {
		err = wray.Errorf(wray.CodeInternal, "an answer without a head")
	}
	if err != nil {
		body.Close()
		return nil, err
	}
	var h struct {
		Status int      `cbor:"1,keyasint"`
		Header []string `cbor:"2,keyasint"`
	}
	if err := cbor.Unmarshal(head, &h); err != nil || len(h.Header)%2 != 0 {
		body.Close()
		return nil, wray.Errorf(wray.CodeInternal, "the head of an answer cannot be read: %v", err)
	}
	out := &HTTPResponse{Status: h.Status, Body: body}
	for i := 0; i < len(h.Header); i += 2 {
		out.Header = append(out.Header, HTTPHeader{h.Header[i], h.Header[i+1]})
	}
	return out, nil
}

// answer is the body of an HTTP answer, read from its stream.
type answer struct {
	ctx    context.Context
	stream *rt.Ref
	rest   []byte
	err    error
}

// next returns the next item, or io.EOF.
func (a *answer) next() ([]byte, error) {
	r, err := a.stream.Next(a.ctx)
	if err != nil {
		return nil, local("fetch", err)
	}
	if r == nil {
		return nil, io.EOF
	}
	defer r.Drop()
	var v rt.Value
	if err := r.Get(a.ctx, &v, nil); err != nil {
		return nil, local("fetch", err)
	}
	defer v.Release()
	if v.Encoding == abi.EncodingError {
		return nil, decodeFailure(v.Data)
	}
	return append([]byte(nil), v.Data...), nil
}

func (a *answer) Read(p []byte) (int, error) {
	for len(a.rest) == 0 && a.err == nil {
		a.rest, a.err = a.next()
	}
	if len(a.rest) == 0 {
		return 0, a.err
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

func (a *answer) Close() error {
	if a.stream != nil {
		a.stream.Drop()
		a.stream = nil
	}
	a.rest = nil
	if a.err == nil {
		a.err = wray.Errorf(wray.CodeBadArgument, "the body of an answer was closed")
	}
	return nil
}
