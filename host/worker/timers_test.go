package worker

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/wray-project/wray"
)

// TestActorTimers holds that timers of goroutines which calls left running go
// off between calls: in an actor that rests, in one that sleeps, which does so
// again after that, and in one that was started again from a checkpoint.
func TestActorTimers(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it compiles a Go program")
	}
	guest := compileGuest(t, "timers")
	for mode, fires := range map[string]int{"rests": 3, "sleeps": 1, "restarts": 1, "breaks": 1} {
		t.Run(mode, func(t *testing.T) {
			ctx := context.Background()
			w, err := New(ctx, Config{Slots: 2, Residents: 1, CacheDir: guest.cache, Capacity: wray.Resources{CPU: wray.CPUs(2), Memory: 2 << 30}})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close(ctx)
			r, seen, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			defer seen.Close()
			in, err := newInput(r)
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			lines := make(chan string, 100)
			ended := make(chan error, 1)
			go func() {
				code, err := w.Run(ctx, JobSpec{Name: "timers", Args: []string{mode}, Stdin: in, Modules: []ModuleSpec{guest.module},
					Output: func(_ string, _ Stream, p []byte) {
						for line := range strings.Lines(string(p)) {
							lines <- strings.TrimSpace(line)
						}
					}})
				if err == nil && code != 0 {
					err = fmt.Errorf("exit %d", code)
				}
				ended <- err
			}()
			var said []string
			late := time.After(30 * time.Second)
			fired, called, asked := 0, false, false
			for fired < fires || !called {
				select {
				case l := <-lines:
					said = append(said, l)
					switch {
					case l == fmt.Sprintf("fired %d", fired+1):
						fired++
					case l == "sleeps":
						if s := w.Stats(); s.Asleep == 0 {
							t.Error("no actor sleeps")
						}
					case l == "called":
						called = true
					}
				case err := <-ended:
					t.Fatalf("the job ended: %v\n%q", err, said)
				case <-late:
					t.Fatalf("%d timers have gone off, want %d\n%q", fired, fires, said)
				}
			}
			if _, err := seen.Write([]byte{1}); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; err != nil {
				t.Error(err)
			}
			for len(lines) > 0 {
				l := <-lines
				said = append(said, l)
				asked = asked || l == "asked"
			}
			if !asked || strings.Contains(fmt.Sprint(said), "too early") || mode == "sleeps" && strings.Contains(fmt.Sprint(said), "stood still") {
				t.Errorf("%q", said)
			}
		})
	}
}
