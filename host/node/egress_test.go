package node

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/audit"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/egress"
	"github.com/wray-project/wray/host/member"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
)

// egressNode is a node that runs nothing, with a tenant of its own and another, and
// a log of what it decides.
func egressNode(t testing.TB, private ...string) (n *Node, own, other *tenant, log func() string) {
	dir := filepath.Join(t.TempDir(), "audit")
	l, err := audit.Open(dir, audit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	n = &Node{cfg: Config{Tenant: "local", EgressPrivate: private}, auditLog: l, tenants: map[string]*tenant{}, records: map[string]control.Tenant{"other": {}}}
	own, other = &tenant{n: n, name: "local"}, &tenant{n: n, name: "other"}
	log = func() string {
		var all []byte
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, b...)
		}
		return string(all)
	}
	return n, own, other, log
}

// TestJobGrants holds a job to its tenant's policy when it is submitted, and that
// what it is refused says who can change that, and is recorded.
func TestJobGrants(t *testing.T) {
	n, own, other, log := egressNode(t)
	data, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(data, "secret")
	share := filepath.Join(data, "share")
	for _, d := range []string{secret, share} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	way := filepath.Join(share, "way")
	if err := os.Symlink(secret, way); err != nil {
		t.Fatal(err)
	}
	ask := func(at *tenant, egress string, dirs ...Dir) error {
		j := Job{Name: "j", Dirs: dirs}
		if egress != "" {
			j.Egress = []string{egress}
		}
		_, err := at.grants(&j)
		return err
	}
	if err := ask(own, "api.example.com", Dir{Host: secret}); err != nil {
		t.Errorf("the node's own tenant: %v", err)
	}
	for _, err := range []error{ask(other, "api.example.com"), ask(other, "", Dir{Host: share, ReadOnly: true})} {
		if e := (*wray.Error)(nil); !errors.Is(err, wray.ErrDenied) || !errors.As(err, &e) || !strings.Contains(e.Message, "tenant other") || !strings.Contains(e.Hint, "wray policy set other --") {
			t.Errorf("another: %+v", err)
		}
	}
	if got := log(); strings.Count(got, `"action":"job.grant"`) != 2 || !strings.Contains(got, "egress to api.example.com") || !strings.Contains(got, `"decision":"denied"`) {
		t.Errorf("recorded: %s", got)
	}
	n.records["other"] = control.Tenant{Policy: &wray.Policy{Dirs: []string{share + ":ro"}, Egress: []string{"*.example.com:8443"}}}
	for what, c := range map[string]struct {
		err error
		ok  bool
	}{
		"a server of the policy":      {ask(other, "api.example.com:8443"), true},
		"another port":                {ask(other, "api.example.com"), false},
		"all below":                   {ask(other, "*.example.com:8443"), true},
		"more":                        {ask(other, "*:8443"), false},
		"a directory for reading":     {ask(other, "", Dir{Host: share, ReadOnly: true}), true},
		"for writing":                 {ask(other, "", Dir{Host: share}), false},
		"the one above":               {ask(other, "", Dir{Host: data, ReadOnly: true}), false},
		"one beside":                  {ask(other, "", Dir{Host: secret, ReadOnly: true}), false},
		"one that a link leads to":    {ask(other, "", Dir{Host: way, ReadOnly: true}), false},
		"one with dots":               {ask(other, "", Dir{Host: share + "/../secret", ReadOnly: true}), false},
		"one that is not there":       {ask(other, "", Dir{Host: share + "/x", ReadOnly: true}), false},
		"what is not a rule":          {ask(other, "http://api.example.com"), false},
		"a tenant's with a like name": {ask(&tenant{n: n, name: "other2"}, "api.example.com:8443"), false},
	} {
		if (c.err == nil) != c.ok {
			t.Errorf("%s: %v", what, c.err)
		}
	}
}

