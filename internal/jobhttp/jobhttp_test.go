package jobhttp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/access"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/httpgate"
	"github.com/wray-project/wray/internal/peoplehttp"
	"github.com/wray-project/wray/internal/rpc"
	"github.com/wray-project/wray/internal/testenv"
)

// fakeJobs has one job, which has printed a part for each offset below 3.
type fakeJobs struct {
	spec    clientwire.JobSpec
	modules []string // name and content
}

var fakeInfo = clientwire.JobInfo{ID: "job-1", Name: "prog", Args: []string{"a"}, Node: "n", State: clientwire.JobRunning, Submitted: 1, Started: 2}

func (f *fakeJobs) SubmitJob(_ context.Context, _ access.Principal, spec clientwire.JobSpec, modules rpc.ModuleSource) (clientwire.JobInfo, error) {
	f.spec, f.modules = spec, nil
	for {
		name, content, err := modules.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fakeInfo, err
		}
		b, err := io.ReadAll(content)
		if err != nil {
			return fakeInfo, err
		}
		f.modules = append(f.modules, name, string(b))
	}
	if len(f.modules) == 0 {
		return fakeInfo, wray.Errorf(wray.CodeBadArgument, "no module")
	}
	return fakeInfo, nil
}

func (f *fakeJobs) Jobs(context.Context, access.Principal) (clientwire.JobList, error) {
	return clientwire.JobList{Jobs: []clientwire.JobInfo{fakeInfo}}, nil
}

func (f *fakeJobs) Job(_ context.Context, _ access.Principal, id string) (clientwire.JobInfo, error) {
	if id != fakeInfo.ID {
		return clientwire.JobInfo{}, errors.Join(rpc.ErrNoJob, &wray.Error{Code: wray.CodeBadArgument, Message: "there is none", Hint: "see the list"})
	}
	return fakeInfo, nil
}

func (f *fakeJobs) StopJob(ctx context.Context, from access.Principal, id string) (clientwire.JobInfo, error) {
	return f.Job(ctx, from, id)
}

func (f *fakeJobs) JobLogs(ctx context.Context, from access.Principal, id string, offset int64, wait bool) (clientwire.JobLogs, error) {
	if _, err := f.Job(ctx, from, id); err != nil {
		return clientwire.JobLogs{}, err
	}
	switch {
	case offset > 3:
		return clientwire.JobLogs{}, wray.Errorf(wray.CodeBadArgument, "no part begins there")
	case offset == 3 && wait:
		return clientwire.JobLogs{Next: 3, End: true}, nil
	case offset == 3:
		return clientwire.JobLogs{Next: 3}, nil
	}
	data := []byte(fmt.Sprint("line ", offset))
	if offset == 2 {
		data = []byte{0xff}
	}
	part := clientwire.JobLogs{Next: offset + 1, Parts: []clientwire.JobOutput{{Time: 7, Stream: clientwire.Stdout, Data: data}}}
	if offset == 0 {
		part.Dropped = 99
	}
	return part, nil
}

// operator is who asks.
var operator = access.Principal{Kind: access.Certed, Tenant: access.Home, Role: access.Developer, Name: "o"}

// ask makes a request as an operator does.
func ask(t testing.TB, h http.Handler, method, target string, header http.Header, body io.Reader) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequest(method, target, body)
	if header != nil {
		req.Header = header
	}
	req = req.WithContext(access.With(req.Context(), operator))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

// formOf makes a form of name and content, the part's name before a colon.
func formOf(parts ...string) (http.Header, *bytes.Buffer) {
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	for i := 0; i < len(parts); i += 2 {
		field, file, isFile := strings.Cut(parts[i], ":")
		var w io.Writer
		if isFile {
			w, _ = m.CreateFormFile(field, file)
		} else {
			w, _ = m.CreateFormField(field)
		}
		_, _ = io.WriteString(w, parts[i+1])
	}
	m.Close()
	return http.Header{"Content-Type": {m.FormDataContentType()}}, &b
}

