package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/wray-project/wray/host/node"
	"github.com/wray-project/wray/host/worker"
)

// The driver's case that the rate of a copy stands beside.
const casePut = "single client put gigabytes"

const (
	caseCopy       = "memcpy of 1 GiB into touched memory"
	caseCopyRatio  = "put gigabytes over memcpy"
	casePutFirst   = "single client put gigabytes, first touch"
	caseWrite      = "write(2) of 1 GiB into a new memfd"
	caseWriteRatio = "put gigabytes, first touch, over write(2)"
)

const gib = 1 << 30

// copies measures what the machine's memory can do where it was used before,
// beside what a guest's puts reach, which copy into memory that is recycled.
func copies(_ context.Context, c *Config) error {
	if !c.wants(caseCopy, caseCopyRatio, casePut) {
		return nil
	}
	src, free, err := gigabyte()
	if err != nil {
		return err
	}
	defer free()
	dst, freeDst, err := newMemory(gib)
	if err != nil {
		return err
	}
	defer freeDst()
	copy(dst, src)
	var rates []float64
	for range c.Rounds {
		begin := time.Now()
		copy(dst, src)
		rates = append(rates, 1/time.Since(begin).Seconds())
	}
	line := summary(caseCopy, "GiB/s", rates)
	if err := c.Emit(line); err != nil {
		return err
	}
	if put := c.Past(casePut); put != nil {
		return c.Emit(Line{caseCopyRatio, "x", put.Median / line.Median, put.Min / line.Max, put.Max / line.Min})
	}
	return nil
}

// firstTouch measures puts into memory that nothing has used, each into the
// store of a new node, in turn with writes to new files. On a virtual machine
// memory that was used a moment ago comes several times faster than memory that
// the host must find first. So that both are measured and not the host, each
// has twice of what it needs freed right before it begins.
func firstTouch(ctx context.Context, c *Config) error {
	if !c.wants(casePutFirst, caseWrite, caseWriteRatio) {
		return nil
	}
	var puts, writes, ratios []float64
	for range c.Rounds {
		put, err := putNew(ctx, c)
		if err != nil {
			return fmt.Errorf("%s: %w", casePutFirst, err)
		}
		write, err := writeOnce()
		if err != nil {
			return fmt.Errorf("%s: %w", caseWrite, err)
		}
		puts, writes, ratios = append(puts, put), append(writes, write), append(ratios, put/write)
	}
	for _, l := range []Line{summary(casePutFirst, "GiB/s", puts), summary(caseWrite, "GiB/s", writes),
		summary(caseWriteRatio, "x", ratios)} {
		if err := c.Emit(l); err != nil {
			return err
		}
	}
	return nil
}

// putNew has a driver put a GiB into a store that has held nothing, and returns
// the GiB/s.
func putNew(ctx context.Context, c *Config) (float64, error) {
	n, err := node.New(node.Config{CacheDir: c.Cache, StoreBytes: 2 * gib})
	if err != nil {
		return 0, err
	}
	defer n.Close()
	stdin, begin, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer stdin.Close()
	defer begin.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ready, errs := false, []byte(nil)
	var rate string
	code, err := n.Run(ctx, node.Job{Name: "touch", Modules: []node.Module{{Name: "touch", Wasm: c.Guest}},
		Args: []string{"touch"}, Stdin: stdin, Limits: worker.Limits{Memory: 4 * gib},
		Output: func(_ string, s worker.Stream, p []byte) {
			switch {
			case s == worker.Stderr:
				errs = append(errs, p...)
			case ready:
				rate += string(p)
			default:
				ready = true
				err := freeMemory()
				if err == nil {
					_, err = begin.WriteString("\n")
				}
				if err != nil {
					cancel(err)
				}
			}
		}})
	if err != nil {
		return 0, errors.Join(err, context.Cause(ctx))
	}
	if code != 0 {
		return 0, fmt.Errorf("exit status %d: %s", code, errs)
	}
	return strconv.ParseFloat(strings.TrimSpace(rate), 64)
}

// writeOnce does by a system call what putNew does: it makes a GiB, copies it
// to new memory, and returns the GiB/s of the copy.
func writeOnce() (float64, error) {
	src, free, err := gigabyte()
	if err != nil {
		return 0, err
	}
	defer free()
	if err := freeMemory(); err != nil {
		return 0, err
	}
	took, err := writeNew(src)
	return 1 / took.Seconds(), err
}

// freeMemory makes the next two GiB that anyone takes memory that was used a
// moment ago.
func freeMemory() error {
	for range 2 {
		_, free, err := gigabyte()
		if err != nil {
			return err
		}
		defer free() // both at once
	}
	return nil
}

// gigabyte returns a GiB of which each page was written.
func gigabyte() (b []byte, free func(), err error) {
	b, free, err = newMemory(gib)
	if err != nil {
		return nil, nil, err
	}
	for i := 0; i < len(b); i += 4096 {
		b[i] = byte(i >> 12)
	}
	return b, free, nil
}
