package main

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/wray-project/wray/internal/clientwire"
)

// maxBundleRuns bounds the bundles that are printed of a group, those alike
// together.
const maxBundleRuns = 8

// groups prints placement groups: where their bundles are, and why one waits.
func (p *waitPrinter) groups(list []clientwire.PlacementGroup, more int64) {
	for i := range list {
		g := &list[i]
		what := "placement group"
		if g.Name != "" {
			what += " " + g.Name
		}
		state := g.State
		if g.State != clientwire.GroupReady {
			state = fmt.Sprintf("%s for %v", g.State, time.Duration(g.Seconds)*time.Second)
		}
		if g.Tasks > 0 {
			state += fmt.Sprintf(", %d tasks wait for room in it", g.Tasks)
		}
		p.line("%s of %s, %s: %s", what, p.job(g.Job), g.Strategy, state)
		if g.Why != "" {
			p.line("    %s", g.Why)
		}
		p.bundles(g.Bundles)
	}
	if more > 0 {
		p.line("and %d more placement groups", more)
	}
}

// bundles prints where bundles are, those that follow each other and are alike
// together.
func (p *waitPrinter) bundles(list []clientwire.Bundle) {
	runs := 0
	for i := 0; i < len(list); {
		end := i + 1
		for end < len(list) && list[end] == list[i] {
			end++
		}
		if runs++; runs > maxBundleRuns {
			p.line("    and %d more bundles", len(list)-i)
			return
		}
		numbers := fmt.Sprintf("bundle %d", i)
		if end > i+1 {
			numbers = fmt.Sprintf("bundles %d to %d, each", i, end-1)
		}
		where := "not placed"
		if b := &list[i]; b.Node != "" {
			where = "on " + b.Node
			if strings.Contains(b.Has, "CPU") {
				where += fmt.Sprintf(", %g CPUs free", b.CPU)
			}
		}
		p.line("    %s: %s: %s", numbers, cmp.Or(list[i].Has, "nothing"), where)
		i = end
	}
}
