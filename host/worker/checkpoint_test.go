package worker

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wray-project/wray"
)

// TestCheckpoints compares actors that are started again at random points with
// a model: small ones, whose checkpoints are differences, and large ones, whose
// checkpoints are files; with a checkpoint at every call and with rare ones; and
// with others that push them out of their sandbox.
func TestCheckpoints(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it compiles a Go program")
	}
	seed := time.Now().UnixNano() % 1e9
	if s := os.Getenv("WRAY_SEED"); s != "" {
		seed, _ = strconv.ParseInt(s, 10, 64)
	}
	t.Logf("again: WRAY_SEED=%d go test ./host/worker -run %s", seed, t.Name())
	guest := compileGuest(t, "checkpoints")
	lost := false
	defer func() {
		if !lost && !t.Failed() {
			t.Error("no call was lost anywhere, with rare checkpoints")
		}
	}()
	for _, c := range []struct{ rounds, every, mib, others int }{
		{40, 1, 0, 0}, {60, 7, 0, 3}, {15, 1, 6, 0}, {25, 5, 6, 3},
	} {
		t.Run(fmt.Sprintf("every %d, %d MiB, %d others", c.every, c.mib, c.others), func(t *testing.T) {
			ctx := context.Background()
			w, err := New(ctx, Config{Slots: 2, Residents: 2, CacheDir: guest.cache, Capacity: wray.Resources{CPU: wray.CPUs(2), Memory: 2 << 30}})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close(ctx)
			var mu sync.Mutex
			var said strings.Builder // guarded by mu
			args := []string{fmt.Sprint(seed), fmt.Sprint(c.rounds), fmt.Sprint(c.every), fmt.Sprint(c.mib), fmt.Sprint(c.others)}
			code, err := w.Run(ctx, JobSpec{Name: "checkpoints", Args: args, Modules: []ModuleSpec{guest.module},
				Output: func(_ string, _ Stream, p []byte) {
					mu.Lock()
					defer mu.Unlock()
					said.Write(p)
				}})
			if err != nil || code != 0 {
				t.Errorf("exit %d, %v\n%s", code, err, said.String())
			}
			lost = lost || !strings.HasPrefix(said.String(), "lost 0\n")
			st := w.Stats()
			if st.Store.Objects != 0 || st.Store.Used != 0 || st.Store.Windows != 0 || st.AsleepBytes != 0 {
				t.Errorf("left behind: store %+v, %d bytes of states", st.Store, st.AsleepBytes)
			}
		})
	}
}
