package scheduler

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/wray-project/wray"
)

// claim is the custom resources that tasks ask for. Most ask for none and have
// none. There is one claim for all tasks alive that ask for the same, so that
// claims are compared by their address.
type claim struct {
	key   string
	tasks int    // alive that have it
	wants []want // by resource
}

// want is an amount, not 0, of the resource at a position of Scheduler.custom.
type want struct {
	resource int
	amount   wray.Amount
}

// custom is an account of the custom resources that the node has.
type custom struct {
	name     string
	capacity wray.Amount
	free     wray.Amount // capacity less what started tasks hold
	blocked  wray.Amount // held by tasks in state blocked
}

// customs makes the accounts, by name.
func customs(capacity []wray.Custom) []custom {
	list := make([]custom, 0, len(capacity))
	for _, c := range capacity {
		list = append(list, custom{name: c.Name, capacity: c.Amount, free: c.Amount})
	}
	slices.SortFunc(list, func(a, b custom) int { return strings.Compare(a.name, b.name) })
	return list
}

func (s *Scheduler) resource(name string) int {
	if i, ok := s.peers.resource[name]; ok {
		return i
	}
	i, ok := slices.BinarySearchFunc(s.custom[:s.own], name, func(c custom, name string) int { return strings.Compare(c.name, name) })
	if !ok {
		return -1
	}
	return i
}

// wants returns what spec asks for, by resource. lacks is the first that this
// node has not so much of, ever; nil: there is none. An error: nobody has it.
func (s *Scheduler) wants(spec *Spec) (wants []want, lacks *wray.Custom, err error) {
	if len(spec.Custom) == 0 {
		return nil, nil, nil
	}
	mayWait := s.config.Patience > 0 && (spec.Place == nil || !spec.Place.Home)
	if mayWait && slices.ContainsFunc(spec.Custom, func(c wray.Custom) bool { return c.Amount > 0 && s.resource(c.Name) < 0 }) {
		s.roomToName(len(spec.Custom))
	}
	wants = make([]want, 0, len(spec.Custom))
	for k := range spec.Custom {
		c := &spec.Custom[k]
		if c.Amount == 0 {
			continue
		}
		i := s.resource(c.Name)
		if i < 0 && mayWait {
			i = s.newResource(c.Name) // a node that has it may be on its way
		}
		if i < 0 {
			return nil, nil, unschedulableCustom(spec, *c, 0)
		}
		if c.Amount > s.custom[i].capacity && lacks == nil {
			lacks = c
		}
		wants = append(wants, want{i, c.Amount})
	}
	slices.SortFunc(wants, func(a, b want) int { return a.resource - b.resource })
	return wants, lacks, nil
}

// claimFor gives t the claim for wants, which are not empty.
func (s *Scheduler) claimFor(t *task, wants []want) {
	key := make([]byte, 0, 16*len(wants))
	for _, w := range wants {
		key = binary.AppendUvarint(key, uint64(w.resource))
		key = binary.AppendUvarint(key, uint64(w.amount))
	}
	c := s.claims[string(key)]
	if c == nil {
		c = &claim{key: string(key), wants: wants}
		s.claims[c.key] = c
	}
	c.tasks++
	t.claim = c
}

// disown takes t's claim and placement away, as t is over.
func (s *Scheduler) disown(t *task) {
	if c := t.claim; c != nil {
		if c.tasks--; c.tasks == 0 {
			delete(s.claims, c.key)
			s.peers.vain = false
		}
		t.claim = nil
	}
	if l := t.place; l != nil {
		l.tasks--
		s.leavePlacement(l)
		t.place = nil
	}
}

// lacking returns the first of t's wants that is not free; nil: there is none.
func (s *Scheduler) lacking(t *task) *want {
	if t.claim == nil {
		return nil
	}
	for i := range t.claim.wants {
		if w := &t.claim.wants[i]; w.amount > s.custom[w.resource].free {
			return w
		}
	}
	return nil
}

// all returns what c wants.
func (c *claim) all() []want {
	if c == nil {
		return nil
	}
	return c.wants
}

// of returns how much of a resource c wants.
func (c *claim) of(resource int) wray.Amount {
	if c != nil {
		for _, w := range c.wants {
			if w.resource == resource {
				return w.amount
			}
		}
	}
	return 0
}

// moveClaim changes the accounts when a task with a claim changes its state.
// It holds its claim from Start to Finished, whatever it waits for in between.
func (s *Scheduler) moveClaim(t *task, from, to state) {
	j := t.job
	if from == blocked {
		s.deadlock.blockedClaims--
	}
	if to == blocked {
		s.deadlock.blockedClaims++
	}
	for _, w := range t.claim.wants {
		c := &s.custom[w.resource]
		if from.local() != to.local() {
			if j.custom == nil {
				j.custom = make([]wray.Amount, len(s.custom))
			}
			change := w.amount
			if from.local() {
				change = -change
			}
			c.free -= change
			j.custom[w.resource] += change
		}
		if from == blocked {
			c.blocked -= w.amount
		}
		if to == blocked {
			c.blocked += w.amount
		}
	}
}

// customShare is j's largest share of a custom resource.
func (s *Scheduler) customShare(j *job) float64 {
	var most float64
	for i, held := range j.custom {
		if held > 0 {
			most = max(most, float64(held)/float64(s.custom[i].capacity))
		}
	}
	return most
}

// customHeld is the account of j's custom resources, for Stats.
func (s *Scheduler) customHeld(j *job) []wray.Custom {
	var held []wray.Custom
	for i, n := range j.custom {
		if n > 0 {
			held = append(held, wray.Custom{Name: s.custom[i].name, Amount: n})
		}
	}
	return held
}

// addCustom returns the sum of two accounts, each by name. Neither is changed.
func addCustom(a, b []wray.Custom) []wray.Custom {
	if len(a) == 0 {
		return b
	}
	sum := slices.Clone(a)
	for _, c := range b {
		i, ok := slices.BinarySearchFunc(sum, c.Name, func(c wray.Custom, name string) int { return strings.Compare(c.Name, name) })
		if ok {
			sum[i].Amount += c.Amount
		} else {
			sum = slices.Insert(sum, i, c)
		}
	}
	return sum
}

// validateCustom says what is wrong with a list of custom resources.
func validateCustom(list []wray.Custom) error {
	for i, c := range list {
		switch {
		case c.Amount < 0 || c.Amount > wray.MaxAmount:
			return fmt.Errorf("the amount %v of resource %q is negative or too large", c.Amount, c.Name)
		case slices.ContainsFunc(list[:i], func(d wray.Custom) bool { return d.Name == c.Name }):
			return fmt.Errorf("resource %q is named twice", c.Name)
		}
	}
	return nil
}
