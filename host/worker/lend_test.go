package worker

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/scheduler"
)

// clusterJob is a job of testdata/cluster on a worker of a twin.
type clusterJob struct {
	t     testing.TB
	in    *os.File
	lines chan string
	ended chan error
}

func (n *twin) job(e *twinEnd, dirs []DirSpec, args ...string) *clusterJob {
	r, in, err := os.Pipe()
	if err != nil {
		n.t.Fatal(err)
	}
	stdin, err := newInput(r)
	if err != nil {
		n.t.Fatal(err)
	}
	out, said := io.Pipe()
	j := &clusterJob{t: n.t, in: in, lines: make(chan string, 100), ended: make(chan error, 1)}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			j.lines <- s.Text()
		}
		close(j.lines)
	}()
	go func() {
		code, err := e.w.Run(context.Background(), JobSpec{Name: "cluster", Args: args, Stdin: stdin, Dirs: dirs, Modules: []ModuleSpec{n.module},
			Output: func(task string, s Stream, b []byte) {
				for line := range strings.Lines(string(b)) {
					_, _ = fmt.Fprintf(said, "%s|%s", task, strings.TrimSuffix(line, "\n")+"\n")
				}
			}})
		if err == nil && code != 0 {
			err = fmt.Errorf("exit %d", code)
		}
		said.Close()
		stdin.Close()
		r.Close()
		j.ended <- err
	}()
	return j
}

// await returns the next line of the driver.
func (j *clusterJob) next() string {
	line, ok := <-j.lines
	if !ok {
		j.t.Fatalf("the job has ended: %v", <-j.ended)
	}
	return strings.TrimPrefix(line, "|")
}

func (j *clusterJob) goOn() { _, _ = io.WriteString(j.in, "\n") }

// rest returns what the job says until it ends.
func (j *clusterJob) rest() []string {
	j.in.Close()
	var list []string
	for line := range j.lines {
		list = append(list, strings.TrimPrefix(line, "|"))
	}
	if err := <-j.ended; err != nil {
		j.t.Fatal(err, list)
	}
	return list
}

