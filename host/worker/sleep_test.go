package worker

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/testenv"
	"github.com/wray-project/wray/objectstore/storetest"
)

// goModule builds a program, and returns the module's file.
func goModule(t testing.TB, name string) string {
	t.Helper()
	testenv.Inputs(t)
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

// runSleepers runs the guest, which ends well, and returns what else it said.
func runSleepers(t testing.TB, residents int, look func(w *Worker), args ...string) (said string) {
	t.Helper()
	said, err := runSleepersWith(t, Config{Residents: residents}, look, args...)
	if err != nil {
		t.Errorf("%v\n%s", err, said)
	}
	return said
}

// runSleepersWith runs the guest in a worker of that configuration.
func runSleepersWith(t testing.TB, cfg Config, look func(w *Worker), args ...string) (said string, err error) {
	t.Helper()
	guest := compileGuest(t, "sleepers")
	ctx := context.Background()
	cfg.Slots, cfg.CacheDir, cfg.Capacity = 2, guest.cache, wray.Resources{CPU: wray.CPUs(2), Memory: 2 << 30}
	w, err := New(ctx, cfg)
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
	if s := w.Stats(); s.Resident != 0 || s.Asleep != 0 || s.AsleepBytes != 0 || s.AsleepOnDisk != 0 {
		t.Errorf("after the job: %d resident, %d asleep with %d bytes, %d on disk", s.Resident, s.Asleep, s.AsleepBytes, s.AsleepOnDisk)
	}
	if cerr := w.Close(ctx); cerr != nil {
		t.Error(cerr)
	}
	if cfg.Disk != nil && cfg.Disk.Used() != 0 {
		t.Errorf("%d bytes are left on the disk", cfg.Disk.Used())
	}
	if err == nil && (code != 0 || !asked) {
		err = fmt.Errorf("exit %d", code)
	}
	return said, err
}

// TestActorsBlocked holds that actors which all wait in a call, and so cannot
// sleep, are bounded too.
func TestActorsBlocked(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it compiles a Go program")
	}
	const limit, more, refused = 10, 64, 100 - 10 - 64
	if said := runSleepers(t, limit, nil, "blocked", "100", strconv.Itoa(refused)); said != fmt.Sprintf("%d refused, %d waited\n", refused, limit+more) {
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

// TestActorsSleepOnDisk holds that what states take of memory is bounded where
// there is a disk, and that actors wake from there as they were.
func TestActorsSleepOnDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it compiles a Go program")
	}
	const budget = 32 << 10
	said, err := runSleepersWith(t, Config{Residents: 10, States: budget, Disk: storetest.NewMemDisk(64 << 20)}, func(w *Worker) {
		s := w.Stats()
		if s.AsleepBytes > budget*3/2+4096 || s.AsleepOnDisk < 100<<10 {
			t.Errorf("states take %d bytes of memory and %d of the disk, want at most %d and the rest", s.AsleepBytes, s.AsleepOnDisk, budget*3/2+4096)
		}
		if m := w.Memory(clientwire.MemoryBody{}); m.KeptOnDisk < 100<<10 || m.Kept > budget*3/2+4096 {
			t.Errorf("a listing says that states take %d bytes of memory and %d of the disk", m.Kept, m.KeptOnDisk)
		}
	}, "200")
	if err != nil {
		t.Errorf("%v\n%s", err, said)
	}
}

// TestActorsSleepDiskFull holds that where the disk takes no more the error says
// so, and what to do.
func TestActorsSleepDiskFull(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it compiles a Go program")
	}
	said, err := runSleepersWith(t, Config{Residents: 10, States: 16 << 10, Disk: storetest.NewMemDisk(20 << 10)}, func(*Worker) {}, "200")
	if err == nil || !strings.Contains(said, "no room on disk") || !strings.Contains(said, "--spill-dir") {
		t.Errorf("%v\n%s", err, said)
	}
}

// TestActorsSleepDamaged has the disk give back other bytes than it was given:
// the actors die with an error that says so.
func TestActorsSleepDamaged(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it compiles a Go program")
	}
	disk := storetest.NewMemDisk(64 << 20)
	said, err := runSleepersWith(t, Config{Residents: 10, States: 16 << 10, Disk: disk}, func(*Worker) {
		disk.Corrupt(func(p []byte, _ int64) { p[len(p)/2] ^= 4 })
	}, "200")
	if err == nil || !strings.Contains(said, "the actor was lost while it slept") || !strings.Contains(said, "checksum") {
		t.Errorf("%v\n%s", err, said)
	}
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

// BenchmarkActorsStarted starts and calls 20,000 actors, a thousand at a time,
// of which a thousand have a sandbox.
func BenchmarkActorsStarted(b *testing.B) {
	guest := compileGuest(b, "../../../tests/bench/scale")
	ctx := context.Background()
	for b.Loop() {
		w, err := New(ctx, Config{Slots: 2, Residents: 1000, CacheDir: guest.cache, Capacity: wray.Resources{CPU: wray.CPUs(2), Memory: 2 << 30}})
		if err != nil {
			b.Fatal(err)
		}
		code, err := w.Run(ctx, JobSpec{Name: "scale", Args: []string{"1", "0.02", "1,000,000 actors"}, Modules: []ModuleSpec{guest.module},
			Output: func(_ string, _ Stream, p []byte) { b.Logf("%s", p) }})
		if err != nil || code != 0 {
			b.Errorf("exit %d, %v", code, err)
		}
		if err := w.Close(ctx); err != nil {
			b.Error(err)
		}
	}
}
