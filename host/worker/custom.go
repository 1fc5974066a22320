package worker

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/wasm/abi"
)

// maxCustomText bounds the custom resources of a task as the ABI writes them:
// names, amounts of up to 15 bytes ("1000000000.0000"), and their zero bytes.
const maxCustomText = wray.MaxCustom * (wray.MaxCustomName + 1 + 15 + 1)

var errTooMany = errors.New("too many resources")

// readCustom reads the custom resources that a task asks for.
func (g *guest) readCustom(v view, p, n uint32) ([]wray.Custom, abi.Errno) {
	if n == 0 {
		return nil, abi.Success
	}
	if n > maxCustomText {
		return nil, g.tooMany("bytes of custom resources", n, maxCustomText)
	}
	b, ok := v.bytes(p, n)
	if !ok {
		return nil, abi.EFAULT
	}
	g.looked(wray.MaxCustom)
	list, err := parseCustom(string(b))
	switch {
	case errors.Is(err, errTooMany):
		return nil, g.tooMany("custom resources", uint32(strings.Count(string(b), "\x00")/2), wray.MaxCustom)
	case err != nil:
		return nil, abi.EINVAL
	}
	return list, abi.Success
}

// parseCustom reads a sequence of a name, a zero byte, an amount in decimal, a
// zero byte. It comes from a guest.
func parseCustom(s string) ([]wray.Custom, error) {
	var list []wray.Custom
	for s != "" {
		if len(list) == wray.MaxCustom {
			return nil, errTooMany
		}
		name, rest, ok := strings.Cut(s, "\x00")
		text, rest, ok2 := strings.Cut(rest, "\x00")
		if !ok || !ok2 {
			return nil, errors.New("a zero byte is missing")
		}
		s = rest
		if err := wray.CheckCustom(name); err != nil {
			return nil, err
		}
		amount, err := wray.ParseAmount(text)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(list, func(c wray.Custom) bool { return c.Name == name }) {
			return nil, fmt.Errorf("resource %q is there twice", name)
		}
		list = append(list, wray.Custom{Name: name, Amount: amount})
	}
	return list, nil
}

// CustomBody is an amount of a custom resource.
type CustomBody struct {
	Name   string `cbor:"1,keyasint"`
	Amount int64  `cbor:"2,keyasint"` // wray.Amount
}

// CustomBodies returns list as StartBody has it.
func CustomBodies(list []wray.Custom) []CustomBody {
	bodies := make([]CustomBody, 0, len(list))
	for _, c := range list {
		bodies = append(bodies, CustomBody{c.Name, int64(c.Amount)})
	}
	return bodies
}

func customOf(bodies []CustomBody) []wray.Custom {
	list := make([]wray.Custom, 0, len(bodies))
	for _, b := range bodies {
		list = append(list, wray.Custom{Name: b.Name, Amount: wray.Amount(b.Amount)})
	}
	return list
}
