package worker

import (
	"fmt"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/sandbox"
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
		g.saysHowEnded(last, g.ended(err))
		g.over = nil
		return last, true, nil
	}
	if last = g.before(); last != nil && err != nil && g.w.anew(g.task) {
		g.saysHowEnded(last, g.ended(err))
		g.next, g.between = g.task, between{}
		return last, true, nil
	}
	g.between = between{}
	last = g.task
	return last, false, g.outcome(last, err)
}

// between is where a guest is that has ended one task and not begun the next, which
// it was given by taskNext: what ends it there is not the next one's failure.
type between struct {
	ended *task  // nil: it is not there
	since int64  // when that ended, by the worker's clock
	at    uint32 // where the guest writes 0 as it begins the next
}

// before returns the task that the guest has ended, where it has not begun the next
// one; else nil.
func (g *guest) before() *task {
	b := &g.between
	if b.ended == nil {
		return nil
	}
	if p, ok := view(g.sb.Memory()).bytes(b.at, 4); !ok || u32(p, 0) == 0 {
		*b = between{}
	}
	return b.ended
}

// mustGoOn stops a guest that takes long to begin the next task.
func (g *guest) mustGoOn() {
	if t := g.before(); t != nil && g.w.now()-g.between.since > int64(returnGrace) {
		panic(sandbox.Stop(&wray.Error{Code: wray.CodeTimeout, Message: fmt.Sprintf("did not go on to its next task within %v", returnGrace)}))
	}
}

// anew takes t, which a guest was given and has not begun, from that guest, and has
// its time begin again: an executor is to run it. False: it is to be stopped, and so
// has ended.
func (w *Worker) anew(t *task) bool {
	w.mu.Lock()
	if t.stopped != 0 && t.stopped != wray.CodeTimeout {
		w.mu.Unlock()
		return false
	}
	t.runner, t.stopped = nil, 0
	w.sched.Anew(w.now(), t.id, t.attempt)
	w.actLocked(nil, nil)
	return true
}

// saysHowEnded tells the job's user how the sandbox of t ended, of which nobody else
// is told: t has ended well, and no other task has begun.
func (g *guest) saysHowEnded(t *task, err error) {
	if err == nil || g.job.out == nil {
		return
	}
	g.job.out.put(t.label(), Notice, fmt.Appendf(nil, "task %s has ended well, and then its sandbox did not: %v\n", t.label(), t.asError(err)))
}

func taskNext(g *guest, v view, s []uint64) abi.Errno {
	if _, ok := v.bytes(uint32(s[1]), uint32(s[2])); !ok {
		return abi.EFAULT
	}
	if _, ok := v.bytes(uint32(s[3]), 4); !ok {
		return abi.EFAULT
	}
	if uint32(s[0]) != 0 {
		if e := taskReturn(g, v, []uint64{0, s[0]}); e != abi.Success {
			return e
		}
	}
	g.between = between{} // who asks for another has run this one
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
		g.between = between{ended: t, since: g.w.now(), at: uint32(s[3])}
		putU32(v, int(uint32(s[3])), 1) // it may end in Renew
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
