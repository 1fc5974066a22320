package engine

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/wasm/abi"
)

const (
	caseRestore      = "restore of a new sandbox"
	caseRestoreFirst = "restore of a new sandbox, with its first call"
	caseLive         = "memory of a live sandbox"
	caseLiveAll      = "memory of 20,000 live sandboxes"
)

// liveTarget is how many sandboxes live together in the case of that name.
const liveTarget = 20_000

// mapsEach is the mappings of a live sandbox: its memory over the snapshot,
// and the rest of its reservation.
const mapsEach = 2

// noOp is an operation that no guest knows: it answers at once. Before it, the
// guest is told that it was restored, as before any other.
const noOp abi.Op = 1 << 20

// restoring measures what a sandbox costs that is made from a snapshot.
func restoring(ctx context.Context, c *Config) error {
	if !c.wants(caseRestore, caseRestoreFirst, caseLive, caseLiveAll) {
		return nil
	}
	e, err := newEngine(ctx)
	if err != nil {
		return err
	}
	defer e.Close(ctx)
	m, err := load(ctx, e, c.Guest)
	if err != nil {
		return err
	}
	if ok, why := m.Resettable(); !ok {
		return fmt.Errorf("the guest cannot be restored: %s", why)
	}
	if c.wants(caseRestore, caseRestoreFirst) {
		if err := restores(c, m); err != nil {
			return err
		}
	}
	if !c.wants(caseLive, caseLiveAll) {
		return nil
	}
	return live(c, m)
}

func restores(c *Config, m *sandbox.Module) error {
	var alone, first []float64
	for range c.Rounds + 1 {
		var made, called time.Duration
		n := 0
		for begin := time.Now(); n == 0 || time.Since(begin) < c.Round; n++ {
			t := time.Now()
			sb, err := m.New(sandbox.Limits{})
			if err != nil {
				return err
			}
			made += time.Since(t)
			_, err = sb.Call(noOp, 0)
			called += time.Since(t)
			sb.Close()
			if err != nil {
				return err
			}
		}
		alone = append(alone, micros(made)/float64(n))
		first = append(first, micros(called)/float64(n))
	}
	if err := c.emit(caseRestore, "µs", alone[1:]); err != nil {
		return err
	}
	return c.emit(caseRestoreFirst, "µs", first[1:])
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// live makes sandboxes, has each answer a call, and keeps them.
func live(c *Config, m *sandbox.Module) error {
	left, bound, err := mapsLeft()
	if err != nil {
		return err
	}
	n := liveTarget
	if c.Round < time.Second {
		n = max(100, int(float64(n)*c.Round.Seconds()))
		c.Note(fmt.Sprintf("%s is scaled from %d, for rounds are shorter than a second", caseLiveAll, n))
	}
	if most := left / mapsEach; n > most {
		n = most
		c.Note(fmt.Sprintf("%s is scaled from %d: vm.max_map_count is %d (sysctl -w vm.max_map_count=262144 raises it)", caseLiveAll, n, bound))
	}
	all := make([]*sandbox.Sandbox, 0, n)
	defer func() {
		for _, sb := range all {
			sb.Close()
		}
	}()
	settle()
	before, err := processMemory()
	if err != nil {
		c.Note(fmt.Sprintf("%s: %v", caseLive, err))
		return nil
	}
	for range n {
		sb, err := m.New(sandbox.Limits{})
		if err != nil {
			return fmt.Errorf("sandbox %d of %d: %w", len(all)+1, n, err)
		}
		all = append(all, sb)
		if _, err := sb.Call(noOp, 0); err != nil {
			return err
		}
	}
	settle()
	after, err := processMemory()
	if err != nil {
		return err
	}
	each := float64(after-before) / float64(n)
	if err := c.emit(caseLive, "bytes", []float64{each}); err != nil {
		return err
	}
	return c.emit(caseLiveAll, "GiB", []float64{each * liveTarget / gib})
}

// settle gives the host's own garbage back, so that it is not counted.
func settle() {
	runtime.GC()
	debug.FreeOSMemory()
}