// TestSubmit submits jobs, right ones and wrong ones.
func TestSubmit(t *testing.T) {
	f := &fakeJobs{}
	h := New(f)
	header, body := formOf("job", `{"args":["x","y"],"env":["K=v"],"memory":1048576,"timeout_ms":5}`, "module:prog.wasm", "\x00asm", "module:lib.wasm", "")
	w := ask(t, h, "POST", "/v1/jobs", header, body)
	var info clientwire.JobInfo
	if err := json.Unmarshal(w.Body.Bytes(), &info); err != nil || w.Code != http.StatusCreated || info.ID != "job-1" || w.Header().Get("Location") != "/v1/jobs/job-1" {
		t.Errorf("submitted: %d, %v, %s", w.Code, err, w.Body)
	}
	if want := (clientwire.JobSpec{Args: []string{"x", "y"}, Env: []string{"K=v"}, Memory: 1 << 20, Timeout: 5}); !reflect.DeepEqual(f.spec, want) {
		t.Errorf("with %+v", f.spec)
	}
	if !slices.Equal(f.modules, []string{"prog", "\x00asm", "lib", ""}) {
		t.Errorf("modules %q", f.modules)
	}
	header, body = formOf("module:prog.wasm", "x")
	if w := ask(t, h, "POST", "/v1/jobs", header, body); w.Code != http.StatusCreated {
		t.Errorf("without a spec: %d, %s", w.Code, w.Body)
	}
	many := make([]string, 0, 2*maxParts+2)
	for range maxParts + 1 {
		many = append(many, "module:m.wasm", "")
	}
	for name, parts := range map[string][]string{
		"nothing":            {},
		"a spec alone":       {"job", "{}"},
		"an unknown field":   {"job", `{"memroy":1}`, "module:p.wasm", "x"},
		"a wrong type":       {"job", `{"args":"x"}`, "module:p.wasm", "x"},
		"two values":         {"job", `{} {}`, "module:p.wasm", "x"},
		"a variable alone":   {"job", `{"env":["K"]}`, "module:p.wasm", "x"},
		"a long spec":        {"job", "{}" + strings.Repeat(" ", maxSpec), "module:p.wasm", "x"},
		"no name":            {"module", "x"},
		"a spec at the end":  {"module:p.wasm", "x", "job", "{}"},
		"a part of no sense": {"job", "{}", "other:p.wasm", "x"},
		"too many parts":     many,
	} {
		header, body := formOf(parts...)
		w := ask(t, h, "POST", "/v1/jobs", header, body)
		var e httpgate.ErrorBody
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || w.Code != http.StatusBadRequest || e.Error == "" || e.Code != "BadArgument" {
			t.Errorf("%s: %d, %s", name, w.Code, w.Body)
		}
	}
	header, body = formOf("module:prog.wasm", strings.Repeat("x", 1000))
	body.Truncate(500)
	if w := ask(t, h, "POST", "/v1/jobs", header, body); w.Code != http.StatusBadRequest {
		t.Errorf("a form that was cut off: %d, %s", w.Code, w.Body)
	}
	if w := ask(t, h, "POST", "/v1/jobs", http.Header{"Content-Type": {"application/json"}}, strings.NewReader("{}")); w.Code != http.StatusBadRequest {
		t.Errorf("JSON: %d, %s", w.Code, w.Body)
	}
}

// TestAsk asks after jobs, and reads logs.
func TestAsk(t *testing.T) {
	h := New(&fakeJobs{})
	for target, want := range map[string]string{
		"GET /v1/jobs":                                 `200 {"jobs":[{"id":"job-1","name":"prog","args":["a"],"node":"n","state":"running","submitted_ms":1,"started_ms":2,"exit_code":0}]}`,
		"GET /v1/jobs/job-1":                           `200 {"id":"job-1","name":"prog","args":["a"],"node":"n","state":"running","submitted_ms":1,"started_ms":2,"exit_code":0}`,
		"POST /v1/jobs/job-1/stop":                     `200 {"id":"job-1","name":"prog","args":["a"],"node":"n","state":"running","submitted_ms":1,"started_ms":2,"exit_code":0}`,
		"GET /v1/jobs/job-2":                           `404 {"error":"there is none","code":"BadArgument","hint":"see the list"}`,
		"GET /v1/jobs/job-2/logs":                      `404 {"error":"there is none","code":"BadArgument","hint":"see the list"}`,
		"GET /v1/nothing":                              `404 {"error":"there is no GET \"/v1/nothing\"","hint":"see docs/openapi.json"}`,
		"GET /v1/jobs/job-1/logs":                      `200 {"dropped":99}{"output":{"time_ms":7,"stream":"stdout","text":"line 0"}}{"next":1}{"output":{"time_ms":7,"stream":"stdout","text":"line 1"}}{"next":2}{"output":{"time_ms":7,"stream":"stdout","data":"/w=="}}{"next":3}`,
		"GET /v1/jobs/job-1/logs?offset=2&follow=true": `200 {"output":{"time_ms":7,"stream":"stdout","data":"/w=="}}{"next":3}`,
		"GET /v1/jobs/job-1/logs?offset=4":             `400 {"error":"no part begins there","code":"BadArgument"}`,
		"GET /v1/jobs/job-1/logs?offset=-1":            `400 {"error":"offset=\"-1\" is no number of 0 or more","code":"BadArgument"}`,
		"GET /v1/jobs/job-1/logs?follow=maybe":         `400 {"error":"follow=\"maybe\" is neither true nor false","code":"BadArgument"}`,
	} {
		method, path, _ := strings.Cut(target, " ")
		w := ask(t, h, method, path, nil, nil)
		if got := fmt.Sprint(w.Code, " ", strings.ReplaceAll(w.Body.String(), "\n", "")); got != want {
			t.Errorf("%s:\n%s, want\n%s", target, got, want)
		}
	}
	if w := ask(t, h, "DELETE", "/v1/jobs/job-1", nil, nil); w.Code != http.StatusNotFound && w.Code != http.StatusMethodNotAllowed {
		t.Errorf("DELETE: %d", w.Code)
	}
}

