package node

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
)

// printing is a plain command that prints "x\n" and then spins.
func printing() []byte {
	section := func(id byte, body string) string { return string([]byte{id, byte(len(body))}) + body }
	name := func(s string) string { return string([]byte{byte(len(s))}) + s }
	code := "\x00\x41\x01\x41\x00\x41\x01\x41\x10\x10\x00\x1a\x03\x40\x0c\x00\x0b\x0b" // fd_write(1, 0, 1, 16); loop
	return []byte("\x00asm\x01\x00\x00\x00" +
		section(1, "\x02\x60\x00\x00\x60\x04\x7f\x7f\x7f\x7f\x01\x7f") +
		section(2, "\x01"+name("wasi_snapshot_preview1")+name("fd_write")+"\x00\x01") +
		section(3, "\x01\x00") + section(5, "\x01\x00\x01") +
		section(7, "\x02"+name("memory")+"\x02\x00"+name("_start")+"\x00\x01") +
		section(10, "\x01"+string([]byte{byte(len(code))})+code) +
		section(11, "\x01\x00\x41\x00\x0b\x0a\x08\x00\x00\x00\x02\x00\x00\x00x\n"))
}

// TestStoppedReader has somebody who reads what a job prints stand still, as a
// client does that was stopped, and kills the worker. The other job of the
// worker is told soon, and the next runs.
func TestStoppedReader(t *testing.T) {
	n := home(t.TempDir()).node(t)
	if code, err := n.testRun(t, job(nothing)); code != 0 || err != nil {
		t.Fatalf("%d, %v", code, err)
	}
	w := n.current()
	printed, goOn := make(chan bool), make(chan bool)
	j := job(printing())
	stand := sync.OnceFunc(func() { close(printed); <-goOn })
	j.Output = func(string, worker.Stream, []byte) { stand() }
	stopped := make(chan error, 1)
	go func() {
		_, err := n.Run(context.Background(), j)
		stopped <- err
	}()
	select {
	case <-printed:
	case err := <-stopped:
		t.Fatalf("the job that prints ended: %v", err)
	}
	w.added = func() { w.proc.Kill() }
	began := time.Now()
	other := make(chan error, 1)
	go func() {
		_, err := n.Run(context.Background(), job(forever))
		other <- err
	}()
	select {
	case err := <-other:
		if !errors.Is(err, wray.ErrWorkerDied) {
			t.Errorf("the other job ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the other job is held up by who does not read")
	}
	t.Logf("the other job was told after %v", time.Since(began))
	if code, err := n.testRun(t, job(nothing)); code != 0 || err != nil {
		t.Errorf("the next job: %d, %v", code, err)
	}
	close(goOn)
	if err := <-stopped; !errors.Is(err, wray.ErrWorkerDied) {
		t.Errorf("the job that was not read ended with %v", err)
	}
}

// TestHungWorker stops the worker's process under a job with a timeout. The job
// ends some time after that with an error that says so, and the next one runs.
func TestHungWorker(t *testing.T) {
	n := home(t.TempDir()).node(t)
	n.grace = 200 * time.Millisecond
	if code, err := n.testRun(t, job(nothing)); code != 0 || err != nil {
		t.Fatalf("%d, %v", code, err)
	}
	w := n.current()
	w.added = func() {
		if err := syscall.Kill(w.proc.Pid(), syscall.SIGSTOP); err != nil {
			t.Error(err)
		}
	}
	j := job(forever)
	j.Limits.Timeout = 100 * time.Millisecond
	_, err := n.testRun(t, j)
	var e *wray.Error
	if !errors.As(err, &e) || e.Code != wray.CodeTimeout || !strings.Contains(e.Hint, "did not answer") {
		t.Errorf("got %v", err)
	}
	if code, err := n.testRun(t, job(nothing)); code != 0 || err != nil {
		t.Errorf("the next job: %d, %v", code, err)
	}
	if n.current() == w {
		t.Error("the hung worker is kept")
	}
}

// TestTimeoutIsTheWorkers holds that a worker which works ends the job itself.
func TestTimeoutIsTheWorkers(t *testing.T) {
	n := home(t.TempDir()).node(t)
	j := job(forever)
	j.Limits.Timeout = 50 * time.Millisecond
	_, err := n.testRun(t, j)
	var e *wray.Error
	if !errors.As(err, &e) || e.Code != wray.CodeTimeout || strings.Contains(e.Hint, "answer") {
		t.Errorf("got %v", err)
	}
}

// TestModuleBytes has a client submit modules that are larger together than a
// node keeps, in files that take no room. None is read.
func TestModuleBytes(t *testing.T) {
	n := home(t.TempDir()).node(t)
	s := &Server{n: n}
	submit := func(sizes ...int64) error {
		b := clientwire.RunBody{Version: clientwire.Version}
		m := link.Message{Kind: clientwire.KindRun}
		for _, size := range sizes {
			fd, err := unix.MemfdCreate("module", unix.MFD_CLOEXEC)
			if err != nil {
				t.Fatal(err)
			}
			f := os.NewFile(uintptr(fd), "module")
			if err := f.Truncate(size); err != nil {
				t.Fatal(err)
			}
			m.Files = append(m.Files, f)
			b.Modules = append(b.Modules, "m")
		}
		var err error
		if m.Body, err = link.Marshal(b); err != nil {
			t.Fatal(err)
		}
		defer m.CloseFiles()
		_, err = s.run(t.Context(), nil, m)
		return err
	}
	many := make([]int64, 128)
	for i := range many {
		many[i] = maxModuleBytes
	}
	limit := func(err error, name string) {
		t.Helper()
		var e *wray.Error
		if !errors.As(err, &e) || e.Code != wray.CodeLimitExceeded || e.Limit == nil || e.Limit.Name != name {
			t.Errorf("got %v, want the limit %q", err, name)
		}
	}
	limit(submit(many...), "module bytes of a job")
	n.modules.used = maxNodeBytes - 100 // of others
	limit(submit(101), "module bytes of a node")
	if err := submit(100); err == nil || errors.Is(err, wray.ErrLimitExceeded) {
		t.Errorf("a module that is none, within the limits: %v", err)
	}
	if n.modules.used != maxNodeBytes-100 {
		t.Errorf("%d bytes are not given back", n.modules.used-(maxNodeBytes-100))
	}
}
