// Package peoplehttp is users and their tokens as JSON over HTTP: what a head
// serves, and how a program asks. Who asks was decided by package httpgate,
// before a request comes here; what is done is given to it.
package peoplehttp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/access"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/httpgate"
	"github.com/wray-project/wray/internal/link"
)

// maxBody is the bytes of a request, and maxReply those of an answer.
const (
	maxBody  = 64 << 10
	maxReply = 64 << 20
)

// Route is a method and a path, and the message that they are.
type Route struct {
	Method, Path string
	Kind         link.Kind
	field        func(*clientwire.PeopleBody) *string // that the path names; nil where it names none
}

// Routes are all that is served.
var Routes = []Route{
	{"GET", "/v1/users", clientwire.KindUserList, nil},
	{"POST", "/v1/users", clientwire.KindUserAdd, nil},
	{"PATCH", "/v1/users/{name}", clientwire.KindUserSet, user},
	{"DELETE", "/v1/users/{name}", clientwire.KindUserRemove, user},
	{"GET", "/v1/tokens", clientwire.KindTokenList, nil},
	{"POST", "/v1/tokens", clientwire.KindTokenCreate, nil},
	{"DELETE", "/v1/tokens/{name}", clientwire.KindTokenRevoke, func(b *clientwire.PeopleBody) *string { return &b.Token }},
}

func user(b *clientwire.PeopleBody) *string { return &b.User }

// Ask does what a message asks, of the principal of its context.
type Ask func(ctx context.Context, kind link.Kind, b clientwire.PeopleBody) (any, error)

// Mount serves all routes, which is to stand behind a gate.
func Mount(mux *http.ServeMux, ask Ask) {
	for _, r := range Routes {
		mux.HandleFunc(r.Method+" "+r.Path, func(w http.ResponseWriter, req *http.Request) {
			if access.From(req.Context()).Kind == access.Nobody {
				httpgate.Fail(w, http.StatusUnauthorized, access.ErrUnknown)
				return
			}
			b, err := read(w, req, &r)
			if err != nil {
				httpgate.Fail(w, status(err), err)
				return
			}
			out, err := ask(req.Context(), r.Kind, b)
			if err != nil {
				httpgate.Fail(w, status(err), err)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("X-Content-Type-Options", "nosniff")
			w.Header().Set("Cache-Control", "no-store") // there may be a token in it
			_ = json.NewEncoder(w).Encode(out)          // who is gone reads no answer
		})
	}
}

func read(w http.ResponseWriter, req *http.Request, r *Route) (b clientwire.PeopleBody, err error) {
	q, err := query(req)
	if err != nil {
		return b, err
	}
	if req.Method == http.MethodGet {
		return clientwire.PeopleBody{Tenant: q["tenant"], User: q["user"], All: q["all"] == "true"}, nil
	}
	d := json.NewDecoder(http.MaxBytesReader(w, req.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&b); err != nil && !errors.Is(err, io.EOF) { // of DELETE there may be none
		return b, wray.Errorf(wray.CodeBadArgument, "the request's body: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return b, wray.Errorf(wray.CodeBadArgument, "the request's body: there is more after the object")
	}
	if t, ok := q["tenant"]; ok {
		if b.Tenant != "" && b.Tenant != t {
			return b, wray.Errorf(wray.CodeBadArgument, "the request names two tenants: %.70q and, in its body, %.70q", t, b.Tenant)
		}
		b.Tenant = t
	}
	if r.field != nil {
		*r.field(&b) = req.PathValue("name")
	}
	return b, nil
}

// query is what a request asks for behind its path. What is not understood is
// refused: whoever says for whom a request is must not have it done for another.
func query(req *http.Request) (map[string]string, error) {
	values, err := url.ParseQuery(req.URL.RawQuery)
	if err != nil {
		return nil, wray.Errorf(wray.CodeBadArgument, "the request's query: %v", err)
	}
	q := map[string]string{}
	for name, v := range values {
		known := name == "tenant" || req.Method == http.MethodGet && (name == "user" || name == "all")
		if !known || len(v) != 1 {
			return nil, wray.Errorf(wray.CodeBadArgument, "the request's query has %.70q %d times, which is nothing that can be asked of %s %s", name, len(v), req.Method, req.URL.Path)
		}
		if name == "all" && v[0] != "true" && v[0] != "false" {
			return nil, wray.Errorf(wray.CodeBadArgument, "the request's query has all=%.70q, which is neither true nor false", v[0])
		}
		q[name] = v[0]
	}
	return q, nil
}

func status(err error) int {
	switch {
	case errors.Is(err, wray.ErrBadArgument):
		return http.StatusBadRequest
	case errors.Is(err, wray.ErrDenied):
		return http.StatusForbidden
	case errors.Is(err, wray.ErrLimitExceeded):
		return http.StatusTooManyRequests
	}
	return http.StatusServiceUnavailable
}

// Do asks the node at an address, HOST:PORT, and decodes its answer into out.
// client shows who asks.
func Do(ctx context.Context, client *http.Client, addr string, header http.Header, kind link.Kind, b clientwire.PeopleBody, out any) error {
	for _, r := range Routes {
		if r.Kind != kind {
			continue
		}
		path := r.Path
		if r.field != nil {
			path = strings.ReplaceAll(path, "{name}", url.PathEscape(*r.field(&b)))
			*r.field(&b) = "" // it is not said twice
		}
		var body io.Reader
		if r.Method == http.MethodGet {
			q := url.Values{"tenant": {b.Tenant}, "user": {b.User}}
			if b.All {
				q.Set("all", "true")
			}
			path += "?" + q.Encode()
		} else {
			text, err := json.Marshal(b)
			if err != nil {
				return err
			}
			body = bytes.NewReader(text)
		}
		req, err := http.NewRequestWithContext(ctx, r.Method, "https://"+addr+path, body)
		if err != nil {
			return err
		}
		for k, v := range header {
			req.Header[k] = v
		}
		return answer(client.Do(req))(out)
	}
	return fmt.Errorf("BUG: message %d has no route", kind)
}

// answer reads an answer, or the error that it is.
func answer(res *http.Response, err error) func(out any) error {
	return func(out any) error {
		if err != nil {
			return err
		}
		defer res.Body.Close()
		d := json.NewDecoder(io.LimitReader(res.Body, maxReply))
		if res.StatusCode == http.StatusOK {
			return d.Decode(out)
		}
		var e httpgate.ErrorBody
		if err := d.Decode(&e); err != nil || e.Error == "" {
			return fmt.Errorf("the node answers %s", res.Status)
		}
		code := wray.CodeInternal
		switch res.StatusCode {
		case http.StatusBadRequest:
			code = wray.CodeBadArgument
		case http.StatusForbidden, http.StatusUnauthorized, http.StatusMisdirectedRequest:
			code = wray.CodeDenied
		case http.StatusTooManyRequests:
			code = wray.CodeLimitExceeded
		}
		return &wray.Error{Code: code, Message: e.Error, Hint: e.Hint}
	}
}