// TestStrangers holds that who is not known is refused, were there no gate before.
func TestStrangers(t *testing.T) {
	h := New(&fakeJobs{})
	for _, r := range routes {
		target := strings.ReplaceAll(r.path, "{id}", "job-1")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(r.method, target, nil))
		if w.Code != http.StatusForbidden {
			t.Errorf("%s %s by nobody: %d", r.method, target, w.Code)
		}
	}
}

// TestBrowsers has pages of browsers try every route, and every other method on
// every path, with each origin and each claim of a client that a guard has fallen
// for, and holds that nothing is done for them.
func TestBrowsers(t *testing.T) {
	// The browser has an operator's certificate, and shows it for every page.
	h := httpgate.New(New(&fakeJobs{}), httpgate.Options{Certified: func(*http.Request) access.Principal { return operator }})
	tried, served := 0, 0
	for _, r := range routes {
		target := strings.ReplaceAll(r.path, "{id}", "job-1")
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"} {
			for _, origin := range []string{"https://example.org", "null", "http://127.0.0.1:7420", "http://localhost", ""} {
				for _, agent := range []string{"Mozilla/5.0", "curl/8", ""} {
					for _, upgrade := range []bool{false, true} {
						header := http.Header{"Host": {"rebound.example.org"}, "Sec-Fetch-Site": {"cross-site"}, "Content-Type": {"text/plain"}}
						if origin != "" {
							header.Set("Origin", origin)
						}
						if agent != "" {
							header.Set("User-Agent", agent)
						}
						if upgrade {
							header.Set("Connection", "Upgrade")
							header.Set("Upgrade", "websocket")
						}
						tried++
						w := ask(t, h, method, target, header, strings.NewReader("{}"))
						if w.Code < 400 {
							served++
							t.Errorf("%s %s of origin %q: %d", method, target, origin, w.Code)
						}
						if cors := w.Header().Get("Access-Control-Allow-Origin"); cors != "" {
							t.Errorf("%s %s: pages of %s may read the answer", method, target, cors)
						}
					}
				}
			}
		}
	}
	testenv.Bar(t, 10, served, fmt.Sprintf("of %d requests of pages of browsers served, over %d routes", tried, len(routes)), served == 0)
}

// schema is what the tests read of a schema of OpenAPI.
type schema struct {
	Ref        string            `json:"$ref"`
	Type       string            `json:"type"`
	Properties map[string]schema `json:"properties"`
	Items      *schema           `json:"items"`
}

