package access

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/wray-project/wray/host/control"
)

// What is revoked a checker hears of by watching, and a watch of a control state
// that is away says nothing: as one of a state in which nothing happens does. So
// the state is asked, too. Where it does not answer for MaxStale no token is good,
// until all is read again: a watch that goes on may be late.

// MaxStale is how long tokens are good while the control state does not answer.
// With what it takes to find that out, one that is revoked is good for MaxStale and
// half a minute more, on a node that hears of nothing.
const MaxStale = 5 * time.Minute

const (
	askEvery = 10 * time.Second // how often the control state is asked
	askTime  = 10 * time.Second // how long it may take to answer
)

// listen asks the control state whether it is there, until ctx ends.
func (c *Checker) listen(ctx context.Context) {
	key, err := control.Key(control.KindTenant, Home, Home) // one that any node may read
	if err != nil {
		panic("BUG: " + err.Error())
	}
	heard, late := c.now(), false
	for ctx.Err() == nil {
		asked, cancel := context.WithTimeout(ctx, askTime)
		_, err := c.store.Get(asked, key)
		cancel()
		switch {
		case errors.Is(err, control.ErrClosed):
			return
		case err == nil, errors.Is(err, control.ErrNotFound), errors.Is(err, control.ErrDenied):
			if heard = c.now(); late {
				late = false
				c.readAgain()
			}
		case !late && c.now().Sub(heard) >= MaxStale:
			late = true
			c.setStale()
		}
		select {
		case <-ctx.Done():
		case <-time.After(askEvery):
		}
	}
}

// setStale has no token be good, until all is read again.
func (c *Checker) setStale() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, prefix := range []string{control.KindTenant + "/", KindUser + "/", KindToken + "/"} {
		c.stale[prefix] = true
	}
	c.cutStaleLocked()
}

// readAgain has all be read again that is followed.
func (c *Checker) readAgain() {
	c.mu.Lock()
	again := maps.Clone(c.again)
	c.mu.Unlock()
	for _, read := range again {
		read()
	}
}

// current notes that a prefix was read as it is now, and what has it be read again.
func (c *Checker) current(prefix string, again func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.again[prefix] = again
	delete(c.stale, prefix)
	c.cutStaleLocked()
}
