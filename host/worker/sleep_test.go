package worker

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"testing"

	"github.com/wray-project/wray"
)

// goModule builds a program, and returns the module's file.
func goModule(t testing.TB, name string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "guest.wasm")
	build := exec.Command("go", "build", "-buildmode=c-shared", "-ldflags=-checklinkname=0", "-o", out, "./testdata/"+name)
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if msg, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, msg)
	}
	return out
}

// sleepers runs n actors with room for few, and calls look when all have been
// called and most sleep.
func sleepers(t testing.TB, n, residents int, look func(w *Worker)) {
	t.Helper()
	runSleepers(t, residents, look, fmt.Sprint(n))
}

// runSleepers runs the guest and returns what else it said.
func runSleepers(t testing.TB, residents int, look func(w *Worker), args ...string) (said string) {
	t.Helper()
	guest := compileGuest(t, "sleepers")
	ctx := context.Background()
	w, err := New(ctx, Config{Slots: 2, Residents: residents, CacheDir: guest.cache, Capacity: wray.Resources{CPU: wray.CPUs(2), Memory: 2 << 30}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close(ctx)
	r, looked, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer looked.Close()
	in, err := newInput(r)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	asked := false
	code, err := w.Run(ctx, JobSpec{Name: "sleepers", Args: args, Stdin: in, Modules: []ModuleSpec{guest.module},
		Output: func(_ string, _ Stream, p []byte) {
			for line := range strings.Lines(string(p)) {
				switch line {
				case "called\n":
					look(w)
					if _, err := looked.Write([]byte{1}); err != nil {
						t.Error(err)
					}
				case "asked\n":
					asked = true
				default:
					said += line
				}
			}
		}})
	if err != nil || code != 0 || !asked {
		t.Errorf("exit %d, %v\n%s", code, err, said)
	}
	if s := w.Stats(); s.Resident != 0 || s.Asleep != 0 || s.AsleepBytes != 0 {
		t.Errorf("after the job: %d resident, %d asleep with %d bytes", s.Resident, s.Asleep, s.AsleepBytes)
	}
	return said
}

// TestActorsBlocked holds that actors which all wait in a call, and so cannot
// sleep, are bounded too.
func TestActorsBlocked(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it compiles a Go program")
	}
	const limit, more = 10, 64
	if said := runSleepers(t, limit, nil, "blocked", "100"); said != fmt.Sprintf("%d refused, %d waited\n", 100-limit-more, limit+more) {
		t.Errorf("it said %q", said)
	}
}

// TestActorsSleep holds that actors beyond the limit give their sandboxes up,
// that what is kept of them is small, and that they wake as they were.
func TestActorsSleep(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it compiles a Go program")
	}
	sleepers(t, 200, 10, func(w *Worker) {
		s := w.Stats()
		if s.Resident > 12 || s.Asleep < 188 {
			t.Errorf("%d resident, %d asleep, want at most 12 and the rest", s.Resident, s.Asleep)
		}
		each := s.AsleepBytes / max(s.Asleep, 1)
		t.Logf("%d asleep with %d bytes each", s.Asleep, each)
		if each > 4096 {
			t.Errorf("an actor that sleeps takes %d bytes, want at most 4,096", each)
		}
	})
}

// BenchmarkAsleep measures what an actor that sleeps takes of the host's heap.
func BenchmarkAsleep(b *testing.B) {
	const n = 10_000
	for b.Loop() {
		var before runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		sleepers(b, n, 100, func(w *Worker) {
			var after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&after)
			s := w.Stats()
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "heap-B/actor")
			b.ReportMetric(float64(s.AsleepBytes)/float64(max(1, s.Asleep)), "state-B/actor")
			if name := os.Getenv("WRAY_HEAP_PROFILE"); name != "" {
				f, err := os.Create(name)
				if err != nil {
					b.Fatal(err)
				}
				defer f.Close()
				if err := pprof.Lookup("heap").WriteTo(f, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