// TestOpenAPI holds docs/openapi.json to what is served, and its schemas to the
// structs that are encoded and decoded.
func TestOpenAPI(t *testing.T) {
	b, err := os.ReadFile("../../docs/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		OpenAPI    string                                `json:"openapi"`
		Paths      map[string]map[string]json.RawMessage `json:"paths"`
		Components struct {
			Schemas map[string]schema `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	var served, told []string
	for _, r := range routes {
		served = append(served, r.method+" "+r.path)
	}
	for _, r := range peoplehttp.Routes {
		served = append(served, r.Method+" "+r.Path)
	}
	for path, methods := range doc.Paths {
		for method, b := range methods {
			if method == "parameters" {
				continue
			}
			var op struct {
				Responses   map[string]json.RawMessage `json:"responses"`
				OperationID string                     `json:"operationId"`
			}
			if err := json.Unmarshal(b, &op); err != nil {
				t.Fatal(err)
			}
			told = append(told, strings.ToUpper(method)+" "+path)
			if op.OperationID == "" || len(op.Responses) < 2 {
				t.Errorf("%s %s has no name, or no failure", method, path)
			}
		}
	}
	slices.Sort(served)
	slices.Sort(told)
	if !slices.Equal(served, told) {
		t.Errorf("served:   %v\ndocumented: %v", served, told)
	}
	for name, v := range map[string]any{"Job": clientwire.JobInfo{}, "JobList": clientwire.JobList{}, "JobSpec": clientwire.JobSpec{}, "JobLine": clientwire.JobLine{},
		"User": clientwire.User{}, "UserList": clientwire.Users{}, "Token": clientwire.UserToken{}, "TokenList": clientwire.UserTokens{}, "People": clientwire.PeopleBody{},
		"LogLine": logLine{}, "Error": httpgate.ErrorBody{}} {
		s, ok := doc.Components.Schemas[name]
		if !ok {
			t.Errorf("there is no schema %s", name)
			continue
		}
		var want, got []string
		typ := reflect.TypeOf(v)
		for i := range typ.NumField() {
			tag, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			kind := jsonKind(typ.Field(i).Type)
			if p := s.Properties[tag]; p.Ref == "" && p.Type != kind {
				t.Errorf("%s.%s is documented as %q, and is %q", name, tag, p.Type, kind)
			}
			want = append(want, tag)
		}
		for p := range s.Properties {
			got = append(got, p)
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(want, got) {
			t.Errorf("%s has %v, documented are %v", name, want, got)
		}
	}
	for ref := range strings.SplitSeq(string(b), `"$ref": "#/components/schemas/`) {
		if name, _, ok := strings.Cut(ref, `"`); ok && !strings.HasPrefix(ref, "{") {
			if _, ok := doc.Components.Schemas[name]; !ok {
				t.Errorf("the schema %q is named, and not there", name)
			}
		}
	}
}

func jsonKind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "string"
	case reflect.Pointer:
		return jsonKind(t.Elem())
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Int64:
		return "integer"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "string"
		}
		return "array"
	}
	return "object"
}

// FuzzSubmit submits forms of any content.
func FuzzSubmit(f *testing.F) {
	header, body := formOf("job", `{"args":["x"],"memory":1}`, "module:prog.wasm", "\x00asm")
	kind := header.Get("Content-Type")
	f.Add(kind, body.Bytes())
	f.Add("multipart/form-data; boundary=x", []byte("--x\r\nContent-Disposition: form-data; name=\"module\"; filename=\"a\"\r\n\r\n\r\n--x--"))
	f.Add("application/json", []byte("{}"))
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		j := &fakeJobs{}
		w := ask(t, New(j), "POST", "/v1/jobs", http.Header{"Content-Type": {kind}}, bytes.NewReader(body))
		if w.Code != http.StatusCreated && w.Code != http.StatusBadRequest {
			t.Errorf("%d, %s", w.Code, w.Body)
		}
		if w.Code == http.StatusCreated && len(j.modules) == 0 {
			t.Error("a job without a module")
		}
	})
}

// TestStalledUpload has an upload stop on its way: it is given up.
func TestStalledUpload(t *testing.T) {
	real := stallTime
	stallTime = 50 * time.Millisecond
	defer func() { stallTime = real }()
	h := New(&fakeJobs{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		h.ServeHTTP(w, req.WithContext(access.With(req.Context(), operator)))
	}))
	defer srv.Close()
	c, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	header, body := formOf("module:prog.wasm", strings.Repeat("x", 1<<20))
	fmt.Fprintf(c, "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", header.Get("Content-Type"), body.Len())
	if _, err := c.Write(body.Next(rpc.StallBytes + 100)); err != nil {
		t.Fatal(err)
	}
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("an upload that stands still has no answer: %v", err)
	}
	defer r.Body.Close()
	var e httpgate.ErrorBody
	if err := json.NewDecoder(r.Body).Decode(&e); err != nil || e.Code != "Timeout" || e.Hint == "" {
		t.Errorf("an upload that stands still: %s, %+v, %v", r.Status, e, err)
	}
}