// TestPolicyUnknown: a node that has heard of no policies grants nothing, to those
// who run the cluster neither, and once it has what their policy says.
func TestPolicyUnknown(t *testing.T) {
	n, own, _, _ := egressNode(t)
	dir := Dir{Host: t.TempDir()}
	n.mu.Lock()
	n.member, n.followed = new(member.Member), false
	n.mu.Unlock()
	for _, j := range []Job{{Egress: []string{"api.example.com"}}, {Dirs: []Dir{dir}}} {
		if _, err := own.grants(&j); !errors.Is(err, wray.ErrDenied) {
			t.Errorf("%+v: %v", j, err)
		}
	}
	if _, err := own.grants(&Job{}); err != nil {
		t.Errorf("a job that is granted nothing: %v", err)
	}
	n.mu.Lock()
	n.followed = true
	n.mu.Unlock()
	if _, err := own.grants(&Job{Dirs: []Dir{dir}}); err != nil {
		t.Errorf("once they are known: %v", err)
	}
	n.mu.Lock()
	n.member = nil
	n.mu.Unlock()
}

// fetcher is a worker's side of requests.
type fetcher struct {
	t *testing.T
	r *run
	w *workerProcess
}

func newFetcher(t *testing.T, of *tenant, rules ...string) *fetcher {
	parsed, err := wray.ParseEgressRules(rules)
	if err != nil {
		t.Fatal(err)
	}
	r := &run{job: Job{Name: "j"}, egress: parsed}
	t.Cleanup(r.close)
	return &fetcher{t, r, &workerProcess{t: of, runs: map[uint64]*run{1: r}}}
}

func (f *fetcher) step(b worker.FetchBody) (out worker.FetchReply, err error) {
	b.Run = 1
	body, err := link.Marshal(b)
	if err != nil {
		f.t.Fatal(err)
	}
	m, err := f.w.handle(context.Background(), link.Message{Kind: worker.KindFetch, Body: body})
	if err != nil {
		return out, err
	}
	return out, link.Unmarshal(m.Body, &out)
}

// get is a whole request.
func (f *fetcher) get(method, url, body string) (status int, text string, err error) {
	r, err := f.step(worker.FetchBody{Op: worker.FetchBegin, Method: method, URL: url, Length: int64(len(body))})
	if err != nil {
		return 0, "", err
	}
	defer f.step(worker.FetchBody{Op: worker.FetchEnd, ID: r.ID})
	id := r.ID
	for p := body; len(p) > 0; {
		n := min(len(p), 1000)
		if _, err := f.step(worker.FetchBody{Op: worker.FetchSend, ID: id, Data: []byte(p[:n])}); err != nil {
			return 0, "", err
		}
		p = p[n:]
	}
	if r, err = f.step(worker.FetchBody{Op: worker.FetchHead, ID: id}); err != nil {
		return 0, "", err
	}
	status = r.Status
	for {
		r, err := f.step(worker.FetchBody{Op: worker.FetchRead, ID: id})
		text += string(r.Data)
		if err != nil || r.End {
			return status, text, err
		}
	}
}

// TestFetch makes requests as a worker has them made: by what the node knows of the
// job and its tenant, at each request anew.
func TestFetch(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	defer srv.Close()
	at := strings.TrimPrefix(srv.URL, "http://")
	n, own, other, log := egressNode(t, "127.0.0.0/8")
	f := newFetcher(t, own, at)
	text := strings.Repeat("0123456789", 100_000)
	if status, got, err := f.get("POST", srv.URL, text); err != nil || status != 200 || got != text {
		t.Fatalf("%d, %d bytes, %v", status, len(got), err)
	}
	denied := func(f *fetcher, url, why string) {
		t.Helper()
		if _, _, err := f.get("GET", url, ""); !errors.Is(err, wray.ErrDenied) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want %q", url, err, why)
		}
	}
	denied(f, "http://127.0.0.1:1/", "the job was not granted egress to 127.0.0.1:1")
	denied(newFetcher(t, other, at), srv.URL, "the policy of tenant other")
	if _, _, err := f.get("GET", "http://user@"+at, ""); !errors.Is(err, wray.ErrBadArgument) {
		t.Errorf("a user in the URL: %v", err)
	}
	// A policy that is taken away holds for the next request of a job that runs, and
	// so does what is left open of it.
	n.records = map[string]control.Tenant{"local": {Policy: &wray.Policy{Egress: []string{"*:*"}}}}
	denied(f, srv.URL, "loopback")
	n.records = map[string]control.Tenant{"local": {Policy: &wray.Policy{Egress: []string{"a.b"}, Private: []string{"127.0.0.0/8"}}}}
	denied(f, srv.URL, "the policy of tenant local")
	if got := strings.Count(log(), `"action":"egress.ask"`); got != 4 {
		t.Errorf("%d refusals are recorded: %s", got, log())
	}
}

