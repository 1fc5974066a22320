package rpc

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/access"
	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/internal/clientwire"
	pb "github.com/wray-project/wray/internal/rpc/internal/jobspb"
)

// fakeJobs is one job, which reads its modules and prints what its test gives it.
type fakeJobs struct {
	mu      sync.Mutex
	from    access.Principal // guarded by mu, as is all that follows; who called last
	spec    clientwire.JobSpec
	modules map[string]string
	fail    error
	prints  chan string   // the job ends when it is closed
	follows chan struct{} // told of who waits for more; nil tells nobody
}

func (f *fakeJobs) call(from access.Principal) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.from = from
	return f.fail
}

// refuse has all calls fail from now on, or none.
func (f *fakeJobs) refuse(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

var fakeInfo = clientwire.JobInfo{ID: "job-1", Name: "prog", Args: []string{"a", "b"}, Node: "n", State: clientwire.JobFailed, Submitted: 1, Started: 2, Ended: 3,
	ExitCode: 4, Error: "e", Hint: "h", Trace: "t", Note: "o", By: "operator x"}

func (f *fakeJobs) SubmitJob(_ context.Context, from access.Principal, spec clientwire.JobSpec, modules ModuleSource) (clientwire.JobInfo, error) {
	if err := f.call(from); err != nil {
		return clientwire.JobInfo{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.spec, f.modules = spec, map[string]string{}
	for {
		name, content, err := modules.Next()
		if err == io.EOF {
			return fakeInfo, nil
		}
		if err != nil {
			return fakeInfo, err
		}
		b, err := io.ReadAll(content)
		if err != nil {
			return fakeInfo, err
		}
		f.modules[name] = string(b)
	}
}

func (f *fakeJobs) Jobs(_ context.Context, from access.Principal) (clientwire.JobList, error) {
	return clientwire.JobList{Jobs: []clientwire.JobInfo{fakeInfo}, Partial: "why"}, f.call(from)
}

func (f *fakeJobs) Job(_ context.Context, from access.Principal, id string) (clientwire.JobInfo, error) {
	if id != fakeInfo.ID {
		return clientwire.JobInfo{}, errors.Join(ErrNoJob, wray.Errorf(wray.CodeBadArgument, "there is no job %q", id))
	}
	return fakeInfo, f.call(from)
}

func (f *fakeJobs) StopJob(ctx context.Context, from access.Principal, id string) (clientwire.JobInfo, error) {
	return f.Job(ctx, from, id)
}

func (f *fakeJobs) JobLogs(ctx context.Context, from access.Principal, id string, offset int64, wait bool) (clientwire.JobLogs, error) {
	if _, err := f.Job(ctx, from, id); err != nil || !wait {
		return clientwire.JobLogs{Next: offset}, err
	}
	if f.follows != nil {
		f.follows <- struct{}{}
	}
	select {
	case s, ok := <-f.prints:
		if !ok {
			return clientwire.JobLogs{Next: offset, End: true}, nil
		}
		return clientwire.JobLogs{Next: offset + 1, Parts: []clientwire.JobOutput{{Time: 5, Task: "t", Stream: clientwire.Stderr, Data: []byte(s)}}}, nil
	case <-ctx.Done():
		return clientwire.JobLogs{}, ctx.Err()
	}
}

// someModules is a ModuleSource.
type someModules struct {
	names, contents []string
	err             error
}

func (m *someModules) Next() (string, io.Reader, error) {
	if len(m.names) == 0 {
		if m.err != nil {
			return "", nil, m.err
		}
		return "", nil, io.EOF
	}
	name, content := m.names[0], m.contents[0]
	m.names, m.contents = m.names[1:], m.contents[1:]
	return name, strings.NewReader(content), nil
}

// TestJobs has an operator do all that there is to do.
func TestJobs(t *testing.T) {
	ctx := t.Context()
	f := &fakeJobs{prints: make(chan string, 2)}
	w := newWorld(t, Options{Jobs: f})
	c, err := NewOperator(w.operator("alice"), w.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	spec := clientwire.JobSpec{Args: []string{"x"}, Env: []string{"K=v"}, Memory: 1, Stack: 2, Files: 3, Handles: 4, Windows: 5, LogRate: 6, Timeout: 7}
	large := strings.Repeat("0123456789", 100<<10)
	got, err := c.SubmitJob(ctx, spec, &someModules{names: []string{"drv", "empty", "lib"}, contents: []string{large, "", "small"}})
	if err != nil || fmt.Sprint(got) != fmt.Sprint(fakeInfo) {
		t.Errorf("submitted: %+v, %v", got, err)
	}
	f.mu.Lock()
	if fmt.Sprint(f.spec) != fmt.Sprint(spec) || f.modules["drv"] != large || f.modules["lib"] != "small" || len(f.modules) != 3 {
		t.Errorf("it was given %+v and %d modules", f.spec, len(f.modules))
	}
	if f.from.Kind != access.Certed || f.from.Name != "alice" {
		t.Errorf("by %+v", f.from)
	}
	f.mu.Unlock()
	for _, wrong := range []clientwire.JobSpec{{Env: []string{"K=v", "novalue"}}, {Env: []string{"=v"}}, {Env: []string{"K=\x00"}}, {Args: []string{"\x00"}}} {
		if _, err := c.SubmitJob(ctx, wrong, &someModules{names: []string{"drv"}, contents: []string{"x"}}); !errors.Is(err, wray.ErrBadArgument) {
			t.Errorf("a job with %+v: %v", wrong, err)
		}
	}
	broken := errors.New("broken")
	if _, err := c.SubmitJob(ctx, spec, &someModules{err: broken}); err != broken {
		t.Errorf("modules that cannot be read: %v", err)
	}
	if list, err := c.Jobs(ctx); err != nil || len(list.Jobs) != 1 || list.Partial != "why" {
		t.Errorf("list: %+v, %v", list, err)
	}
	if got, err := c.StopJob(ctx, "job-1"); err != nil || fmt.Sprint(got) != fmt.Sprint(fakeInfo) {
		t.Errorf("stopped: %+v, %v", got, err)
	}
	if _, err := c.Job(ctx, "job-2"); !errors.Is(err, ErrNoJob) || !errors.Is(err, wray.ErrBadArgument) {
		t.Errorf("a job that is not there: %v", err)
	}
	f.prints <- "hello\n"
	close(f.prints) // who follows goes
	part, err := c.JobLogs(ctx, "job-1", 10, true)
	if err != nil || part.Next != 11 || len(part.Parts) != 1 || string(part.Parts[0].Data) != "hello\n" || part.Parts[0].Task != "t" || part.Parts[0].Stream != clientwire.Stderr {
		t.Errorf("logs: %+v, %v", part, err)
	}
	f.refuse(&wray.Error{Code: wray.CodeLimitExceeded, Message: "too much", Hint: "less"})
	_, err = c.Jobs(ctx)
	if e := (*wray.Error)(nil); !errors.As(err, &e) || e.Code != wray.CodeLimitExceeded || e.Message != "too much" || e.Hint != "less" {
		t.Errorf("a refusal: %v", err)
	}
	f.refuse(nil)
	// A node is heard as well: it has looked where a job is.
	_, g := w.node("n")
	if _, err := w.client(g).Job(ctx, "job-1"); err != nil {
		t.Errorf("a node: %v", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.from.Kind != access.Node {
		t.Errorf("a node: by %+v", f.from)
	}
}

// TestOperatorIsNoNode has an operator's certificate do what nodes do, and speak
// for one.
func TestOperatorIsNoNode(t *testing.T) {
	ctx := t.Context()
	spoke := make(chan string, 1)
	w := newWorld(t, Options{Jobs: &fakeJobs{}, Protocols: map[string]func(context.Context, *Conn){
		"bulk/1": func(_ context.Context, c *Conn) { spoke <- c.Identity().Name }}})
	o := w.operator("head") // a node's name
	c, err := tls.Dial("tcp", w.addr(), o.ClientConfig("bulk/1"))
	if err == nil {
		c.SetDeadline(time.Now().Add(time.Minute))
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	if err == nil {
		t.Error("an operator speaks the protocol of nodes")
	}
	select {
	case who := <-spoke:
		t.Errorf("%s spoke the protocol of nodes", who)
	default:
	}
	// One that answers in a node's place, under its name.
	var cert *tls.Certificate
	if cert, err = o.ClientConfig("h2").GetClientCertificate(nil); err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*cert}, NextProtos: []string{"h2", "x"}, ClientAuth: tls.RequestClientCert})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(io.Discard, c) }()
		}
	}()
	_, g := w.node("n")
	if _, err := Dial(ctx, g, "head", l.Addr().String(), "x"); !errors.Is(err, auth.ErrIdentity) {
		t.Errorf("a node takes an operator for a node: %v", err)
	}
	if c, err := tls.Dial("tcp", l.Addr().String(), o.ClientConfig("x")); err == nil {
		c.Close()
		t.Error("an operator takes an operator for a node")
	} else if !errors.Is(err, auth.ErrIdentity) {
		t.Errorf("an operator that calls an operator: %v", err)
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		t.Errorf("its certificate is for %v", leaf.ExtKeyUsage)
	}
	// It renews nothing: another is made.
	oc, err := NewOperator(o, w.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer oc.Close()
	if _, err := oc.Renew(ctx, []byte("x")); err == nil {
		t.Error("an operator renews a node's certificate")
	}
}

// TestOperatorRevoked ends the connections of an operator who is revoked, and
// lets nobody else's go.
func TestOperatorRevoked(t *testing.T) {
	ctx := t.Context()
	f := &fakeJobs{prints: make(chan string)}
	w := newWorld(t, Options{Jobs: f})
	var clients []*Client
	for _, name := range []string{"alice", "bob"} {
		c, err := NewOperator(w.operator(name), w.addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Jobs(ctx); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	waits := make(chan error, 1)
	go func() {
		_, err := clients[0].JobLogs(ctx, "job-1", 0, true)
		waits <- err
	}()
	if err := w.reg.RevokeOperator(ctx, "alice", "test"); err != nil {
		t.Fatal(err)
	}
	if err := <-waits; err == nil {
		t.Error("an operator who is revoked goes on reading")
	}
	for { // until the guard has heard of it
		if _, err := clients[0].Jobs(ctx); err != nil {
			break
		}
	}
	if _, err := clients[1].Jobs(ctx); err != nil {
		t.Errorf("another operator: %v", err)
	}
	if err := w.reg.RevokeOperator(ctx, "alice", "test"); err == nil {
		t.Error("nobody is revoked twice")
	}
}

// TestHTTP holds that who offers HTTP/1.1 gets it, and is known by his
// certificate; and that without one there is nothing.
func TestHTTP(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/jobs", func(rw http.ResponseWriter, r *http.Request) {
		p := access.From(r.Context())
		fmt.Fprint(rw, p.Kind, " ", p.Name, " ", p.Role)
	})
	w := newWorld(t, Options{HTTP: mux})
	config := w.operator("alice").ClientConfig("")
	config.NextProtos = []string{"h2", "http/1.1"} // as curl offers them
	get := func(config *tls.Config) (string, error) {
		tr := &http.Transport{TLSClientConfig: config}
		defer tr.CloseIdleConnections()
		r, err := (&http.Client{Transport: tr}).Get("https://" + w.addr() + "/v1/jobs")
		if err != nil {
			return "", err
		}
		defer r.Body.Close()
		var b bytes.Buffer
		_, err = b.ReadFrom(r.Body)
		return b.String(), err
	}
	if got, err := get(config); err != nil || got != "operator alice developer" {
		t.Errorf("it says %q, %v", got, err)
	}
	// OpenSSL sends what else the file has: the authority too.
	own, err := config.GetClientCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	for n, fine := range []bool{true, true, false} {
		more := config.Clone()
		more.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			c := *own
			for range n {
				c.Certificate = append(slices.Clone(c.Certificate), own.Certificate[0])
			}
			return &c, nil
		}
		if got, err := get(more); fine != (err == nil && got == "operator alice developer") {
			t.Errorf("with %d more certificates it says %q, %v", n, got, err)
		}
	}
	if got, err := get(&tls.Config{InsecureSkipVerify: true}); err == nil {
		t.Errorf("without a certificate it says %q", got)
	}
}

// TestStalledUpload has an upload stop on its way: it is given up.
func TestStalledUpload(t *testing.T) {
	real := stallTime
	stallTime = 50 * time.Millisecond
	defer func() { stallTime = real }()
	w := newWorld(t, Options{Jobs: &fakeJobs{}})
	c, err := NewOperator(w.operator("alice"), w.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	st, err := pb.NewJobsClient(c.conn).Submit(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*pb.SubmitRequest{{Part: &pb.SubmitRequest_Spec{Spec: &pb.JobSpec{}}}, {Part: &pb.SubmitRequest_Module{Module: "drv"}}, {Part: &pb.SubmitRequest_Content{Content: []byte("x")}}} {
		if err := st.Send(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := jobError(st.RecvMsg(new(pb.Job))); !errors.Is(err, wray.ErrTimeout) || ctx.Err() != nil {
		t.Errorf("an upload that stands still: %v", err)
	}
}
