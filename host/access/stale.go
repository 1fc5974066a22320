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
// until all is read again: a watch that goes on may be late. It may also be a watch
// at one head that hears nothing, while another head answers: so all is read again
// every MaxStale, and where that does not come to an end for MaxStale more, no
// token is good either.

// MaxStale is how long tokens are good while the control state does not answer.
// With what it takes to find that out, one that is revoked is good for MaxStale and
// half a minute more, on a node that hears of nothing; for twice MaxStale where the
// node first heard of nothing though the state answered, and it then does not.
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
			} else {
				c.readOld()
			}
		}
		if now := c.now(); !late && (now.Sub(heard) >= MaxStale || now.Sub(c.oldest()) >= 2*MaxStale) {
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

// readOld has be read again what was last read MaxStale ago.
func (c *Checker) readOld() {
	c.mu.Lock()
	again := map[string]func(){}
	for prefix, at := range c.read {
		if c.now().Sub(at) >= MaxStale {
			again[prefix] = c.again[prefix]
		}
	}
	c.mu.Unlock()
	for _, read := range again {
		read()
	}
}

// oldest is when was read what was not read for longest; now where nothing was yet.
func (c *Checker) oldest() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	oldest := c.now()
	for _, at := range c.read {
		if at.Before(oldest) {
			oldest = at
		}
	}
	return oldest
}

// current notes that a prefix was read as it is now, and what has it be read again.
func (c *Checker) current(prefix string, again func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.again[prefix], c.read[prefix] = again, c.now()
	delete(c.stale, prefix)
	c.cutStaleLocked()
}
