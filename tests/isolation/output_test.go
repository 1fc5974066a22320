package isolation

import (
	"bytes"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/node"
	"github.com/wray-project/wray/host/worker"
)

// TestSlowReader holds that a job whose output nobody reads holds up nobody, on
// a node that runs one sandbox at a time, and that it can be stopped meanwhile.
func TestSlowReader(t *testing.T) {
	n, err := node.New(node.Config{CacheDir: filepath.Join(t.TempDir(), "cache"), Name: "test", Slots: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	wasm, err := buildGo("package main\n\nfunc main() {\n\tfor {\n\t\tprintln(\"endless\")\n\t}\n}\n")
	if err != nil {
		t.Fatal(err)
	}
	full, read, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	var once sync.Once
	var out bytes.Buffer
	go func() {
		_, err := n.Run(t.Context(), node.Job{Name: "flood", Modules: []node.Module{{Name: "flood", Wasm: wasm}},
			Limits: worker.Limits{Timeout: 500 * time.Millisecond},
			Output: func(_ string, _ worker.Stream, p []byte) {
				once.Do(func() { close(full) })
				<-read
				out.Write(p)
			}})
		ended <- err
	}()
	<-full
	requireAlive(t, n)
	close(read)
	if err := <-ended; !errors.Is(err, wray.ErrTimeout) {
		t.Errorf("the flood ended with %v", err)
	}
	// What was queued are whole lines, and no more than may be; on a busy machine
	// the deadline comes before there are as many.
	if lines := bytes.Count(out.Bytes(), []byte("endless\n")); lines*8 != out.Len() || out.Len() == 0 || out.Len() > 4<<20 {
		t.Errorf("%d bytes and %d lines were read", out.Len(), lines)
	}
}
