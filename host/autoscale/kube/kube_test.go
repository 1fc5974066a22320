package kube

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// server speaks the API as Kubernetes does, as far as it is used: scales with
// versions, lists in pages, merge patches; and does what the controllers of a
// StatefulSet and a Deployment do, when it is told to.
type server struct {
	t *testing.T
	*httptest.Server
	dir string // of the service account

	mu        sync.Mutex
	set       bool // a StatefulSet; else a Deployment
	replicas  int
	version   int
	pods      []*fakePod
	next      int
	made      int // that the controllers may make yet; -1: any number
	conflicts int // writes of a scale that another is before
	refuse    int // status of all answers; 0: none is refused
	puts      []int
	at        bool // the controllers act at once
}

type fakePod struct {
	name  string
	going bool
	cost  string
	owner string // kind
}

const token = "a secret of the account"

func newServer(t *testing.T, set bool) *server {
	s := &server{t: t, set: set, made: -1, version: 7, dir: t.TempDir()}
	mux := http.NewServeMux()
	kind := "deployments"
	if set {
		kind = "statefulsets"
	}
	mux.HandleFunc("GET /apis/apps/v1/namespaces/ns/"+kind+"/w/scale", s.getScale)
	mux.HandleFunc("PUT /apis/apps/v1/namespaces/ns/"+kind+"/w/scale", s.putScale)
	mux.HandleFunc("GET /api/v1/namespaces/ns/pods", s.list)
	mux.HandleFunc("PATCH /api/v1/namespaces/ns/pods/{name}", s.patch)
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case r.Header.Get("Authorization") != "Bearer "+token:
			s.fail(w, 401, "Unauthorized")
		case s.refuse != 0:
			s.fail(w, s.refuse, "not so")
		default:
			mux.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	for name, b := range map[string]string{"ca.crt": string(ca), "token": token + "\n", "namespace": "ns"} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// api is what a pod finds.
func (s *server) api() *API {
	host, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		s.t.Fatal(err)
	}
	a, err := inCluster(func(k string) string {
		return map[string]string{"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}[k]
	}, s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

func (s *server) fail(w http.ResponseWriter, code int, message string) {
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code})
}

func (s *server) scale() map[string]any {
	return map[string]any{"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": map[string]any{"name": "w", "namespace": "ns", "resourceVersion": fmt.Sprint(s.version)},
		"spec": map[string]any{"replicas": s.replicas}, "status": map[string]any{"replicas": len(s.pods), "selector": "app=w"}}
}

func (s *server) getScale(w http.ResponseWriter, _ *http.Request) {
	_ = json.NewEncoder(w).Encode(s.scale())
}

func (s *server) putScale(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	var in scale
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil || in.Kind != "Scale" || in.APIVersion != "autoscaling/v1" || in.Metadata.Name != "w" || r.Header.Get("Content-Type") != "application/json" {
		s.fail(w, 422, fmt.Sprintf("no scale: %s", b))
		return
	}
	if s.conflicts > 0 {
		s.conflicts--
		s.version++
	}
	if in.Metadata.ResourceVersion != fmt.Sprint(s.version) {
		s.fail(w, 409, "the object has been modified")
		return
	}
	s.replicas = in.Spec.Replicas
	s.version++
	s.puts = append(s.puts, s.replicas)
	switch {
	case s.at:
		s.reconcile()
	case !s.set:
		go func() { // as a controller, some time later
			s.mu.Lock()
			defer s.mu.Unlock()
			s.reconcile()
		}()
	}
	_ = json.NewEncoder(w).Encode(s.scale())
}

// reconcile does what the controller of the workload does.
func (s *server) reconcile() {
	staying := func() (list []*fakePod) {
		for _, x := range s.pods {
			if !x.going && x.owner != "Job" {
				list = append(list, x)
			}
		}
		return list
	}
	for list := staying(); len(list) < s.replicas && s.made != 0; list = staying() {
		s.made--
		name, owner := fmt.Sprintf("w-%d", len(list)), "StatefulSet"
		if !s.set {
			name, owner = fmt.Sprintf("w-5d9f-%05d", s.next), "ReplicaSet"
			s.next++
		}
		s.pods = append(s.pods, &fakePod{name: name, owner: owner})
	}
	for list := staying(); len(list) > s.replicas; list = staying() {
		worst := list[len(list)-1] // the last
		if !s.set {
			for _, x := range list {
				if x.cost != "" && x.cost != "0" {
					worst = x
				}
			}
		}
		worst.going = true
	}
}

func (s *server) list(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("labelSelector") != "app=w" || !strings.Contains(q.Get("fieldSelector"), "status.phase!=Failed") ||
		r.Header.Get("Accept") != "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1" {
		s.fail(w, 400, "no such list: "+r.URL.RawQuery)
		return
	}
	from := 0
	if c := q.Get("continue"); c != "" {
		_, _ = fmt.Sscan(c, &from)
	}
	end := min(from+2, len(s.pods)) // smaller pages than were asked for
	items := []any{}
	for _, x := range s.pods[from:end] {
		m := map[string]any{"name": x.name, "ownerReferences": []any{map[string]any{"kind": x.owner, "name": "w", "controller": true}}}
		if x.going {
			m["deletionTimestamp"] = "2026-01-01T00:00:00Z"
		}
		if x.cost != "" {
			m["annotations"] = map[string]string{deletionCost: x.cost}
		}
		items = append(items, map[string]any{"metadata": m})
	}
	meta := map[string]any{}
	if end < len(s.pods) {
		meta["continue"] = fmt.Sprint(end)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "items": items})
}

