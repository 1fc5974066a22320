package worker

import (
	"fmt"

	"github.com/wray-project/wray"
)

// complete ends a call that the actor took and runs no method for.
func (a *actor) complete(c *task, err *wray.Error) {
	a.mu.Lock()
	a.running = nil
	a.box.Done()
	a.mu.Unlock()
	a.job.takeQueued(c.bytes())
	a.settle(c, err)
}

// answer runs a call, or several that begin with this one. It returns why the
// actor's state is gone, where it is.
func (a *actor) answer(g *guest, c *task) *wray.Error {
	if a.box.Width > 1 {
		return a.serve(g, c)
	}
	bytes := c.bytes()
	if a.durable {
		if a.repeated(c) {
			return nil
		}
		if err := c.missesArgument(); err != nil {
			a.complete(c, err)
			return nil
		}
		a.under = c
		a.beginCall(g, c)
	}
	c.attempt++
	a.calls.Add(1)
	a.used.Store(true)
	err := g.execute(c)
	gone := g.sb.Spoilt()
	call := g.durable
	if call != nil {
		if !gone {
			if e := call.finish(); e != nil {
				gone, err = true, e
			}
		}
		call.endCall(gone)
	}
	g.endTask()
	a.mu.Lock()
	a.running = nil
	a.mu.Unlock()
	done := func() {
		if c.letter != nil { // else it is one that a crash left undone
			a.mu.Lock()
			a.box.Done()
			a.mu.Unlock()
			a.job.takeQueued(bytes)
		}
	}
	if !gone {
		done()
		g.sb.Forgive()
		if err == nil {
			a.answered++
		}
		ends := a.note(c, err)
		if a.durable {
			a.under = nil
			if ends != nil {
				err = a.uncommitted(ends)
				if a.rec != nil {
					a.under = nil
					if e := a.giveUp(err); e != nil {
						ends = e
					}
				}
			} else {
				call.acknowledge()
			}
		}
		a.settle(c, err)
		return ends
	}
	if err == nil {
		err = wray.Errorf(wray.CodeInternal, "the sandbox was stopped")
	}
	a.mu.Lock()
	restarts := !a.final && a.create.mayRestart()
	again := restarts && !c.answered() && (c.tries < 0 || c.attempt <= c.tries) && err.Code != wray.CodeDiverged && c.letter != nil
	if again {
		a.box.PutBack(c.letter, c.from)
	}
	a.mu.Unlock()
	if again {
		return err
	}
	done()
	if a.hosted { // its home says what that means
		c.far.end = replyGone
		a.settle(c, err)
		return err
	}
	died := a.died(c, "the actor ended in this call", err, restarts)
	if a.durable {
		if e := a.giveUp(died); e != nil {
			died = a.uncommitted(e)
		}
	}
	a.settle(c, died)
	return err
}

// died is the failure of the call c, that the actor's sandbox did not survive.
func (a *actor) died(c *task, what string, err *wray.Error, restarts bool) *wray.Error {
	died := &wray.Error{Code: wray.CodeActorDied, Message: what, Cause: err, Hint: err.Hint, Node: err.Node}
	if err.Code == wray.CodeActorDied {
		died.Message, died.Cause = err.Message, nil
	}
	if err.Code == wray.CodeDiverged {
		return err
	}
	if restarts {
		died.Lost = a.answered
		if a.durable {
			died.Lost = 0
			died.Message += "; it starts again as it was before this call"
			return died
		}
		if a.saves() {
			died.Lost = int(a.dur.unsaved)
			a.losing(c)
		}
		died.Message += fmt.Sprintf("; it starts again without the effects of %d calls that it had answered", died.Lost)
	}
	return died
}
