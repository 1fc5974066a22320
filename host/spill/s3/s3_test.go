package s3

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/spill"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/objectstore/storetest"
	"github.com/wray-project/wray/wasm/abi"
)

const testBucket = "objects"

// server is an S3 server in a process of its own, behind a proxy that can do
// what networks and servers do.
type server struct {
	url string // of the proxy

	mu    sync.Mutex
	fault func(http.ResponseWriter, *http.Request) bool // guarded by mu; reports whether it has answered
	alter func(*http.Response) error                    // guarded by mu
	asked int                                           // guarded by mu; requests that fault has answered
}

var (
	sharedOnce sync.Once
	sharedURL  string // of the server itself
	sharedStop = func() {}
)

func TestMain(m *testing.M) {
	code := m.Run()
	sharedStop()
	os.Exit(code)
}

const access, secret = "AKIAWRAYTEST", "a-secret-of-tests-alone"

// startServer starts the server of internal/tools/s3server.
func startServer(t *testing.T) {
	bin, err := filepath.Abs("../../../bin/s3server")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(bin); err != nil {
		return
	}
	dir, err := os.MkdirTemp("", "wray-s3-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, testBucket), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	cmd := exec.Command(bin, addr, access, secret, dir)
	out := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = out, out
	if _, err := cmd.StdinPipe(); err != nil { // with whose end, that of this process, it ends
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	sharedStop = func() { _ = cmd.Process.Kill(); <-ended; os.RemoveAll(dir) }
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			break
		}
		select {
		case <-ended:
			t.Fatalf("the S3 server ended: %s", out)
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("the S3 server does not answer: %v", err)
		}
	}
	sharedURL = "http://" + addr
}

func newServer(t *testing.T) *server {
	t.Helper()
	sharedOnce.Do(func() { startServer(t) })
	if sharedURL == "" {
		t.Skip("there is no bin/s3server: build it with make s3-server")
	}
	to, err := url.Parse(sharedURL)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{}
	p := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host }, // which is signed
		ModifyResponse: func(r *http.Response) error {
			s.mu.Lock()
			alter := s.alter
			s.mu.Unlock()
			if alter != nil {
				return alter(r)
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		fault := s.fault
		s.mu.Unlock()
		if fault != nil && fault(w, r) {
			s.mu.Lock()
			s.asked++
			s.mu.Unlock()
			return
		}
		p.ServeHTTP(w, r)
	})}
	var wg sync.WaitGroup
	wg.Go(func() { _ = h.Serve(l) })
	t.Cleanup(func() { h.Close(); wg.Wait() })
	s.url = "http://" + l.Addr().String()
	t.Setenv("AWS_ACCESS_KEY_ID", access)
	t.Setenv("AWS_SECRET_ACCESS_KEY", secret)
	return s
}

func (s *server) set(fault func(http.ResponseWriter, *http.Request) bool, alter func(*http.Response) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault, s.alter, s.asked = fault, alter, 0
}

func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// quick are limits that tests wait for.
var quick = limits{patience: 2 * time.Second, attempt: 20 * time.Second, pause: time.Millisecond}

func (s *server) open(t *testing.T, l limits) *Bucket {
	t.Helper()
	b, err := Open(t.Context(), Config{URL: Scheme + testBucket + "/" + t.Name(), Endpoint: s.url, limits: l})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// names lists what lies under the test's prefix.
func (s *server) names(t *testing.T, b *Bucket) (names []string) {
	t.Helper()
	for o := range b.core.Client.ListObjects(t.Context(), b.bucket, minio.ListObjectsOptions{Prefix: b.prefix, Recursive: true}) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		names = append(names, o.Key)
	}
	for u := range b.core.ListIncompleteUploads(t.Context(), b.bucket, b.prefix, true) {
		if u.Err != nil {
			t.Fatal(u.Err)
		}
		names = append(names, u.Key+" (not complete)")
	}
	return names
}

func diskOf(t *testing.T, b *Bucket, limit int64) *spill.Disk {
	t.Helper()
	if limit == 0 {
		limit = 1 << 40
	}
	h := spill.NewHost([]spill.Place{b}, limit)
	t.Cleanup(h.Close)
	return spill.NewDisk(h.Call)
}

// TestBucket holds a bucket to the contract of disks, and leaves nothing.
func TestBucket(t *testing.T) {
	s := newServer(t)
	b := s.open(t, quick)
	storetest.RunDisk(t, func(t *testing.T, limit int64) objectstore.Disk { return diskOf(t, b, limit) })
	other := s.open(t, quick)
	b.Close()
	if left := s.names(t, other); len(left) != 1 || !strings.HasSuffix(left[0], "/lease") || strings.Contains(left[0], b.incarnation) {
		t.Errorf("a bucket that was closed has left %q", left)
	}
}

