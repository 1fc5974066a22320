package worker

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"

	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/host/wasi/wasitest"
	"github.com/wray-project/wray/internal/link"
)

// ends returns both ends of a link, which the end of the test closes.
func ends(t testing.TB) (node, worker *link.Conn) {
	t.Helper()
	node, file, err := link.Pair(LinkOptions())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { node.Close() })
	if worker, err = link.FromFile(file, LinkOptions()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { worker.Close() })
	return node, worker
}

// linked returns the worker's end of a link whose other end serves with h, and
// what closes both and waits for their handlers. The end of the test does so.
func linked(t testing.TB, h link.Handler) (conn *link.Conn, end func()) {
	t.Helper()
	node, worker := ends(t)
	var served sync.WaitGroup
	served.Go(func() {
		if err := node.Serve(context.Background(), h); err != nil {
			t.Errorf("the node's end: %v", err)
		}
	})
	served.Go(func() {
		err := worker.Serve(context.Background(), func(context.Context, link.Message) (link.Message, error) {
			return link.Message{}, errors.New("not expected")
		})
		if err != nil {
			t.Errorf("the worker's end: %v", err)
		}
	})
	end = func() {
		worker.Close()
		node.Close()
		served.Wait()
	}
	t.Cleanup(end)
	return worker, end
}

// granted serves the directory dir as a node does.
func granted(t testing.TB, dir string) wasi.FS {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	fs := wasi.RootFS(root)
	conn, _ := linked(t, func(_ context.Context, m link.Message) (link.Message, error) {
		defer m.CloseFiles()
		var b FSBody
		if err := link.Unmarshal(m.Body, &b); err != nil {
			return link.Message{}, err
		}
		if m.Kind != KindFS || b.Run != 7 || b.Dir != 3 {
			t.Errorf("message %d for run %d, directory %d", m.Kind, b.Run, b.Dir)
		}
		r, f := ServeFS(fs, b)
		out, err := reply(r)
		if f != nil {
			out.Files = []*os.File{f}
		}
		return out, err
	})
	return &remoteFS{ctx: context.Background(), conn: conn, run: 7, dir: 3}
}

// TestRemoteFS holds a directory behind the link to what every directory must
// do.
func TestRemoteFS(t *testing.T) {
	wasitest.TestFS(t, 1000, func(t *testing.T, dir string) wasi.FS { return granted(t, dir) })
}

// TestRemoteFSReplies gives the worker answers that no node gives: each is
// EIO, and no file of an answer stays open.
func TestRemoteFSReplies(t *testing.T) {
	file := func() *os.File {
		f, err := os.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	body := func(r FSReply) []byte {
		b, err := link.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, tc := range []struct {
		name  string
		body  []byte
		files int
		want  wasi.Errno
	}{
		{"empty", nil, 0, wasi.EIO},
		{"truncated", body(FSReply{})[:5], 1, wasi.EIO},
		{"no CBOR", []byte{0xff}, 1, wasi.EIO},
		{"trailing", append(body(FSReply{}), 0), 1, wasi.EIO},
		{"two files", body(FSReply{}), 2, wasi.EIO},
		{"no file", body(FSReply{}), 0, wasi.EIO},
		{"failure with a file", body(FSReply{Errno: uint16(wasi.ENOENT)}), 1, wasi.ENOENT},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := openFiles(t)
			conn, end := linked(t, func(context.Context, link.Message) (link.Message, error) {
				m := link.Message{Body: tc.body}
				for range tc.files {
					m.Files = append(m.Files, file())
				}
				return m, nil
			})
			fs := &remoteFS{ctx: context.Background(), conn: conn}
			if f, e := fs.Open("f", wasi.OpenRead); f != nil || e != tc.want {
				t.Errorf("Open gave %v, errno %d, want %d", f, e, tc.want)
			}
			if _, e := fs.Readlink("f"); tc.want == wasi.EIO && tc.name != "no file" && e != wasi.EIO {
				t.Errorf("Readlink gave errno %d", e)
			}
			end()
			if after := openFiles(t); after > before {
				t.Errorf("%d descriptors before, %d after", before, after)
			}
		})
	}
	conn, end := linked(t, func(context.Context, link.Message) (link.Message, error) { return link.Message{}, nil })
	end()
	if _, e := (&remoteFS{ctx: context.Background(), conn: conn}).Stat(".", true); e != wasi.EIO {
		t.Errorf("Stat over a closed link: errno %d", e)
	}
}

func openFiles(t testing.TB) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// FuzzServeFS asks the node's side for what a worker may that has been taken
// over: any body. Nothing outside the directory changes or is opened, and a
// file comes only with success.
func FuzzServeFS(f *testing.F) {
	dir, out := wasitest.Outside(f)
	root, err := os.OpenRoot(dir)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { root.Close() })
	fs := wasi.NoSymlinks(wasi.RootFS(root))
	before := wasitest.Describe(f, out)
	for _, way := range wasitest.Ways(out) {
		for op := FSOp(0); op <= FSReadlink+1; op++ {
			b, err := link.Marshal(FSBody{Op: op, Path: []byte(way), Path2: []byte("x\x00/../y"), Flags: uint32(op) * 0x55, Follow: op%2 == 0})
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Add([]byte{0xa1, 4, 0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}) // a path of 2^64-1 bytes
	f.Fuzz(func(t *testing.T, body []byte) {
		var b FSBody
		if err := link.Unmarshal(body, &b); err != nil {
			if !errors.Is(err, link.ErrProtocol) {
				t.Errorf("an untyped error: %v", err)
			}
			return
		}
		r, file := ServeFS(fs, b)
		if file != nil {
			if r.Errno != 0 || b.Op != FSOpen {
				t.Errorf("operation %d gave a file with errno %d", b.Op, r.Errno)
			}
			names, _ := file.Readdirnames(-1)
			for _, name := range names {
				if name == "secret" || name == "out" {
					t.Errorf("%q opened a directory outside", b.Path)
				}
			}
			text := make([]byte, 64)
			if n, _ := file.Read(text); string(text[:n]) == wasitest.Secret {
				t.Errorf("%q opened the secret", b.Path)
			}
			file.Close()
		} else if b.Op == FSOpen && r.Errno == 0 {
			t.Errorf("%q was opened without a file", b.Path)
		}
		if _, err := reply(r); err != nil {
			t.Errorf("an answer that cannot be sent: %v", err)
		}
		if after := wasitest.Describe(t, out); after != before {
			t.Errorf("outside changed:\n%s\nto:\n%s", before, after)
		}
	})
}
