package worker

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/wray-project/wray"
)

// TestRandomnessAfterRestore has the driver and six fresh tasks, all from one
// snapshot, draw of everything that a Go program takes for random. What was
// drawn before the snapshot is the same for all, and nothing else is.
func TestRandomnessAfterRestore(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it compiles a Go program")
	}
	guest := compileGuest(t, "random")
	ctx := context.Background()
	w, err := New(ctx, Config{Slots: 2, CacheDir: guest.cache, Capacity: wray.Resources{CPU: wray.CPUs(2), Memory: 2 << 30}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close(ctx)
	var mu sync.Mutex
	var text bytes.Buffer // guarded by mu
	code, err := w.Run(ctx, JobSpec{Name: "random", Modules: []ModuleSpec{guest.module},
		Output: func(_ string, _ Stream, p []byte) {
			mu.Lock()
			defer mu.Unlock()
			text.Write(p)
		}})
	if err != nil || code != 0 {
		t.Fatalf("%d, %v\n%s", code, err, text.String())
	}
	seen := map[string]map[string]int{}
	for line := range strings.Lines(text.String()) {
		what, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		if seen[what] == nil {
			seen[what] = map[string]int{}
		}
		seen[what][v]++
	}
	const sandboxes = 7
	for _, what := range []string{"early", "crypto/rand", "math/rand", "math/rand/v2", "maphash", "map", "map-before"} {
		want := sandboxes
		if what == "early" {
			want = 1
		}
		if len(seen[what]) != want {
			t.Errorf("%s: %d values in %d sandboxes, want %d: %v", what, len(seen[what]), sandboxes, want, seen[what])
		}
	}
}
