package isolation

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/node"
	"github.com/wray-project/wray/host/worker"
)

// reader is a command that says that it is there and then copies its input.
const reader = `package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	fmt.Println("ready")
	b, err := io.ReadAll(os.Stdin)
	fmt.Printf("%q %v\n", b, err)
}
`

// TestInput holds that a driver that waits for its input holds up nobody, on a
// node that runs one sandbox at a time, and that it can be stopped meanwhile.
func TestInput(t *testing.T) {
	n, err := node.New(node.Config{CacheDir: filepath.Join(t.TempDir(), "cache"), Name: "test", Slots: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	wasm, err := buildGo(reader)
	if err != nil {
		t.Fatal(err)
	}
	type end struct {
		out string
		err error
	}
	// begin starts a reader and returns when it is about to read.
	begin := func(ctx context.Context, limit time.Duration) (in *os.File, ended chan end) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close(); w.Close() })
		ready, ended := make(chan struct{}), make(chan end, 1)
		go func() {
			var out bytes.Buffer
			_, err := n.Run(ctx, node.Job{Name: "reader", Modules: []node.Module{{Name: "reader", Wasm: wasm}}, Stdin: r,
				Limits: worker.Limits{Timeout: limit},
				Output: func(_ string, _ worker.Stream, p []byte) {
					if out.Len() == 0 {
						close(ready)
					}
					out.Write(p)
				}})
			ended <- end{out.String(), err}
		}()
		select {
		case <-ready:
		case e := <-ended:
			t.Fatalf("%q, %v", e.out, e.err)
		}
		return w, ended
	}

	w, ended := begin(t.Context(), 0)
	requireAlive(t, n)
	if _, err := w.WriteString("to and "); err != nil {
		t.Fatal(err)
	}
	requireAlive(t, n)
	if _, err := w.WriteString("fro"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if e := <-ended; e.err != nil || e.out != "ready\n\"to and fro\" <nil>\n" {
		t.Errorf("the reader gave %q, %v", e.out, e.err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	_, ended = begin(ctx, 0)
	cancel()
	if e := <-ended; !errors.Is(e.err, wray.ErrCanceled) {
		t.Errorf("canceled: %q, %v", e.out, e.err)
	}
	_, ended = begin(t.Context(), 50*time.Millisecond)
	if e := <-ended; !errors.Is(e.err, wray.ErrTimeout) {
		t.Errorf("past its deadline: %q, %v", e.out, e.err)
	}
	requireAlive(t, n)
}