func noise(n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(p)
	return p
}

// TestStore moves objects out to a bucket and reads them back: small ones in one
// request, one that takes several parts.
func TestStore(t *testing.T) {
	s := newServer(t)
	b := s.open(t, quick)
	st, err := objectstore.New(objectstore.Config{Capacity: 48 << 20, Disk: diskOf(t, b, 0)})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var objects []*objectstore.Object
	var want [][]byte
	for i, n := range []int{20 << 20, 3 << 20, 100 << 10, 20 << 20, 10 << 20, 20 << 20} {
		p := noise(n)
		p[0] = byte(i)
		v := objectstore.Value{Encoding: abi.EncodingRaw, Payload: p}
		r, err := st.WaitSpace(ctx, v.Size())
		if err != nil {
			t.Fatal(err)
		}
		o, err := r.Put(wray.ID{Owner: 1, Seq: uint64(i + 1)}, v)
		if err != nil {
			t.Fatal(err)
		}
		objects, want = append(objects, o), append(want, p)
	}
	if st.Stats().Spilled == 0 {
		t.Fatal("nothing went to the bucket")
	}
	for i, o := range objects {
		v, err := o.WaitView(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if string(v.Bytes()) != string(want[i]) {
			t.Errorf("object %d has other bytes: %s", i, v.Bytes()[:min(300, len(v.Bytes()))])
		}
		v.Close()
		o.Release()
	}
}

// batchOf writes p as a batch, and fails the test where that fails.
func batchOf(t *testing.T, b *Bucket, p []byte) *pen {
	t.Helper()
	x, err := b.Create(int64(len(p)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.Write(t.Context(), []spill.Chunk{{Data: p, Len: int64(len(p))}}, true); err != nil {
		t.Fatal(err)
	}
	return x.(*pen)
}

// answer makes a fault that answers with a status, the first n times.
func answer(status, n int) func(http.ResponseWriter, *http.Request) bool {
	var mu sync.Mutex
	return func(w http.ResponseWriter, _ *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if n--; n < 0 {
			return false
		}
		w.WriteHeader(status)
		return true
	}
}

const always = 1 << 30

// TestFaults: what goes wrong for a while is tried again, what does not get
// better is an error that names the object and the remedy, and what is damaged
// is never given out.
func TestFaults(t *testing.T) {
	s := newServer(t)
	short := quick
	short.patience = 50 * time.Millisecond
	p := noise(1 << 20)
	cut := func(r *http.Response) error {
		if r.Request.Method == http.MethodGet {
			r.Body = struct {
				io.Reader
				io.Closer
			}{io.LimitReader(r.Body, 10), r.Body}
		}
		return nil
	}
	once := func(f func(*http.Response) error) func(*http.Response) error {
		var mu sync.Mutex
		done := false
		return func(r *http.Response) error {
			mu.Lock()
			defer mu.Unlock()
			if done {
				return nil
			}
			done = true
			return f(r)
		}
	}
	other := func(r *http.Response) error {
		r.Header.Set("Content-Range", "bytes 5-104/1048576")
		return nil
	}
	hang := func(w http.ResponseWriter, r *http.Request) bool {
		<-r.Context().Done() // until the client gives up
		return true
	}
	for _, c := range []struct {
		name  string
		fault func(http.ResponseWriter, *http.Request) bool
		alter func(*http.Response) error
		code  wray.Code // CodeOK: it is read in the end
		says  string
		once  bool // it is not tried again
	}{
		{name: "503 three times", fault: answer(503, 3)},
		{name: "503 for ever", fault: answer(503, always), code: wray.CodeObjectLost, says: "503"},
		{name: "403", fault: answer(403, always), code: wray.CodeDenied, says: "403", once: true},
		{name: "404", fault: answer(404, always), code: wray.CodeObjectLost, says: "404", once: true},
		{name: "cut off once", alter: once(cut)},
		{name: "cut off for ever", alter: cut, code: wray.CodeObjectLost, says: "EOF"},
		{name: "another range", alter: other, code: wray.CodeObjectLost, says: "another range"},
		{name: "no answer", fault: hang, code: wray.CodeObjectLost, says: "no answer within"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := quick
			if c.code != wray.CodeOK {
				l = short
			}
			b := s.open(t, l)
			x := batchOf(t, b, p)
			if c.name == "no answer" {
				b.limits.attempt = 20 * time.Millisecond
			}
			s.set(c.fault, c.alter)
			defer s.set(nil, nil)
			got := make([]byte, 100)
			n, err := x.Read(t.Context(), got, 1000)
			if c.code == wray.CodeOK {
				if err != nil || n != 100 || string(got) != string(p[1000:1100]) {
					t.Fatalf("read %d bytes: %v", n, err)
				}
				return
			}
			var e *wray.Error
			if !errors.As(err, &e) || e.Code != c.code || !strings.Contains(e.Message, c.says) ||
				!strings.Contains(e.Message, testBucket) || !strings.Contains(e.Message, x.key) || e.Hint == "" {
				t.Fatalf("got %v: expected %v with %q, the object's name and a hint", err, c.code, c.says)
			}
			if n := s.count(); c.once && n != 1 {
				t.Errorf("it was tried %d times", n)
			}
		})
	}
}

// TestWriteFaults: a batch is written in the end, or it is an error of a full
// disk, and the parts that were sent are removed.
func TestWriteFaults(t *testing.T) {
	s := newServer(t)
	b := s.open(t, quick)
	d := diskOf(t, b, 0)
	p := noise(20 << 20)
	s.set(answer(503, 2), nil)
	x, err := d.Create(int64(len(p)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err = x.Write(p); err == nil {
		err = x.Seal()
	}
	if err != nil {
		t.Fatalf("after two failures: %v", err)
	}
	x.Remove()
	sent := make(chan struct{}, 10)
	s.set(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("partNumber") == "2" {
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	}, func(r *http.Response) error {
		if r.Request.Method == http.MethodDelete {
			sent <- struct{}{}
		}
		return nil
	})
	if x, err = d.Create(int64(len(p))); err != nil {
		t.Fatal(err)
	}
	if _, err = x.Write(p); err == nil {
		err = x.Seal()
	}
	if err == nil || !strings.Contains(err.Error(), "part 2 of s3://"+testBucket) {
		t.Errorf("a refused part: %v", err)
	}
	x.Remove()
	<-sent // the first batch, or the parts
	<-sent
	s.set(nil, nil)
	if _, err := d.Create(1); !errors.Is(err, objectstore.ErrDiskFull) {
		t.Errorf("a bucket that has failed takes a batch: %v", err)
	}
	if left := s.names(t, b); len(left) != 1 {
		t.Errorf("there are %q: expected the lease alone", left)
	}
	if d.Used() != 0 {
		t.Errorf("%d bytes are taken by nothing", d.Used())
	}
}

// TestReplaced: an object that somebody has replaced or removed is lost, and what
// came in its place is not served.
func TestReplaced(t *testing.T) {
	s := newServer(t)
	b := s.open(t, quick)
	p := noise(1 << 20)
	x := batchOf(t, b, p)
	if _, err := b.core.PutObject(t.Context(), b.bucket, x.key, strings.NewReader(string(p[1:])+"x"), int64(len(p)), "", "", minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	var e *wray.Error
	if _, err := x.Read(t.Context(), make([]byte, 10), 0); !errors.As(err, &e) || e.Code != wray.CodeObjectLost || !strings.Contains(e.Hint, "replaced") {
		t.Errorf("a replaced object: %v", err)
	}
	if err := b.core.RemoveObject(t.Context(), b.bucket, x.key, minio.RemoveObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Read(t.Context(), make([]byte, 10), 0); !errors.As(err, &e) || e.Code != wray.CodeObjectLost {
		t.Errorf("a removed object: %v", err)
	}
}

// TestDamaged: bytes that were changed on the way are an error value, which says
// where they were, and are not read by anybody.
func TestDamaged(t *testing.T) {
	s := newServer(t)
	b := s.open(t, quick)
	st, err := objectstore.New(objectstore.Config{Capacity: 4 << 20, Disk: diskOf(t, b, 0)})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var objects []*objectstore.Object
	for i := range 6 {
		v := objectstore.Value{Encoding: abi.EncodingRaw, Payload: noise(1 << 20)}
		r, err := st.WaitSpace(ctx, v.Size())
		if err != nil {
			t.Fatal(err)
		}
		o, err := r.Put(wray.ID{Owner: 1, Seq: uint64(i + 1)}, v)
		if err != nil {
			t.Fatal(err)
		}
		defer o.Release()
		objects = append(objects, o)
	}
	s.set(nil, func(r *http.Response) error {
		if r.Request.Method != http.MethodGet {
			return nil
		}
		p, err := io.ReadAll(r.Body)
		if len(p) > 0 {
			p[len(p)/2] ^= 4
		}
		r.Body = io.NopCloser(strings.NewReader(string(p)))
		return err
	})
	defer s.set(nil, nil)
	if !objects[0].Away() {
		t.Fatal("the coldest object is in memory")
	}
	v, err := objects[0].WaitView(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	e := objects[0].Err()
	if e == nil || e.Code != wray.CodeObjectLost || !strings.Contains(e.Message, "checksum") || !strings.Contains(e.Message, "s3://"+testBucket) {
		t.Errorf("a damaged object: %v", e)
	}
}

// TestOpenRefused: who cannot use a bucket is told as the node starts.
func TestOpenRefused(t *testing.T) {
	s := newServer(t)
	l := quick
	l.patience = 20 * time.Millisecond
	try := func(c Config) error {
		t.Helper()
		c.limits = l
		b, err := Open(t.Context(), c)
		if err == nil {
			b.Close()
			t.Fatalf("%+v was opened", c)
		}
		return err
	}
	var e *wray.Error
	if err := try(Config{URL: "s3://no-such-bucket", Endpoint: s.url}); !errors.As(err, &e) || !strings.Contains(e.Hint, "make the bucket") {
		t.Errorf("no such bucket: %v", err)
	}
	if err := try(Config{URL: "s3://" + testBucket, Endpoint: "http://127.0.0.1:1"}); !errors.As(err, &e) || !strings.Contains(e.Hint, EndpointFlag) {
		t.Errorf("nobody listens: %v", err)
	}
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")
	if err := try(Config{URL: "s3://" + testBucket, Endpoint: s.url}); !errors.As(err, &e) || e.Code != wray.CodeDenied || !strings.Contains(e.Hint, CredentialsFlag) {
		t.Errorf("wrong credentials: %v", err)
	}
	file := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(file, []byte("[default]\naws_access_key_id = "+access+"\naws_secret_access_key = "+secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := Open(t.Context(), Config{URL: "s3://" + testBucket + "/file", Endpoint: s.url, Credentials: file, limits: quick})
	if err != nil {
		t.Fatalf("with credentials in a file: %v", err)
	}
	b.Close()
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("HOME", t.TempDir())
	if err := try(Config{URL: "s3://" + testBucket, Endpoint: s.url}); !strings.Contains(err.Error(), "AWS_ACCESS_KEY_ID") {
		t.Errorf("no credentials: %v", err)
	}
}

// TestLeftovers: what a dead node has left is removed by the next, its uploads
// too, and nothing of a living node or of others.
func TestLeftovers(t *testing.T) {
	s := newServer(t)
	dead := s.open(t, quick)
	batchOf(t, dead, noise(1000))
	if _, err := dead.core.NewMultipartUpload(t.Context(), dead.bucket, keyOf(dead.prefix, dead.incarnation, 99), minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	foreign := dead.prefix + marker + "notes/1"
	if _, err := dead.core.PutObject(t.Context(), dead.bucket, foreign, strings.NewReader("mine"), 4, "", "", minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	patient := s.open(t, quick) // for which an hour must pass
	if err := patient.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(s.names(t, patient)); n != 5 {
		t.Fatalf("a living node has %q", s.names(t, patient))
	}
	l := quick
	l.dead = -time.Hour // everybody is dead
	hasty := s.open(t, l)
	if err := hasty.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	left := s.names(t, hasty)
	if len(left) != 2 || left[0] != foreign && left[1] != foreign {
		t.Errorf("there are %q: expected the lease and what is not wray's", left)
	}
	if err := hasty.core.RemoveObject(t.Context(), hasty.bucket, foreign, minio.RemoveObjectOptions{}); err != nil {
		t.Fatal(err)
	}
}

// FuzzNames: whatever a bucket holds and a server answers, nothing is taken for
// ours that is not, and no range for another.
func FuzzNames(f *testing.F) {
	f.Add("s3://bucket/a/b/", "a/b/wray-0123456789abcdef/12", "bytes 0-9/100", int64(0), int64(10), int64(100))
	f.Add("s3://b", "wray-0123456789abcdef/lease", "bytes 5-9/10", int64(5), int64(5), int64(10))
	f.Fuzz(func(t *testing.T, u, key, contentRange string, off, n, size int64) {
		bucket, prefix, err := parseURL(u)
		if err == nil && (bucket == "" || strings.HasPrefix(prefix, "/") || prefix != "" && !strings.HasSuffix(prefix, "/")) {
			t.Errorf("%q is bucket %q and prefix %q", u, bucket, prefix)
		}
		if i, ok := parseKey(prefix, key); ok {
			if !strings.HasPrefix(key, prefix+marker+i+"/") || len(i) != 16 {
				t.Errorf("%q is of %q", key, i)
			}
		}
		if checkRange(contentRange, off, n, size) == nil && !strings.HasPrefix(contentRange, "bytes ") {
			t.Errorf("%q is a range", contentRange)
		}
	})
}
