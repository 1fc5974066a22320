package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/wray-project/wray"
)

// parseLabels reads the values of --labels, KEY=VALUE,KEY=VALUE each.
func parseLabels(flags []string) (list []wray.Label, err error) {
	own := len(wray.NodeLabels("node", nil))
	for _, f := range flags {
		for part := range strings.SplitSeq(f, ",") {
			key, value, ok := strings.Cut(part, "=")
			l := wray.Label{Key: strings.TrimSpace(key), Value: strings.TrimSpace(value)}
			switch {
			case !ok:
				err = fmt.Errorf("%q has no value", part)
			case strings.HasPrefix(l.Key, wray.LabelPrefix) && l.Key != wray.LabelGroup:
				err = fmt.Errorf("labels that begin with %s are the node's own, but for %s", wray.LabelPrefix, wray.LabelGroup)
			case slices.ContainsFunc(list, func(have wray.Label) bool { return have.Key == l.Key }):
				err = fmt.Errorf("the label %s is given twice", l.Key)
			case len(list) == wray.MaxLabels-own:
				err = fmt.Errorf("a node has at most %d labels, %d of which are its own", wray.MaxLabels, own)
			default:
				err = l.Check()
			}
			if err != nil {
				return nil, &usageError{withHint(fmt.Errorf("--labels %s: %w", f, err), "write --labels KEY=VALUE,KEY=VALUE, such as zone=west,disk=ssd")}
			}
			list = append(list, l)
		}
	}
	return list, nil
}
