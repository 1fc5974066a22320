package engine

import (
	"context"
	"time"
)

// Names of the driver's cases that these stand beside.
const (
	casePut      = "single client put gigabytes"
	casePutFirst = "single client put gigabytes, first touch"
)

const (
	caseCopy       = "memcpy of 1 GiB into touched memory"
	caseWrite      = "write(2) of 1 GiB into a new memfd"
	caseCopyRatio  = "put gigabytes over memcpy"
	caseWriteRatio = "put gigabytes, first touch, over write(2)"
)

const gib = 1 << 30

// copies measures what the machine's memory can do, beside what a guest's puts
// reach: a put copies into memory that is recycled, or new at first.
func copies(_ context.Context, c *Config) error {
	if !c.wants(caseCopy, caseWrite, caseCopyRatio, caseWriteRatio, casePut, casePutFirst) {
		return nil
	}
	src, free, err := newMemory(gib)
	if err != nil {
		return err
	}
	defer free()
	for i := 0; i < len(src); i += 4096 {
		src[i] = byte(i >> 12)
	}
	dst, freeDst, err := newMemory(gib)
	if err != nil {
		return err
	}
	defer freeDst()
	copy(dst, src)
	var copied, written []float64
	for range c.Rounds {
		begin := time.Now()
		copy(dst, src)
		copied = append(copied, 1/time.Since(begin).Seconds())
		d, err := writeNew(src)
		if err != nil {
			return err
		}
		written = append(written, 1/d.Seconds())
	}
	for _, x := range []struct {
		name, ratio, put string
		rates            []float64
	}{{caseCopy, caseCopyRatio, casePut, copied}, {caseWrite, caseWriteRatio, casePutFirst, written}} {
		line := summary(x.name, "GiB/s", x.rates)
		if err := c.Emit(line); err != nil {
			return err
		}
		if put := c.Past(x.put); put != nil {
			if err := c.Emit(Line{x.ratio, "x", put.Median / line.Median, put.Min / line.Max, put.Max / line.Min}); err != nil {
				return err
			}
		}
	}
	return nil
}
