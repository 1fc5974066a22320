package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/scheduler"
)

// parseResources reads the values of --resource, NAME=AMOUNT each. A name may
// have "=" in it.
func parseResources(flags []string) (list []wray.Custom, err error) {
	for _, f := range flags {
		bad := func(err error) error {
			return &usageError{withHint(fmt.Errorf("%s %s: %w", scheduler.FlagResource, f, err), "write %s NAME=AMOUNT, such as gpu=2 or licence=0.5", scheduler.FlagResource)}
		}
		i := strings.LastIndexByte(f, '=')
		if i < 0 {
			return nil, bad(fmt.Errorf("there is no amount"))
		}
		c := wray.Custom{Name: f[:i]}
		if c.Amount, err = wray.ParseAmount(f[i+1:]); err != nil {
			return nil, bad(err)
		}
		if slices.ContainsFunc(list, func(have wray.Custom) bool { return have.Name == c.Name }) {
			return nil, bad(fmt.Errorf("the resource is given twice"))
		}
		if list, err = wray.SetCustom(list, c); err != nil {
			return nil, bad(err)
		}
	}
	return list, nil
}
