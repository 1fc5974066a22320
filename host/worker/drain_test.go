package worker

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/clientwire"
)

// TestDrain holds that an actor which takes several calls at once has
// checkpoints: by policy, on request, and of a method; that a call under way
// holds them up for a while only; and that none is lost in silence.
func TestDrain(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it compiles a Go program")
	}
	guest := compileGuest(t, "drain")
	ctx := context.Background()
	w, err := New(ctx, Config{Slots: 2, CacheDir: guest.cache, Drain: 300 * time.Millisecond, Capacity: wray.Resources{CPU: wray.CPUs(2), Memory: 2 << 30}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close(ctx)
	var mu sync.Mutex
	var said strings.Builder // guarded by mu
	code, err := w.Run(ctx, JobSpec{Name: "drain", Modules: []ModuleSpec{guest.module},
		Output: func(_ string, _ Stream, p []byte) {
			mu.Lock()
			defer mu.Unlock()
			said.Write(p)
		}})
	if err != nil || code != 0 || !strings.Contains(said.String(), "drained\n") {
		t.Errorf("exit %d, %v\n%s", code, err, said.String())
	}
	st := w.Stats()
	if st.Undrained != 1 {
		t.Errorf("%d times an actor was not drained, want once\n%s", st.Undrained, said.String())
	}
	if m := w.Memory(clientwire.MemoryBody{}); m.Undrained != st.Undrained {
		t.Errorf("a listing says %d, want %d", m.Undrained, st.Undrained)
	}
	if st.Store.Objects != 0 || st.Store.Used != 0 || st.AsleepBytes != 0 {
		t.Errorf("left behind: store %+v, %d bytes of states", st.Store, st.AsleepBytes)
	}
}
