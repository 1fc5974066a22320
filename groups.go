package wray

import (
	"fmt"
	"strconv"
	"strings"
)

// GroupStrategy says how the bundles of a placement group lie on nodes.
type GroupStrategy uint8

// The strategies of groups. The strict ones hold or the group is not there; the
// others go as far in their direction as there is room.
const (
	GroupPack         GroupStrategy = iota // on as few nodes as it goes
	GroupSpread                            // on as many
	GroupStrictPack                        // all on one node
	GroupStrictSpread                      // each on a node of its own
	groupStrategies
)

var groupStrategyNames = [groupStrategies]string{"pack", "spread", "strict pack", "strict spread"}

// String returns the strategy's name, such as "strict spread".
func (g GroupStrategy) String() string {
	if g < groupStrategies {
		return groupStrategyNames[g]
	}
	return "?"
}

// Bundle is what a placement group sets aside on one node.
type Bundle struct {
	Resources
	Custom []Custom   // each name once, none of nothing
	Where  []Selector // what the labels of its node are
}

// GroupSpec describes a placement group.
type GroupSpec struct {
	Strategy GroupStrategy
	Bundles  []Bundle
}

// Bounds of placement groups.
const (
	MaxBundles   = 1024    // of a group
	MaxGroupText = 1 << 20 // bytes of a group, as text
	AnyBundle    = -1      // in place of a bundle's number: whichever has room
)

// Check says what is wrong with a group, if anything.
func (g *GroupSpec) Check() error {
	if g.Strategy >= groupStrategies {
		return fmt.Errorf("the strategy %d of a placement group is not known", g.Strategy)
	}
	if n := len(g.Bundles); n == 0 || n > MaxBundles {
		return fmt.Errorf("a placement group of %d bundles: from 1 to %d are wanted", n, MaxBundles)
	}
	for i := range g.Bundles {
		if err := g.Bundles[i].check(); err != nil {
			return fmt.Errorf("bundle %d: %w", i, err)
		}
	}
	return nil
}

func (b *Bundle) check() error {
	switch {
	case b.CPU < 0 || b.CPU > CPU(MaxAmount):
		return fmt.Errorf("%d ten-thousandths of a core are negative or too much", b.CPU)
	case b.Memory < 0 || b.Memory > 1<<60:
		return fmt.Errorf("%d bytes of memory are negative or too much", b.Memory)
	case len(b.Custom) > MaxCustom:
		return fmt.Errorf("%d resources, the most are %d", len(b.Custom), MaxCustom)
	case b.CPU == 0 && b.Memory == 0 && len(b.Custom) == 0:
		return fmt.Errorf("it sets nothing aside")
	case len(b.Where) > MaxSelectors:
		return fmt.Errorf("%d label selectors, the most are %d", len(b.Where), MaxSelectors)
	}
	for i, c := range b.Custom {
		if err := CheckCustom(c.Name); err != nil {
			return err
		}
		if c.Amount <= 0 || c.Amount > MaxAmount {
			return fmt.Errorf("the amount %v of resource %q is not positive, or too large", c.Amount, c.Name)
		}
		for _, d := range b.Custom[:i] {
			if c.Name == d.Name {
				return fmt.Errorf("resource %q is named twice", c.Name)
			}
		}
	}
	for i := range b.Where {
		if err := b.Where[i].Check(); err != nil {
			return err
		}
	}
	return nil
}

// String returns what b sets aside, such as "1 CPU, 2 gpu".
func (b *Bundle) String() string {
	var parts []string
	if b.CPU > 0 {
		parts = append(parts, b.CPU.String()+" CPU")
	}
	if b.Memory > 0 {
		parts = append(parts, (&Limit{Value: b.Memory, Unit: "bytes"}).amount()+" of memory")
	}
	for _, c := range b.Custom {
		parts = append(parts, c.Amount.String()+" "+c.Name)
	}
	for _, w := range b.Where {
		parts = append(parts, "where "+w.String())
	}
	return strings.Join(parts, ", ")
}

// Words of a group as it travels: clauses as those of a Placement. Those after
// "bundle" are of that one.
const (
	clauseStrategy = "strategy"
	clauseBundle   = "bundle"
	clauseCPU      = "cpu"
	clauseMemory   = "memory"   // bytes
	clauseResource = "resource" // the amount, a space, the name
)

// Append appends g as ParseGroup reads it.
func (g *GroupSpec) Append(b []byte) []byte {
	clause := func(word, about string) { b = append(append(append(append(b, word...), 0), about...), 0) }
	clause(clauseStrategy, g.Strategy.String())
	for i := range g.Bundles {
		p := &g.Bundles[i]
		clause(clauseBundle, "")
		if p.CPU != 0 {
			clause(clauseCPU, p.CPU.String())
		}
		if p.Memory != 0 {
			clause(clauseMemory, strconv.FormatInt(p.Memory, 10))
		}
		for _, c := range p.Custom {
			clause(clauseResource, c.Amount.String()+" "+c.Name)
		}
		for _, s := range p.Where {
			clause(clauseWhere, s.String())
		}
	}
	return b
}

// ParseGroup reads what Append has written, or a stranger. What it returns has
// been checked.
func ParseGroup(text string) (*GroupSpec, error) {
	if len(text) > MaxGroupText {
		return nil, fmt.Errorf("a placement group of %d bytes of text, the most are %d", len(text), MaxGroupText)
	}
	var g GroupSpec
	named := false
	for text != "" {
		word, rest, ok := strings.Cut(text, "\x00")
		about, rest, ok2 := strings.Cut(rest, "\x00")
		if !ok || !ok2 {
			return nil, fmt.Errorf("a zero byte is missing in a placement group")
		}
		text = rest
		switch {
		case word == clauseStrategy && !named:
			named = true
			for g.Strategy.String() != about {
				if g.Strategy++; g.Strategy >= groupStrategies {
					return nil, fmt.Errorf("the strategy %.40q of a placement group is not known", about)
				}
			}
			continue
		case word == clauseBundle && about == "" && len(g.Bundles) < MaxBundles:
			g.Bundles = append(g.Bundles, Bundle{})
			continue
		}
		if len(g.Bundles) == 0 {
			return nil, fmt.Errorf("the clause %.40q of a placement group is not known, or is of no bundle", word)
		}
		if err := g.Bundles[len(g.Bundles)-1].clause(word, about); err != nil {
			return nil, err
		}
	}
	return &g, g.Check()
}

// clause reads one clause of b.
func (b *Bundle) clause(word, about string) error {
	switch {
	case word == clauseCPU && b.CPU == 0:
		a, err := ParseAmount(about)
		b.CPU = CPU(a)
		return err
	case word == clauseMemory && b.Memory == 0:
		n, err := strconv.ParseInt(about, 10, 64)
		b.Memory = n
		return err
	case word == clauseResource && len(b.Custom) < MaxCustom:
		amount, name, _ := strings.Cut(about, " ")
		a, err := ParseAmount(amount)
		b.Custom = append(b.Custom, Custom{Name: name, Amount: a})
		return err
	case word == clauseWhere && len(b.Where) < MaxSelectors:
		s, err := ParseSelector(about)
		b.Where = append(b.Where, s)
		return err
	}
	return fmt.Errorf("the clause %.40q of a bundle is not known, or is there too often", word)
}
