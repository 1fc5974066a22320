// Package jobhttp is jobs as JSON over HTTP, for programs that have no gRPC. What
// it takes and gives is in docs/openapi.json, and a test holds the two to each
// other. Who calls was decided by package httpgate, before a request comes here.
package jobhttp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/access"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/httpgate"
	"github.com/wray-project/wray/internal/rpc"
)

// Bounds of a request.
const (
	maxSpec  = 1 << 20 // bytes of a job's spec, in JSON
	maxParts = 129     // of a submission: the spec, and modules
	// maxBody is the bytes of a submission: more than the modules that a node takes.
	maxBody = 1<<30 + 4<<20
)

// route is a method and a path that is served, with what serves it.
type route struct {
	method, path string
	serve        func(*server, http.ResponseWriter, *http.Request, rpc.Jobs) error
}

// routes are all that is served.
var routes = []route{
	{"POST", "/v1/jobs", (*server).submit},
	{"GET", "/v1/jobs", (*server).list},
	{"GET", "/v1/jobs/{id}", (*server).get},
	{"POST", "/v1/jobs/{id}/stop", (*server).stop},
	{"GET", "/v1/jobs/{id}/logs", (*server).logs},
}

type server struct{ jobs rpc.Jobs }

// New returns a handler that does what is asked for by jobs. It is to stand behind
// a gate: a request whose context has no principal is refused.
func New(jobs rpc.Jobs) *http.ServeMux {
	s := &server{jobs}
	mux := http.NewServeMux()
	for _, r := range routes {
		mux.HandleFunc(r.method+" "+r.path, func(w http.ResponseWriter, req *http.Request) {
			if access.From(req.Context()).Kind == access.Nobody {
				fail(w, wray.Errorf(wray.CodeDenied, "who calls is not known"))
				return
			}
			if err := r.serve(s, w, req, s.jobs); err != nil {
				fail(w, err)
			}
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, req *http.Request) {
		answer(w, http.StatusNotFound, httpgate.ErrorBody{Error: fmt.Sprintf("there is no %s %.100q", req.Method, req.URL.Path), Hint: "see docs/openapi.json"})
	})
	return mux
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // who is gone reads no answer
}

func fail(w http.ResponseWriter, err error) { httpgate.Fail(w, statusOf(err), err) }

func statusOf(err error) int {
	var large *http.MaxBytesError
	switch {
	case errors.Is(err, rpc.ErrNoJob):
		return http.StatusNotFound
	case errors.As(err, &large):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, wray.ErrTimeout):
		return http.StatusRequestTimeout
	case errors.Is(err, wray.ErrBadArgument), errors.Is(err, wray.ErrInvalidModule):
		return http.StatusBadRequest
	case errors.Is(err, wray.ErrDenied):
		return http.StatusForbidden
	case errors.Is(err, wray.ErrLimitExceeded):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, wray.ErrStoreFull), errors.Is(err, wray.ErrWorkerDied), errors.Is(err, wray.ErrCanceled):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

func bad(format string, args ...any) error { return wray.Errorf(wray.CodeBadArgument, format, args...) }

// submit takes a form: a part job, which may be left out, with the spec, and
// parts module, each a file whose name is the module's, the driver's first.
func (s *server) submit(w http.ResponseWriter, req *http.Request, jobs rpc.Jobs) error {
	who := access.From(req.Context())
	kind, params, err := mime.ParseMediaType(req.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" || params["boundary"] == "" {
		return bad("a job comes as multipart/form-data, and not as %.100q", req.Header.Get("Content-Type"))
	}
	req.Body = http.MaxBytesReader(w, &paced{ReadCloser: req.Body, control: http.NewResponseController(w), whole: time.Now().Add(uploadTime)}, maxBody)
	form := &form{r: multipart.NewReader(req.Body, params["boundary"])}
	if err := form.advance(); err != nil && err != io.EOF {
		return err
	}
	var spec clientwire.JobSpec
	if form.part != nil && form.part.FormName() == "job" {
		if spec, err = readSpec(form.part); err != nil {
			return err
		}
		if err := form.advance(); err != nil && err != io.EOF {
			return err
		}
	}
	info, err := jobs.SubmitJob(req.Context(), who, spec, form)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/v1/jobs/"+info.ID)
	answer(w, http.StatusCreated, info)
	return nil
}

// Bounds of an upload's time; variables for tests.
const uploadTime = 15 * time.Minute

var stallTime = rpc.StallTime

// paced is a request's body, of which rpc.StallBytes are to come in each
// stallTime, and all of it until whole.
type paced struct {
	io.ReadCloser
	control *http.ResponseController
	whole   time.Time
	left    int // bytes that are to come until the deadline
}

func (p *paced) Read(b []byte) (int, error) {
	if p.left <= 0 {
		p.left = rpc.StallBytes
		next := time.Now().Add(stallTime)
		if next.After(p.whole) {
			next = p.whole
		}
		_ = p.control.SetReadDeadline(next) // a test's recorder has none
	}
	n, err := p.ReadCloser.Read(b)
	p.left -= n
	if err == io.EOF { // what comes now is no part of it
		_ = p.control.SetReadDeadline(p.whole)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = rpc.Stalled()
	}
	return n, err
}

// readSpec decodes a job's spec. What it does not know it refuses: a mistyped
// limit would be none.
func readSpec(r io.Reader) (spec clientwire.JobSpec, err error) {
	b, err := io.ReadAll(io.LimitReader(r, maxSpec+1))
	if err != nil {
		return spec, bad("the job's spec does not come: %v", err)
	}
	if len(b) > maxSpec {
		return spec, bad("the job's spec has more than %d bytes", maxSpec)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&spec); err != nil {
		return spec, bad("the job's spec: %v", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return spec, bad("the job's spec: something follows it")
	}
	return spec, rpc.CheckSpec(&spec)
}

// form is a rpc.ModuleSource of a form's parts.
type form struct {
	r     *multipart.Reader
	part  *multipart.Part // that comes next; nil at the end
	count int
}

// cut says why something does not come whole.
func cut(what string, err error) error {
	if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
		return &wray.Error{Code: wray.CodeLimitExceeded, Message: what + " is too large", Limit: &wray.Limit{Name: "bytes of a request", Value: large.Limit, Unit: "bytes"}}
	}
	if errors.Is(err, wray.ErrTimeout) {
		return err
	}
	return bad("%s is damaged, or was cut off: %v", what, err)
}

// advance goes to the next part.
func (f *form) advance() error {
	f.part = nil
	if f.count++; f.count > maxParts {
		return bad("the form has more than %d parts", maxParts)
	}
	p, err := f.r.NextRawPart()
	if err == io.EOF {
		return err
	}
	if err != nil {
		return cut("the form", err)
	}
	f.part = p
	return nil
}

// Next implements rpc.ModuleSource.
func (f *form) Next() (string, io.Reader, error) {
	p := f.part
	if p == nil {
		return "", nil, io.EOF
	}
	if p.FormName() != "module" {
		return "", nil, bad("the form has a part %.60q; after job come modules alone", p.FormName())
	}
	name := strings.TrimSuffix(p.FileName(), ".wasm")
	if name == "" {
		return "", nil, bad("a module needs a name: that of its file")
	}
	return name, &content{f: f, p: p}, nil
}

// content is the bytes of a module. At its end the form goes on.
type content struct {
	f *form
	p *multipart.Part
}

func (c *content) Read(b []byte) (int, error) {
	n, err := c.p.Read(b)
	switch {
	case err == io.EOF:
		if c.f.part == c.p {
			if aerr := c.f.advance(); aerr != nil && aerr != io.EOF {
				return n, aerr
			}
		}
	case err != nil:
		err = cut("a module", err)
	}
	return n, err
}

func (s *server) list(w http.ResponseWriter, req *http.Request, jobs rpc.Jobs) error {
	who := access.From(req.Context())
	list, err := jobs.Jobs(req.Context(), who)
	if err != nil {
		return err
	}
	if list.Jobs == nil {
		list.Jobs = []clientwire.JobInfo{}
	}
	answer(w, http.StatusOK, list)
	return nil
}

func (s *server) get(w http.ResponseWriter, req *http.Request, jobs rpc.Jobs) error {
	who := access.From(req.Context())
	info, err := jobs.Job(req.Context(), who, req.PathValue("id"))
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, info)
	return nil
}