func (j *clusterJob) wants(got []string, want ...string) {
	j.t.Helper()
	if !slices.Equal(got, want) {
		j.t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestLending has tasks run on another node that fail, print, hang, wait, make
// large values and meet what only the node of their job has.
func TestLending(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it compiles a Go program")
	}
	guest := compileGuest(t, "cluster")
	there := func(names ...string) []wray.Custom {
		list := []wray.Custom{{Name: "there", Amount: 4 * wray.OneUnit}}
		for _, n := range names {
			list = append(list, wray.Custom{Name: n, Amount: wray.OneUnit})
		}
		return list
	}
	cluster := func(t *testing.T) (net *twin, a, b, c *twinEnd, cfg Config) {
		net = newTwin(t, guest.module)
		cfg = Config{StoreBytes: 64 << 20, Slots: 2, CacheDir: guest.cache, Capacity: wray.Resources{CPU: wray.OneCPU, Memory: 2 << 30}}
		a = net.join("a", cfg)
		cfg.Capacity.CPU, cfg.Custom = 4*wray.OneCPU, there("b")
		b = net.join("b", cfg)
		cfg.Custom = there("c")
		c = net.join("c", cfg)
		awaitPeers(t, a, 2)
		return net, a, b, c, cfg
	}
	done := func(t *testing.T, net *twin) {
		net.mu.Lock()
		var alive []*twinEnd
		for _, e := range net.ends {
			if !e.dead {
				alive = append(alive, e)
			}
		}
		net.mu.Unlock()
		for _, e := range alive {
			awaitNothing(t, e)
		}
		net.close()
	}
	t.Run("late", func(t *testing.T) { // a node that is asked for by name begins while the task waits for it
		net, a, _, _, cfg := cluster(t)
		j := net.job(a, nil, "late")
		if line := j.next(); line != "asked" {
			t.Fatalf("it said %q", line)
		}
		cfg.Labels = []wray.Label{{Key: "zone", Value: "east"}}
		d := net.join("d", cfg)
		j.wants(j.rest(), "late: 49 <nil>")
		if st := d.w.Stats().Tasks; st.Finished != 1 {
			t.Errorf("of one task %d ran where it was asked for", st.Finished)
		}
		done(t, net)
	})
	t.Run("errors", func(t *testing.T) {
		net, a, b, _, _ := cluster(t)
		net.kill(b) // so that it is known where
		j := net.job(a, nil, "errors")
		var got []string
		for line := j.next(); line != "canceling"; line = j.next() {
			got = append(got, strings.TrimSuffix(line, " of 50ms")) // as there, where its code came late
		}
		slices.Sort(got)
		j.goOn()
		got = append(got, j.rest()...)
		j.wants(got,
			"fails: UserError on c, attempt 1, trace false: as it should",
			"flaky: UserError on c, attempt 3, trace false: flaky",
			"panics: Panic on c, attempt 1, trace true: loud",
			"spin: Timeout on c, attempt 1, trace true: ran longer than its timeout",
			"canceled: Canceled on c, attempt 1, trace true: the task was canceled")
		done(t, net)
	})
	t.Run("print", func(t *testing.T) {
		net, a, _, _, _ := cluster(t)
		j := net.job(a, nil, "print")
		got := j.rest()
		if len(got) != 20_001 || got[0] != "speaks|line 0" || got[19_999] != "speaks|line 19999" || got[20_000] != "speaks: 20000 <nil>" {
			t.Errorf("%d lines, the first %q, the last %q", len(got), got[0], got[len(got)-1])
		}
		done(t, net)
	})
	t.Run("full", func(t *testing.T) { // what waits for others is gone before the scheduler has heard of it
		net, a, b, c, _ := cluster(t)
		net.mu.Lock()
		a.full = map[scheduler.PeerID]int{b.w.PeerID(): 1, c.w.PeerID(): 1}
		net.mu.Unlock()
		j := net.job(a, nil, "nested")
		j.wants(j.rest(), "outer: 2470 <nil>")
		net.mu.Lock()
		if n := a.full[b.w.PeerID()] + a.full[c.w.PeerID()]; n == 2 {
			t.Error("nobody was asked what waits")
		}
		net.mu.Unlock()
		done(t, net)
	})
	t.Run("large", func(t *testing.T) {
		net, a, _, _, _ := cluster(t)
		j := net.job(a, nil, "large")
		j.wants(j.rest(), "sum: 393211600 <nil>", "large: 3145733 <nil>", "unpack: packed 100000 7 <nil>", "packed: 100000 <nil>")
		if net.filled.Load() == 0 {
			t.Error("the large payload went through messages")
		}
		done(t, net)
	})
	t.Run("nested", func(t *testing.T) {
		net, a, _, _, _ := cluster(t)
		j := net.job(a, nil, "nested")
		j.wants(j.rest(), "outer: 2470 <nil>")
		done(t, net)
	})
	t.Run("home", func(t *testing.T) {
		net, a, b, c, _ := cluster(t)
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte("data"), 0o600); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		j := net.job(a, []DirSpec{{Guest: "/data", FS: wasi.RootFS(root)}}, "home")
		j.wants(j.rest(), "reads: [data data data data data data] <nil>", "asks: [42 42 42 42 42 42] <nil>")
		if n := b.w.Stats().Tasks.Submitted + c.w.Stats().Tasks.Submitted; n == 0 {
			t.Error("nothing was lent")
		}
		done(t, net)
	})
	t.Run("lost", func(t *testing.T) {
		net, a, b, c, cfg := cluster(t)
		j := net.job(a, nil, "lost")
		if line := j.next(); line != "made" {
			t.Fatal(line)
		}
		cfg.Custom = there()
		net.join("d", cfg)
		awaitPeers(t, a, 3)
		net.kill(b)
		net.kill(c)
		j.goOn()
		got := j.rest()
		for i, line := range got {
			got[i] = strings.NewReplacer("on b", "on it", "on c", "on it", "node b", "the node", "node c", "the node").Replace(line)
		}
		j.wants(got, "kept: 1048576 <nil>", "spin: WorkerDied on it, attempt 1, trace false: the node, which ran it, is gone", "sum: 131064401 <nil>")
		done(t, net)
	})
	awaitBusy := func(t *testing.T, e *twinEnd) {
		ctx, cancel := context.WithTimeout(context.Background(), hungSmall)
		defer cancel()
		for e.w.Stats().Tasks.Running == 0 {
			if ctx.Err() != nil {
				t.Fatalf("nothing runs at %s: %+v", e.node, e.w.Stats().Tasks)
			}
			time.Sleep(time.Millisecond)
		}
	}
	t.Run("leaves", func(t *testing.T) {
		net, a, b, c, _ := cluster(t)
		net.kill(c)
		j := net.job(a, nil, "leaves")
		if line := j.next(); line != "made" {
			t.Fatal(line)
		}
		awaitBusy(t, b)
		ctx, cancel := context.WithTimeout(context.Background(), hungSmall)
		defer cancel()
		left := b.w.Leave(ctx, ctx)
		// The task that runs ends, the result that stayed there is fetched, and so
		// is what a task has put; and nothing twice.
		if want := (Left{Ended: 1, Fetched: 2}); left != want {
			t.Errorf("b left: %+v, want %+v", left, want)
		}
		net.kill(b)
		j.goOn()
		j.wants(j.rest(), "kept: 1048576 <nil>", "packed: 100000 <nil>", "toils: 500 <nil>")
		if s := a.w.Stats().Tasks; s.Retried != 0 {
			t.Errorf("%d tasks were retried", s.Retried)
		}
		done(t, net)
	})
	t.Run("moves", func(t *testing.T) {
		net, a, b, c, cfg := cluster(t)
		net.kill(c)
		j := net.job(a, nil, "moves")
		awaitBusy(t, b)
		cfg.Custom = there("d")
		d := net.join("d", cfg)
		awaitPeers(t, a, 2)
		ctx, cancel := context.WithTimeout(context.Background(), hungSmall)
		defer cancel()
		over, cut := context.WithCancel(ctx)
		cut()
		if left, want := b.w.Leave(ctx, over), (Left{Moved: 1}); left != want {
			t.Errorf("b left: %+v, want %+v", left, want)
		}
		net.kill(b)
		j.wants(j.rest(), "toils: 2000 <nil>") // which had no retries
		if d.w.Stats().Tasks.Finished != 1 || a.w.Stats().Tasks.Retried != 0 {
			t.Errorf("at d: %+v; at a: %+v", d.w.Stats().Tasks, a.w.Stats().Tasks)
		}
		done(t, net)
	})
	t.Run("retires", func(t *testing.T) {
		net, a, b, c, cfg := cluster(t)
		net.kill(c)
		ctx, cancel := context.WithTimeout(context.Background(), hungSmall)
		defer cancel()
		j := net.job(a, nil, "moves")
		awaitBusy(t, b)
		if b.w.Retire(ctx) {
			t.Fatal("a worker retires that runs what a peer has lent it")
		}
		if a.w.Retire(ctx) {
			t.Fatal("a worker retires that runs a job")
		}
		j.wants(j.rest(), "toils: 2000 <nil>")
		// It goes between jobs, as often as it can, and others come.
		ended := make(chan struct{})
		retired := make(chan int)
		go func() {
			n := 0
			defer func() { retired <- n }()
			for {
				select {
				case <-ended:
					return
				default:
				}
				if idle, _ := b.w.Idle(); !idle || !b.w.Retire(ctx) {
					runtime.Gosched()
					continue
				}
				n++
				net.kill(b)
				cfg.Custom = there()
				b = net.join(fmt.Sprint("b", n), cfg)
			}
		}()
		for range 6 {
			j := net.job(a, nil, "many", "10")
			j.rest()
		}
		close(ended)
		n := <-retired
		if s := a.w.Stats().Tasks; s.Retried != 0 || s.Failed != 0 {
			t.Errorf("%d workers retired, and %d tasks were retried, %d failed", n, s.Retried, s.Failed)
		}
		if n == 0 {
			t.Error("none retired")
		}
		t.Logf("%d workers retired", n)
		done(t, net)
	})
	t.Run("cut", func(t *testing.T) {
		net, a, b, c, _ := cluster(t)
		net.kill(c)
		j := net.job(a, nil, "cut")
		if line := j.next(); line != "asked" {
			t.Fatal(line)
		}
		net.cut(a, b, true)
		net.cut(a, b, false)
		j.goOn()
		j.wants(j.rest(), "large: 1048576 <nil>")
		done(t, net)
	})
}

