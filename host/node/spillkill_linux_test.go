package node

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/spill"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/testenv"
)

// halfway is a directory whose batches stop in the middle of a write, or of a
// read, until they are let go. Its batches are read by messages, so that there
// is a middle of a read.
type halfway struct {
	*spill.Dir
	read    bool // stop reads, not writes
	once    sync.Once
	reached chan struct{} // closed when the first batch has stopped
	let     chan struct{} // closed to let it go on
}

func (p *halfway) stop() { p.once.Do(func() { close(p.reached); <-p.let }) }

func (p *halfway) Create(n int64) (spill.Pen, error) {
	x, err := p.Dir.Create(n)
	if err != nil {
		return nil, err
	}
	return &halfPen{Pen: x, p: p}, nil
}

type halfPen struct {
	spill.Pen
	p *halfway
}

func (x *halfPen) File() (*os.File, error) { return nil, nil }

func (x *halfPen) Write(ctx context.Context, w []spill.Chunk, last bool) (bool, error) {
	half := len(w) / 2
	if !x.p.read && half > 0 {
		if _, err := x.Pen.Write(ctx, w[:half], false); err != nil {
			return false, err
		}
		w = w[half:]
		x.p.stop()
	}
	return x.Pen.Write(ctx, w, last)
}

func (x *halfPen) Read(ctx context.Context, b []byte, off int64) (int, error) {
	half := len(b) / 2
	n, err := x.Pen.Read(ctx, b[:half], off)
	if err != nil {
		return n, err
	}
	if x.p.read {
		x.p.stop()
	}
	m, err := x.Pen.Read(ctx, b[half:], off+int64(half))
	return n + m, err
}

// spillProgram builds the program that keeps more than its store holds.
func spillProgram(t *testing.T) []byte {
	t.Helper()
	testenv.Inputs(t)
	out := filepath.Join(t.TempDir(), "spill.wasm")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildmode=c-shared", "-o", out, "./tests/e2e/testdata/spill")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, b)
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// TestKilledWhileSpilling: a worker that is killed in the middle of moving
// objects to disk, or of reading them back, gives all of their place back; the
// job ends with an error that says so, and the same job runs in the next worker
// and reads what it has put.
func TestKilledWhileSpilling(t *testing.T) {
	wasm := spillProgram(t)
	h := t.TempDir()
	spills := func() Job {
		j := job(wasm)
		j.Args = []string{"12"}
		return j
	}
	for _, read := range []bool{false, true} {
		name := "write"
		if read {
			name = "read"
		}
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			n, err := New(Config{Name: "test", CacheDir: h, StoreBytes: 24 << 20, SpillDirs: []string{dir}, SpillLimit: 1 << 30})
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			d, err := spill.OpenDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			place := &halfway{Dir: d, read: read, reached: make(chan struct{}), let: make(chan struct{})}
			n.spill = []spill.Place{place}
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			ended := make(chan error, 1)
			go func() {
				_, err := n.Run(ctx, spills())
				ended <- err
			}()
			select {
			case <-place.reached:
			case err := <-ended:
				t.Fatalf("the job ended before it moved anything: %v", err)
			}
			w := n.current()
			if w.spill.Used() == 0 {
				t.Error("nothing is on disk")
			}
			w.proc.Kill()
			close(place.let)
			var e *wray.Error
			if err := <-ended; !errors.As(err, &e) || e.Code != wray.CodeWorkerDied {
				t.Errorf("the job ended with %v", err)
			}
			if used := w.spill.Used(); used != 0 {
				t.Errorf("%d bytes are taken for a worker that is dead", used)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("there are %v, %v", left, err)
			}
			said := ""
			j := spills()
			j.Output = func(_ string, _ worker.Stream, p []byte) { said += string(p) }
			if code, err := n.Run(ctx, j); code != 0 || err != nil || said != "12 blocks are as they were made\n" {
				t.Errorf("the next worker: %d, %v, %q", code, err, said)
			}
		})
	}
}
