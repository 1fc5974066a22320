package guest

import (
	"context"
	"time"
	"unsafe"

	"github.com/wray-project/wray/wasm/abi"
)

// HTTPRequest is what a server is asked.
type HTTPRequest struct {
	Method, URL string
	Header      []string // names and values in turn
	Body        *Ref     // an object; nil: none
	Timeout     time.Duration
}

// Fetch begins an HTTP request, and returns the stream of its answer: the head in
// CBOR, and then the parts of the body. ctx bounds the wait for the request's body
// alone; a stream that is dropped ends the request.
func Fetch(ctx context.Context, r *HTTPRequest) (*Ref, error) {
	var headers []byte
	for _, h := range r.Header {
		headers = append(append(headers, h...), 0)
	}
	// In the heap, where what it points to is not moved and kept alive until the
	// import has returned.
	raw := &rawHTTPRequest{
		urlPtr: uint32(uintptr(unsafe.Pointer(unsafe.StringData(r.URL)))), urlLen: uint32(len(r.URL)),
		methodPtr: uint32(uintptr(unsafe.Pointer(unsafe.StringData(r.Method)))), methodLen: uint32(len(r.Method)),
		headersPtr: bytesAddr(headers), headersLen: uint32(len(headers)), timeout: uint64(r.Timeout),
	}
	staged = fetchStage{r, headers}
	defer func() { staged = fetchStage{} }()
	for {
		if r.Body != nil {
			h, err := r.Body.live()
			if err != nil {
				return nil, err
			}
			raw.body = h
		}
		s := takeScratch()
		e := importHTTPFetch(raw, &s.out)
		h := s.out
		s.give()
		switch abi.Errno(e) {
		case abi.Success:
			return newRef(h, 0), nil
		case abi.EAGAIN:
			if err := r.Body.comeBack(ctx); err != nil {
				return nil, err
			}
		case abi.ENOMEM:
			if why := refused(e); !Reclaim() {
				return nil, why
			}
		default:
			return nil, refused(e)
		}
	}
}

// fetchStage keeps in the heap, and alive, what a raw request points to.
type fetchStage struct {
	r       *HTTPRequest
	headers []byte
}

var staged fetchStage