func (s *server) stop(w http.ResponseWriter, req *http.Request, jobs rpc.Jobs) error {
	who := access.From(req.Context())
	info, err := jobs.StopJob(req.Context(), who, req.PathValue("id"))
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, info)
	return nil
}

// logLine is a line of the logs. One field is set.
type logLine struct {
	Output  *clientwire.JobLine `json:"output,omitempty"`
	Dropped int64               `json:"dropped,omitempty"` // bytes of the log that are kept no more
	Next    int64               `json:"next,omitempty"`    // an offset to go on from
	Error   string              `json:"error,omitempty"`   // the logs end before their end
}

// logs gives what a job printed as lines of JSON; with follow until it has ended.
func (s *server) logs(w http.ResponseWriter, req *http.Request, jobs rpc.Jobs) error {
	who := access.From(req.Context())
	query := req.URL.Query()
	offset, follow := int64(0), false
	if v := query.Get("offset"); v != "" {
		var err error
		if offset, err = strconv.ParseInt(v, 10, 64); err != nil || offset < 0 {
			return bad("offset=%.30q is no number of 0 or more", v)
		}
	}
	if v := query.Get("follow"); v != "" {
		var err error
		if follow, err = strconv.ParseBool(v); err != nil {
			return bad("follow=%.30q is neither true nor false", v)
		}
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // that of the request, which has come whole
	enc := json.NewEncoder(w)
	for begun := false; ; begun = true {
		part, err := jobs.JobLogs(req.Context(), who, req.PathValue("id"), offset, follow && begun)
		if err != nil {
			if begun {
				_ = enc.Encode(logLine{Error: err.Error()})
				return nil
			}
			return err
		}
		if !begun {
			w.Header().Set("Content-Type", "application/x-ndjson")
			w.Header().Set("X-Content-Type-Options", "nosniff")
			w.WriteHeader(http.StatusOK)
		}
		_ = control.SetWriteDeadline(time.Now().Add(writeTime))
		if part.Dropped > 0 {
			err = enc.Encode(logLine{Dropped: part.Dropped})
		}
		for i := range part.Parts {
			line := part.Parts[i].Line()
			err = errors.Join(err, enc.Encode(logLine{Output: &line}))
		}
		if len(part.Parts) > 0 || part.Dropped > 0 {
			err = errors.Join(err, enc.Encode(logLine{Next: part.Next}))
		}
		if err := errors.Join(err, control.Flush()); err != nil {
			return nil // who read is gone
		}
		if part.End || !follow && len(part.Parts) == 0 {
			return nil
		}
		offset = part.Next
	}
}

// writeTime is how long a reader may take for a part of the logs.
const writeTime = time.Minute