// TestFetchLies has a worker say what none says, and a job end under its requests.
func TestFetchLies(t *testing.T) {
	hangs := make(chan struct{}, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			_, _ = io.ReadAll(r.Body) // ends with the connection
			return
		}
		_, _ = io.WriteString(w, "x")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		hangs <- struct{}{}
	}))
	defer srv.Close()
	_, own, _, _ := egressNode(t, "127.0.0.0/8")
	f := newFetcher(t, own, strings.TrimPrefix(srv.URL, "http://"))
	for _, b := range []worker.FetchBody{
		{Op: worker.FetchRead, ID: 7}, {Op: worker.FetchEnd}, {Op: 99}, {}, {Op: worker.FetchSend, ID: 1, Data: []byte("x")},
		{Op: worker.FetchBegin, Method: "GET", URL: srv.URL, Length: -1}, {Op: worker.FetchBegin, Method: "GET", URL: srv.URL, Length: egress.MaxRequestBytes + 1},
		{Op: worker.FetchBegin, Method: "GET", URL: srv.URL, Header: []egress.Header{{Name: "Host", Value: "x"}}},
	} {
		if r, err := f.step(b); err == nil {
			t.Errorf("%+v is answered with %+v", b, r)
		}
	}
	r, err := f.step(worker.FetchBody{Op: worker.FetchBegin, Method: "GET", URL: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := f.step(worker.FetchBody{Op: worker.FetchSend, ID: r.ID, Data: []byte("x")}); err == nil {
		t.Errorf("a body that was not announced: %+v", r)
	}
	if r, err := f.step(worker.FetchBody{Op: worker.FetchRead, ID: r.ID}); err != nil || string(r.Data) != "x" {
		t.Errorf("%+v, %v", r, err)
	}
	// More at once than there may be.
	full := 0
	for range maxFetches + 5 {
		if _, err := f.step(worker.FetchBody{Op: worker.FetchBegin, Method: "POST", URL: srv.URL, Length: 1}); errors.Is(err, wray.ErrLimitExceeded) {
			full++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if full != 6 {
		t.Errorf("%d of %d were refused", full, maxFetches+5)
	}
	f.r.close()
	<-hangs // the server was told
	if own.egress.under != 0 {
		t.Errorf("%d requests are under way", own.egress.under)
	}
	if _, err := f.step(worker.FetchBody{Op: worker.FetchBegin, Method: "GET", URL: srv.URL}); !errors.Is(err, wray.ErrCanceled) {
		t.Errorf("of a job that has ended: %v", err)
	}
}

// TestOwnAddress holds that a node knows its own addresses.
func TestOwnAddress(t *testing.T) {
	n, _, _, _ := egressNode(t)
	for a, want := range map[string]bool{"127.0.0.1:80": true, "127.9.9.9:1": true, "[::1]:80": true, "93.184.216.34:80": false} {
		if node, port := n.ownAddress(netip.MustParseAddrPort(a)); node != want || port {
			t.Errorf("%s: %v %v", a, node, port)
		}
	}
}

// TestTellGrants holds that wray explain has what a job was granted, by what the
// node knows, and what its tenant's policy has no more.
func TestTellGrants(t *testing.T) {
	n, own, _, _ := egressNode(t)
	n.records = map[string]control.Tenant{"local": {Policy: &wray.Policy{Egress: []string{"*.b"}}}}
	rules, err := wray.ParseEgressRules([]string{"a.b", "c:22"})
	if err != nil {
		t.Fatal(err)
	}
	r := &run{job: Job{Name: "j", Dirs: []Dir{{Host: t.TempDir(), Guest: "/data", ReadOnly: true}}}, egress: rules}
	w := &workerProcess{t: own, runs: map[uint64]*run{7: r}}
	jobs := []clientwire.Job{{Number: 1, Run: 7}, {Number: 2, Run: 8, Grants: []clientwire.JobGrant{{Grant: "made up"}}}, {Number: 3}}
	w.tellGrants(jobs)
	want := []clientwire.JobGrant{{Grant: "dir=/data:ro", Refused: true}, {Grant: "egress=a.b"}, {Grant: "egress=c:22", Refused: true}}
	if !slices.Equal(jobs[0].Grants, want) || jobs[0].Run != 0 || jobs[1].Grants != nil || jobs[2].Grants != nil {
		t.Errorf("%+v", jobs)
	}
}
