package rpc

import (
	"fmt"
	"sync"

	"github.com/wray-project/wray"
)

// known bounds connections of people who are known: all, and those of one tenant,
// or of an operator who has a certificate. Unlike at a gate nobody makes room for
// another: what runs goes on, and the new one is refused. Whoever has fewer than
// sure is not refused because of others.
type known struct {
	most, each, sure int

	mu    sync.Mutex
	all   int            // guarded by mu
	count map[string]int // guarded by mu; by whose they are
}

func newKnown(most, each, sure int) *known {
	return &known{most: most, each: each, sure: sure, count: map[string]int{}}
}

// enter counts a connection, until leave.
func (c *known) enter(whose string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.count[whose]
	switch {
	case n >= c.each:
		return tooMany("connections of "+whose, c.each, "close some")
	case c.all >= c.most && n >= c.sure:
		return tooMany("connections of people", c.most, "try again later, or at another node")
	}
	c.all++
	c.count[whose]++
	return nil
}

func (c *known) leave(whose string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	if c.count[whose]--; c.count[whose] == 0 {
		delete(c.count, whose)
	}
}

func tooMany(what string, most int, hint string) error {
	return &wray.Error{Code: wray.CodeLimitExceeded, Message: fmt.Sprintf("there are too many %s at this node", what),
		Limit: &wray.Limit{Name: what + " at a node", Value: int64(most)}, Hint: hint}
}

// visit is a connection of somebody who shows tokens: a stranger's, at a gate,
// until the first that is good, and then of that one's tenant.
type visit struct {
	all      *known
	stranger func() // leaves the gate
	shown    func() // is told of the first good token; may be nil

	mu     sync.Mutex
	whose  string // guarded by mu; empty before
	closed bool   // guarded by mu
}

// vouch has the connection be a tenant's, unless it is one's already.
func (b *visit) vouch(tenant string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.whose != "" || b.closed {
		return nil
	}
	whose := "tenant " + tenant
	if err := b.all.enter(whose); err != nil {
		return err
	}
	b.whose = whose
	b.stranger()
	if b.shown != nil {
		b.shown()
	}
	return nil
}

// leave is for when it is closed.
func (b *visit) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.stranger()
	if b.whose != "" {
		b.all.leave(b.whose)
		b.whose = ""
	}
}