// BenchmarkLending is a task that runs on one of two peers, of many that were
// submitted at once; four run at a time on each.
func BenchmarkLending(b *testing.B) {
	guest := compileGuest(b, "cluster")
	net := newTwin(b, guest.module)
	cfg := Config{StoreBytes: 64 << 20, Slots: 2, CacheDir: guest.cache, Capacity: wray.Resources{CPU: wray.OneCPU, Memory: 2 << 30}}
	a := net.join("a", cfg)
	cfg.Capacity.CPU, cfg.Custom = 4*wray.OneCPU, []wray.Custom{{Name: "there", Amount: 4 * wray.OneUnit}}
	net.join("b", cfg)
	net.join("c", cfg)
	awaitPeers(b, a, 2)
	j := net.job(a, nil, "many", "100") // which has the code loaded
	j.rest()
	b.ResetTimer()
	j = net.job(a, nil, "many", fmt.Sprint(b.N))
	j.rest()
	b.StopTimer()
	net.close()
}

// awaitPeers waits until a worker knows what so many peers have.
func awaitPeers(t testing.TB, e *twinEnd, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hungSmall)
	defer cancel()
	for len(e.w.Peers()) < n {
		select {
		case <-ctx.Done():
			t.Fatalf("peers: %v", e.w.Peers())
		default:
			runtime.Gosched() // the greeting is under way in other goroutines
		}
	}
}
