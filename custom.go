package wray

import (
	"fmt"
	"strings"
)

// Amount is how much of a custom resource, in ten-thousandths of one: the
// resolution of CPU.
type Amount int64

// OneUnit is the Amount 1.
const OneUnit Amount = 10_000

// MaxAmount is the largest Amount of a resource, a thousand million. Sums of
// amounts never pass what a node has, so they do not overflow.
const MaxAmount = 1_000_000_000 * OneUnit

// String returns a as a decimal, such as "0.5"; ParseAmount reads it.
func (a Amount) String() string { return CPU(a).String() }

// ParseAmount reads a decimal such as "2" or "0.25". It takes no sign and no
// exponent, and refuses what is finer than an Amount instead of rounding it.
func ParseAmount(s string) (Amount, error) {
	bad := func(why string) (Amount, error) {
		return 0, fmt.Errorf("amount %.40q: %s", s, why)
	}
	whole, part, point := strings.Cut(s, ".")
	if whole == "" || point && part == "" {
		return bad("a decimal such as 2 or 0.5 is wanted")
	}
	if len(part) > 4 {
		return bad("amounts are in steps of 0.0001")
	}
	var a Amount
	for i, digits := range []string{whole, (part + "0000")[:4]} {
		for _, c := range []byte(digits) {
			if c < '0' || c > '9' {
				return bad("a decimal such as 2 or 0.5 is wanted")
			}
			a = 10*a + Amount(c-'0')
			if i == 0 && a > MaxAmount/OneUnit {
				return bad("the most is " + MaxAmount.String())
			}
		}
	}
	if a > MaxAmount {
		return bad("the most is " + MaxAmount.String())
	}
	return a, nil
}

// Custom is an amount of a resource that a node was given by name and that
// means something to its users alone: a licence, a device, a share of a link.
type Custom struct {
	Name   string
	Amount Amount
}

// Bounds of a list of custom resources.
const (
	MaxCustom     = 16  // resources in a list
	MaxCustomName = 128 // bytes of a name
)

// CheckCustom says what is wrong with the name of a resource, if anything.
func CheckCustom(name string) error {
	if name == "" || len(name) > MaxCustomName {
		return fmt.Errorf("a resource's name has %d bytes: from 1 to %d are wanted", len(name), MaxCustomName)
	}
	for i := range len(name) {
		if name[i] < ' ' || name[i] > '~' {
			return fmt.Errorf("the resource's name %q: printable ASCII is wanted", name)
		}
	}
	return nil
}

// SetCustom returns list with the resource c, which takes the place of one of
// its name. The list given is not changed. The name and the amount are checked,
// the length of the list is not.
func SetCustom(list []Custom, c Custom) ([]Custom, error) {
	if err := CheckCustom(c.Name); err != nil {
		return nil, err
	}
	if c.Amount < 0 || c.Amount > MaxAmount {
		return nil, fmt.Errorf("%v of resource %q: from 0 to %v are wanted", c.Amount, c.Name, MaxAmount)
	}
	out := make([]Custom, 0, len(list)+1)
	for _, have := range list {
		if have.Name != c.Name {
			out = append(out, have)
		}
	}
	return append(out, c), nil
}
