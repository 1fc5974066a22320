package main

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// The values of flags that are numbers. Zero stands for a default and cannot
// be given: who writes 0 would get what they did not ask for.

// count is a flag of a number of things, at least one.
type count int

// Set implements pflag.Value.
func (c *count) Set(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > math.MaxInt32 {
		return fmt.Errorf("%q is not a number from 1 to %d", text, math.MaxInt32)
	}
	*c = count(n)
	return nil
}

// String implements pflag.Value.
func (c *count) String() string {
	if *c == 0 {
		return ""
	}
	return strconv.Itoa(int(*c))
}

// Type implements pflag.Value.
func (c *count) Type() string { return "N" }

// limited is a count with an upper bound.
type limited struct {
	*count
	most int
}

// Set implements pflag.Value.
func (l limited) Set(text string) error {
	var c count
	if err := c.Set(text); err != nil || int(c) > l.most {
		return fmt.Errorf("%q is not a number from 1 to %d", text, l.most)
	}
	*l.count = c
	return nil
}

// factor is a flag of a number that may have a fraction, above 0.
type factor float64

// maxFactor bounds factors where what is multiplied still fits.
const maxFactor = 1e4

// Set implements pflag.Value.
func (x *factor) Set(text string) error {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || !(v > 0 && v <= maxFactor) {
		return fmt.Errorf("%q is not a number above 0, and %v at most", text, maxFactor)
	}
	*x = factor(v)
	return nil
}

// String implements pflag.Value.
func (x *factor) String() string { return strconv.FormatFloat(float64(*x), 'g', -1, 64) }

// Type implements pflag.Value.
func (x *factor) Type() string { return "X" }

// share is a flag of a tenant's weight.
type share struct{ *factor }

// Set implements pflag.Value.
func (x share) Set(text string) error {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || !(v >= 0.01 && v <= 100) {
		return fmt.Errorf("%q is not a number from 0.01 to 100", text)
	}
	*x.factor = factor(v)
	return nil
}

// cores is a flag of processor time, in cores.
type cores float64

// maxCores bounds cores far above every machine, and far below where their
// ten-thousandths would not fit.
const maxCores = 1e6

// Set implements pflag.Value.
func (c *cores) Set(text string) error {
	x, err := strconv.ParseFloat(text, 64)
	if err != nil || !(x >= 0.0001 && x <= maxCores) {
		return fmt.Errorf("%q is not a number of cores: write 2 or 0.5, at least 0.0001", text)
	}
	*c = cores(x)
	return nil
}

// String implements pflag.Value.
func (c *cores) String() string {
	if *c == 0 {
		return ""
	}
	return strconv.FormatFloat(float64(*c), 'g', -1, 64)
}

// Type implements pflag.Value.
func (c *cores) Type() string { return "CORES" }

// span is a flag of time, more than none.
type span time.Duration

// Set implements pflag.Value.
func (s *span) Set(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return fmt.Errorf("%q is not a time: write 90s or 5m, more than 0", text)
	}
	*s = span(d)
	return nil
}

// String implements pflag.Value.
func (s *span) String() string {
	if *s == 0 {
		return ""
	}
	return time.Duration(*s).String()
}

// Type implements pflag.Value.
func (s *span) Type() string { return "TIME" }

// bounded is a size with bounds.
type bounded struct {
	*size
	least, most int64  // bytes
	why         string // who sets them, such as "a sandbox"
}

// Set implements pflag.Value.
func (b bounded) Set(text string) error {
	var s size
	if err := s.Set(text); err != nil {
		return err
	}
	if n := int64(s); n < b.least || n > b.most {
		least, most := size(b.least), size(b.most)
		return fmt.Errorf("%s: %s has from %s to %s", text, b.why, &least, &most)
	}
	*b.size = s
	return nil
}
