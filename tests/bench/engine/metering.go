package engine

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/tests/bench/kernels"
	"github.com/wray-project/wray/wasm/rewrite"
)

const (
	caseMeterMean  = "metering, geometric mean of eight kernels"
	caseMeterWorst = "metering, worst of eight kernels"
)

func caseMeter(kernel string) string { return "metering, " + kernel }

// metering measures real Go code with and without the meter, in turns, and
// gives the ratios of processor time.
func metering(ctx context.Context, c *Config) error {
	names := []string{caseMeterMean, caseMeterWorst}
	for _, k := range kernels.All() {
		if !k.Extra {
			names = append(names, caseMeter(k.Name))
		}
	}
	if !c.wants(names...) {
		return nil
	}
	wasm, err := build(ctx, kernels.Package)
	if err != nil {
		return err
	}
	e, err := newEngine(ctx)
	if err != nil {
		return err
	}
	defer e.Close(ctx)
	metered, err := load(ctx, e, wasm)
	if err != nil {
		return err
	}
	a, err := unmetered(wasm)
	if err != nil {
		return err
	}
	plain, err := prepare(ctx, e, a)
	if err != nil {
		return err
	}
	all := c.wants(caseMeterMean, caseMeterWorst)
	means := make([]float64, c.Rounds) // of logarithms
	var worst Line
	n := 0
	for _, k := range kernels.All() {
		if k.Extra || !all && !c.wants(caseMeter(k.Name)) {
			continue
		}
		n++
		ratios := make([]float64, c.Rounds)
		for i := range ratios {
			// The second of a pair finds warmer caches: they change places.
			first, second := plain, metered
			if i%2 == 1 {
				first, second = second, first
			}
			o1, d1, err := runKernel(first, k)
			if err != nil {
				return err
			}
			o2, d2, err := runKernel(second, k)
			if err != nil {
				return err
			}
			if o1 != o2 {
				return fmt.Errorf("%s printed %q and %q", caseMeter(k.Name), o1, o2)
			}
			if i%2 == 1 {
				d1, d2 = d2, d1
			}
			ratios[i] = float64(d2) / float64(d1)
			means[i] += math.Log(ratios[i])
		}
		line := summary(caseMeter(k.Name), "x", ratios)
		if line.Median > worst.Median {
			worst = line
		}
		if err := c.emit(line.Case, line.Unit, ratios); err != nil {
			return err
		}
	}
	if !all {
		return nil
	}
	for i := range means {
		means[i] = math.Exp(means[i] / float64(n))
	}
	if err := c.emit(caseMeterMean, "x", means); err != nil {
		return err
	}
	if !c.wants(caseMeterWorst) {
		return nil
	}
	worst.Case = caseMeterWorst
	return c.Emit(worst)
}

// unmetered prepares a module as the engine does, without the meter.
func unmetered(wasm []byte) (*sandbox.Artifact, error) {
	r, err := rewrite.Rewrite(wasm, rewrite.Options{Snapshot: true, TailCalls: true})
	if err != nil {
		return nil, err
	}
	a, err := sandbox.Rewrite(wasm, sandbox.CompileOptions{})
	if err != nil {
		return nil, err
	}
	a.Wasm, a.Data, a.Meta.Metered = r.Wasm, r.Segments, false
	a.Meta.Globals = nil
	for _, g := range r.Globals {
		a.Meta.Globals = append(a.Meta.Globals, g.Name)
	}
	return a, nil
}

// runKernel runs a kernel in a new sandbox and returns what it printed and the
// processor time it took.
func runKernel(m *sandbox.Module, k kernels.Kernel) (string, time.Duration, error) {
	sb, err := m.New(sandbox.Limits{})
	if err != nil {
		return "", 0, err
	}
	defer sb.Close()
	var out strings.Builder
	if err := sb.Configure(&wasi.Config{Args: []string{"kernels", k.Name, strconv.Itoa(k.Times)}, Stdout: out.Write, Stderr: discard}); err != nil {
		return "", 0, err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	begin := cpuTime()
	code, err := sb.Start()
	d := cpuTime() - begin
	if err == nil && code != 0 {
		err = fmt.Errorf("exit status %d", code)
	}
	if err != nil {
		return "", 0, fmt.Errorf("%s: %w", caseMeter(k.Name), err)
	}
	return out.String(), d, nil
}