func (s *server) patch(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Metadata struct {
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || r.Header.Get("Content-Type") != "application/merge-patch+json" {
		s.fail(w, 415, "no patch")
		return
	}
	for _, x := range s.pods {
		if x.name == r.PathValue("name") {
			x.cost = in.Metadata.Annotations[deletionCost]
			_, _ = w.Write([]byte("{}"))
			return
		}
	}
	s.fail(w, 404, "not found")
}

// do changes the server.
func (s *server) do(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *server) names(p *Provider) string {
	s.t.Helper()
	list, err := p.List(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	var names []string
	for _, x := range list {
		names = append(names, fmt.Sprintf("%s/%d", x.Name, x.Rank))
	}
	return strings.Join(names, " ")
}

// TestStatefulSet scales one up, and down from its end.
func TestStatefulSet(t *testing.T) {
	s := newServer(t, true)
	p := New(s.api(), Workload{StatefulSet: "w"})
	want := func(want string) {
		t.Helper()
		if got := s.names(p); got != want {
			t.Errorf("there are %s, want %s", got, want)
		}
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	want("")
	check(p.Start(t.Context(), 2))
	want("w-0/0 w-1/1") // before any is made
	s.do(s.reconcile)
	s.do(func() { s.conflicts = 2 })
	check(p.Start(t.Context(), 1))
	s.do(s.reconcile)
	want("w-0/0 w-1/1 w-2/2")
	if err := p.Stop(t.Context(), []string{"w-1"}); err == nil || !strings.Contains(err.Error(), "not the last") {
		t.Errorf("w-1 goes before w-2: %v", err)
	}
	check(p.Stop(t.Context(), []string{"w-2", "w-1"}))
	s.do(s.reconcile)
	want("w-0/0 w-1/1 w-2/2") // those that drain are there yet
	check(p.Stop(t.Context(), []string{"w-2"}))
	s.do(func() { s.pods = s.pods[:1] })
	want("w-0/0")
	s.do(func() { s.conflicts = 100 })
	var refused *Error
	if err := p.Start(t.Context(), 1); !errors.As(err, &refused) || refused.Code != 409 {
		t.Errorf("always in conflict: %v", err)
	}
	s.do(func() {
		s.conflicts = 0
		if !slices.Equal(s.puts, []int{2, 3, 1}) {
			t.Errorf("replicas were %v", s.puts)
		}
	})
}

// TestDeployment scales one up, down by the pods that are named, and takes back
// what was not made.
func TestDeployment(t *testing.T) {
	s := newServer(t, false)
	p := New(s.api(), Workload{Namespace: "ns", Deployment: "w"})
	p.poll = time.Millisecond
	s.do(func() { s.pods = append(s.pods, &fakePod{name: "other", owner: "Job"}) })
	if err := p.Start(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	// They are there when Start has returned.
	if got := s.names(p); got != "w-5d9f-00000/0 w-5d9f-00001/0 w-5d9f-00002/0 w-5d9f-00003/0" {
		t.Errorf("there are %s", got)
	}
	s.do(func() { s.pods[4].cost = goesFirst }) // as is left by who failed then
	if err := p.Stop(t.Context(), []string{"w-5d9f-00001", "w-5d9f-00002", "gone"}); err != nil {
		t.Fatal(err)
	}
	s.do(func() {
		s.reconcile()
		var going []string
		for _, x := range s.pods {
			if x.going {
				going = append(going, x.name)
			}
		}
		if s.replicas != 2 || !slices.Equal(going, []string{"w-5d9f-00001", "w-5d9f-00002"}) || s.pods[4].cost != "0" {
			t.Errorf("%d replicas, %v go, the cost of the other is %q", s.replicas, going, s.pods[4].cost)
		}
	})
	// Said again, it is done already.
	if err := p.Stop(t.Context(), []string{"w-5d9f-00001"}); err != nil {
		t.Fatal(err)
	}
	s.do(func() {
		if s.replicas != 2 {
			t.Errorf("%d replicas", s.replicas)
		}
		s.made, s.at = 1, true
	})
	p.appear = 50 * time.Millisecond
	err := p.Start(t.Context(), 3)
	if err == nil || !strings.Contains(err.Error(), "has 3 pods of 5") {
		t.Errorf("a quota: %v", err)
	}
	s.do(func() {
		if s.replicas != 3 {
			t.Errorf("%d replicas, want the 3 that were made", s.replicas)
		}
	})
}

// TestRefused holds what is said when the API refuses, and that nobody else is
// taken for it.
func TestRefused(t *testing.T) {
	s := newServer(t, true)
	p := New(s.api(), Workload{StatefulSet: "w"})
	for code, says := range map[int]string{403: "see deploy/", 500: "not so", 404: "not so"} {
		s.do(func() { s.refuse = code })
		if _, err := p.List(t.Context()); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), fmt.Sprint(code)) {
			t.Errorf("%d: %v", code, err)
		} else if _, file, ok := strings.Cut(err.Error(), "see "); ok {
			if _, err := os.Stat(filepath.Join("..", "..", "..", filepath.FromSlash(file))); err != nil {
				t.Errorf("%d: what the hint names is not there: %v", code, err)
			}
		}
	}
	s.do(func() { s.refuse = 0 })
	if err := os.WriteFile(filepath.Join(s.dir, "token"), []byte("of another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.List(t.Context()); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("with another token: %v", err)
	}
	a := s.api()
	a.Client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool()}
	if _, err := New(a, Workload{StatefulSet: "w"}).List(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("with another authority: %v", err)
	}
	if _, err := inCluster(func(string) string { return "" }, s.dir); err == nil || !strings.Contains(err.Error(), "no pod") {
		t.Errorf("outside: %v", err)
	}
	if _, err := inCluster(func(string) string { return "1" }, t.TempDir()); err == nil || !strings.Contains(err.Error(), "service account") {
		t.Errorf("without an account: %v", err)
	}
}
