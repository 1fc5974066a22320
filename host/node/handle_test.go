package node

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/host/wasi/wasitest"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/link"
)

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
		{worker.KindStart, worker.StartBody{}}, {worker.KindRun, worker.RunBody{}}, {99, nil},
	} {
		b, err := link.Marshal(m.body)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint16(m.kind), b)
	}
	f.Fuzz(func(t *testing.T, kind uint16, body []byte) {
		r := &run{dirs: []wasi.FS{wasi.NoSymlinks(wasi.RootFS(root))}}
		r.job.Output = func(_ string, s worker.Stream, _ []byte) {
			if s != worker.Stdout && s != worker.Stderr {
				t.Errorf("printed on stream %d", s)
			}
		}
		w := &workerProcess{runs: map[uint64]*run{1: r}}
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
