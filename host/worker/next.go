package worker

import (
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/scheduler"
	"github.com/wray-project/wray/wasm/abi"
)

// A guest that has run a task may go on with the next one without leaving the
// call that it is in: to leave it, to take a turn and to enter again takes
// longer than many a task. What the guest asks for is decided as between two
// calls: the attempt that has run ends first, and the scheduler says what starts.

// returnGrace is what a guest has to return from its call when the task that it
// ran has ended and it was told that there is no other. It holds a turn and
// nothing else, and nobody could stop it.
const returnGrace = time.Second

// executeMany runs an attempt of t, and of the tasks that the guest then goes on
// with. It returns the last of them; over: that has ended, else failure is to be
// told to the scheduler.
func (g *guest) executeMany(t *task) (last *task, over bool, failure *wray.Error) {
	g.begin(t)
	g.many = true
	err := g.enter(t)
	g.many = false
	if last = g.over; last != nil {
		_ = g.ended(err) // there is nothing that it could be the failure of
		g.over = nil
		return last, true, nil
	}
	last = g.task
	return last, false, g.outcome(last, err)
}

func taskNext(g *guest, v view, s []uint64) abi.Errno {
	if _, ok := v.bytes(uint32(s[1]), uint32(s[2])); !ok {
		return abi.EFAULT
	}
	if _, ok := v.bytes(uint32(s[3]), 4); !ok {
		return abi.EFAULT
	}
	if s[0] != 0 {
		if e := taskReturn(g, v, []uint64{0, s[0]}); e != abi.Success {
			return e
		}
	}
	t := g.task
	if t == nil || !g.many || !g.mayGoOn(t) {
		return abi.ENOENT
	}
	g.release()
	next, ended := g.w.finishIfMore(g, t)
	if !ended {
		return abi.ENOENT
	}
	g.sb.SetDeadline(0)
	if next != nil && !next.fresh() {
		g.begin(next)
		g.sb.Renew()
		if e := taskInput(g, v, s[1:]); e != abi.Success {
			return abi.EOVERFLOW // task_input says what it is: no errno of the last task's
		}
		return abi.Success
	}
	g.task, g.holder, g.over, g.next = nil, nil, t, next
	g.sb.SetDeadline(returnGrace)
	return abi.ENOENT
}

// mayGoOn reports whether the attempt of t, which the guest says it has run, ends
// well and with nothing left to do. Everything else is for when the guest has
// returned.
func (g *guest) mayGoOn(t *task) bool {
	return t.failure == nil && t.stream == nil && t.far == nil && !t.fn.command && len(t.held) == 0 &&
		len(g.stdout.buf)+len(g.stderr.buf) == 0 && !g.dump.Held() && t.complete() == nil
}

// finishIfMore tells the scheduler that an attempt of g's ended well, where other
// tasks wait, and returns the next task for g, whose runner g is by then, unless
// it wants a fresh sandbox.
func (w *Worker) finishIfMore(g *guest, t *task) (next *task, ended bool) {
	w.mu.Lock()
	if !w.sched.Waiting() {
		w.mu.Unlock()
		return nil, false
	}
	t.runner, t.stopped = nil, 0
	g.sb.Forgive()
	w.sched.Finished(w.now(), t.id, t.attempt, scheduler.Outcome{})
	return w.actLocked(g, nil), true
}
