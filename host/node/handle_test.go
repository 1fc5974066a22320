package node

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/egress"
	"github.com/wray-project/wray/host/egress/client"
	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/host/wasi/wasitest"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/link"
)

// nowhere is a resolver that knows no name, and may be asked for one alone.
type nowhere struct{}

func (nowhere) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if host != "granted.invalid." {
		panic("looked up " + host)
	}
	return nil, errors.New("no such host")
}

// FuzzHandle gives the node any message of a worker. It answers or refuses with
// a typed error, prints only what came on a stream, and gives files only for
// what it granted.
func FuzzHandle(f *testing.F) {
	dir, out := wasitest.Outside(f)
	root, err := os.OpenRoot(dir)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { root.Close() })
	before := wasitest.Describe(f, out)
	for _, m := range []struct {
		kind link.Kind
		body any
	}{
		{worker.KindOutput, worker.OutputBody{Run: 1, Task: "t", Stream: worker.Stdout, Data: []byte("x")}},
		{worker.KindOutput, worker.OutputBody{Run: 1, Stream: 9, Data: []byte("x")}},
		{worker.KindOutput, worker.OutputBody{Run: 2, Stream: worker.Stderr}},
		{worker.KindFS, worker.FSBody{Run: 1, Op: worker.FSOpen, Path: []byte("."), Flags: uint32(wasi.OpenRead | wasi.OpenDirectory)}},
		{worker.KindFS, worker.FSBody{Run: 1, Dir: 1, Op: worker.FSOpen, Path: []byte("."), Flags: 1}},
		{worker.KindFS, worker.FSBody{Run: 1, Dir: -1 << 62, Op: worker.FSStat, Path: []byte("..")}},
		{worker.KindFS, worker.FSBody{Run: 3, Op: worker.FSRename, Path: []byte("../out"), Path2: []byte("x")}},
		{worker.KindFetch, worker.FetchBody{Run: 1, Op: worker.FetchBegin, Method: "GET", URL: "http://127.0.0.1:9/"}},
		{worker.KindFetch, worker.FetchBody{Run: 1, Op: worker.FetchBegin, Method: "GET", URL: "http://granted.invalid/", Header: []egress.Header{{Name: "X", Value: "y"}}, Length: 5}},
		{worker.KindFetch, worker.FetchBody{Run: 1, Op: worker.FetchSend, ID: 1, Data: []byte("x")}}, {worker.KindFetch, worker.FetchBody{Run: 1, Op: worker.FetchRead, ID: 1}},
		{worker.KindStart, worker.StartBody{}}, {worker.KindRun, worker.RunBody{}}, {99, nil},
	} {
		b, err := link.Marshal(m.body)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint16(m.kind), b)
	}
	granted, err := wray.ParseEgress("granted.invalid")
	if err != nil {
		f.Fatal(err)
	}
	_, local, _, _ := egressNode(f)
	local.egress.client = client.New(client.Config{Resolver: nowhere{}})
	f.Fuzz(func(t *testing.T, kind uint16, body []byte) {
		r := &run{dirs: []wasi.FS{wasi.NoSymlinks(wasi.RootFS(root))}, egress: []wray.EgressRule{granted}}
		defer r.close()
		r.job.Output = func(_ string, s worker.Stream, _ []byte) {
			if s != worker.Stdout && s != worker.Stderr {
				t.Errorf("printed on stream %d", s)
			}
		}
		w := &workerProcess{t: local, runs: map[uint64]*run{1: r}}
		m, err := w.handle(context.Background(), link.Message{Kind: link.Kind(kind), Body: body})
		defer m.CloseFiles()
		var e *wray.Error
		if err != nil && (!errors.Is(err, link.ErrProtocol) && !errors.As(err, &e) || len(m.Files) > 0) {
			t.Errorf("%d files and %v", len(m.Files), err)
		}
		for _, file := range m.Files {
			text := make([]byte, 64)
			if n, _ := file.Read(text); string(text[:n]) == wasitest.Secret {
				t.Errorf("message %d, %x opened the secret", kind, body)
			}
		}
		if after := wasitest.Describe(t, out); after != before {
			t.Errorf("outside changed:\n%s\nto:\n%s", before, after)
		}
	})
}

// TestOutputAfterTheEnd prints for a job that has returned: nobody is told.
func TestOutputAfterTheEnd(t *testing.T) {
	printed := 0
	r := &run{job: Job{Output: func(string, worker.Stream, []byte) { printed++ }}}
	b := &worker.OutputBody{Run: 1, Stream: worker.Stdout, Data: []byte("x")}
	if err := r.output(b); err != nil || printed != 1 {
		t.Errorf("%v, printed %d times", err, printed)
	}
	r.close()
	if err := r.output(b); err != nil || printed != 1 {
		t.Errorf("after the end: %v, printed %d times", err, printed)
	}
}
