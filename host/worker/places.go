package worker

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/wray-project/wray"
)

// places bounds the sandboxes of tasks. Tasks that hold CPU bound themselves;
// those that ask for none, and those that wait for others and have lent theirs,
// do not, and every sandbox takes mappings, of which a process has a limited
// number.
//
// Beyond the limit a task waits for a place, but not while everybody who has
// one waits, too: it may be what they wait for. Then there are half as many
// places more, and beyond these tasks fail.
type places struct {
	limit   int64
	blocked atomic.Int64 // sandboxes whose tasks wait for others
	waiting atomic.Int64 // who waits in take

	mu    sync.Mutex
	live  int64      // guarded by mu
	freed *sync.Cond // signaled when live shrinks or blocked grows
}

// DefaultSandboxes is how many sandboxes tasks have at once where nothing is
// said: with all that come on top, some 12,000 mappings of 65,530.
const DefaultSandboxes = 4000

// SandboxesFlag is the flag that the error of too many sandboxes names.
const SandboxesFlag = "--max-live-sandboxes"

func newPlaces(limit int) *places {
	p := &places{limit: int64(limit)}
	p.freed = sync.NewCond(&p.mu)
	return p
}

// take takes a place, and may wait for one. idle asks those that rest to leave.
func (p *places) take(idle func()) *wray.Error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live < p.limit {
		p.live++
		return nil
	}
	p.waiting.Add(1)
	defer p.waiting.Add(-1)
	p.mu.Unlock()
	idle()
	p.mu.Lock()
	for p.live >= p.limit && p.blocked.Load() < p.live {
		p.freed.Wait()
	}
	if p.live >= p.limit+max(p.limit/2, 1) {
		return &wray.Error{Code: wray.CodeLimitExceeded,
			Message: fmt.Sprintf("%d tasks have a sandbox and wait for others", p.live),
			Limit:   &wray.Limit{Name: "live sandboxes", Value: p.limit, Flag: SandboxesFlag},
			Hint:    "have fewer tasks wait for others at once, or raise the limit with " + SandboxesFlag}
	}
	p.live++
	return nil
}

// give gives a place back.
func (p *places) give() {
	p.mu.Lock()
	p.live--
	p.freed.Signal()
	p.mu.Unlock()
}

// block takes note that a task in a sandbox waits, or by -1 does not any more.
func (p *places) block(n int64) {
	if p.blocked.Add(n); n > 0 && p.waiting.Load() > 0 {
		p.mu.Lock()
		p.freed.Broadcast()
		p.mu.Unlock()
	}
}

// wanted reports whether somebody waits for a place.
func (p *places) wanted() bool { return p.waiting.Load() > 0 }
