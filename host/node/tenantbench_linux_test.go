package node

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/worker"
)

// guestOf builds a program of the Go distribution or of this module for a guest.
func guestOf(b *testing.B, mode, pkg string) []byte {
	b.Helper()
	out := filepath.Join(b.TempDir(), "guest.wasm")
	cmd := exec.Command("go", "build", "-trimpath", "-buildmode="+mode, "-o", out, pkg)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if said, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("build %s: %v\n%s", pkg, err, said)
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		b.Fatal(err)
	}
	return wasm
}

// givenUp has a tenant's worker given up, as when it was idle for long.
func givenUp(b *testing.B, t *tenant) {
	b.Helper()
	for w := t.current(); t.current() == w && w != nil; { // a job that has ended leaves for a moment
		if done := t.beginRetire(w); done != nil {
			t.retire(w, done)
		}
	}
}

// BenchmarkBroughtBack is a job of a tenant whose worker was given up, from being
// asked for until its program has begun and ended, with its code in the cache on
// disk; and beside it the same with the worker there.
func BenchmarkBroughtBack(b *testing.B) {
	for _, c := range []struct {
		name string
		wasm func() []byte
		args []string
	}{
		{"tasks", func() []byte { return program(b, "a").Modules[0].Wasm }, []string{"submit", "1"}},
		{"vet", func() []byte { return guestOf(b, "exe", "cmd/vet") }, []string{"-V=full"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			wasm := c.wasm()
			n := newIdle(b, -1, map[string]control.Tenant{"a": {}})
			x, err := n.tenant("a")
			if err != nil {
				b.Fatal(err)
			}
			run := func() time.Duration {
				j := job(wasm)
				j.Tenant, j.Args = "a", c.args
				begin := time.Now()
				if code, err := n.Run(b.Context(), j); code != 0 || err != nil {
					b.Fatal(code, err)
				}
				return time.Since(begin)
			}
			run() // which compiles it
			var back, there []time.Duration
			for b.Loop() {
				b.StopTimer()
				there = append(there, run())
				givenUp(b, x)
				b.StartTimer()
				back = append(back, run())
			}
			b.ReportMetric(float64(len(wasm))/1e6, "module-MB")
			b.ReportMetric(ms(back), "back-ms")
			b.ReportMetric(ms(there), "there-ms")
		})
	}
}

// ms is the median in milliseconds.
func ms(d []time.Duration) float64 {
	slices.Sort(d)
	return float64(d[len(d)/2]) / 1e6
}

// BenchmarkTenants is the memory of workers that are idle, of 200 tenants that have
// each run a small program, and of one that has run one of 4 MB.
func BenchmarkTenants(b *testing.B) {
	const many = 200
	records := map[string]control.Tenant{"large": {}}
	for i := range many {
		records[fmt.Sprint("t", i)] = control.Tenant{}
	}
	wasm := program(b, "large").Modules[0].Wasm
	for b.Loop() {
		n := newIdle(b, time.Hour, records)
		total, most := int64(0), int64(0)
		for _, name := range slices.Sorted(maps.Keys(records)) {
			j := job(nothing)
			if j.Tenant = name; name == "large" {
				j = job(wasm)
				j.Tenant, j.Args = name, []string{"tasks", "8"}
			}
			if code, err := n.Run(b.Context(), j); code != 0 || err != nil {
				b.Fatal(code, err)
			}
		}
		for _, t := range n.allTenants() {
			w := t.current()
			if w == nil {
				continue
			}
			for idle := false; !idle; { // as the node asks it within the time
				var err error
				if idle, _, err = w.idle(worker.RetireBody{}, lookLimit); err != nil {
					b.Fatal(err)
				}
			}
			size, err := w.memory()
			if err != nil {
				b.Fatal(err)
			}
			if t.name == "large" {
				b.ReportMetric(float64(size)/1e6, "MB-of-the-large-one")
				continue
			}
			total, most = total+size, max(most, size)
		}
		b.ReportMetric(float64(total)/1e9, "GB-of-200")
		b.ReportMetric(float64(most)/1e6, "MB-of-the-largest")
	}
}

// BenchmarkJail runs cases of wray bench core in a worker as it is and in one that
// is under no system call filter and no landlock, by turns, and reports what the
// first does of the second, by medians. WRAY_JAIL_CASES names others.
func BenchmarkJail(b *testing.B) {
	wasm := guestOf(b, "c-shared", "./tests/bench/core")
	cases := strings.Split(cmp.Or(os.Getenv("WRAY_JAIL_CASES"), "single client tasks sync,single client tasks async,1:1 actor calls sync,single client put calls"), ",")
	h := home(b.TempDir())
	rates := [2]map[string][]float64{{}, {}}
	once := func(i int) {
		h.lie(b, []string{"", "unjailed"}[i])
		n := h.node(b)
		for _, c := range cases {
			j := job(wasm)
			j.Args, j.Limits.Memory = []string{"1", "1", c}, 4<<30
			var out bytes.Buffer
			j.Output = func(_ string, s worker.Stream, p []byte) {
				if s == worker.Stdout {
					out.Write(p)
				}
			}
			if code, err := n.Run(b.Context(), j); code != 0 || err != nil {
				b.Fatal(code, err)
			}
			for d := json.NewDecoder(&out); d.More(); {
				var l struct {
					Case   string  `json:"case"`
					Median float64 `json:"median"`
				}
				if err := d.Decode(&l); err != nil {
					b.Fatal(err)
				}
				rates[i][l.Case] = append(rates[i][l.Case], l.Median)
			}
		}
		if unjailed := n.current().jail == "none"; unjailed != (i == 1) {
			b.Fatalf("the worker's jail is %q", n.current().jail)
		}
		if err := n.Close(); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		for i := range 2 { // in turns, so that what else the machine does hits both
			once(i)
		}
		for i := range 2 {
			once(1 - i)
		}
	}
	for c, jailed := range rates[0] {
		free := rates[1][c]
		slices.Sort(jailed)
		slices.Sort(free)
		b.ReportMetric(100*jailed[len(jailed)/2]/free[len(free)/2], "%-of-"+strings.ReplaceAll(c, " ", "-"))
		b.Logf("%s: jailed %.0f, unjailed %.0f, of %d rounds each on %d processors", c, jailed[len(jailed)/2], free[len(free)/2], len(free), runtime.NumCPU())
	}
}
