package scheduler

import "container/heap"

// short is the tasks that lack nothing but resources which stay held, in the
// search for deadlocks. What there may be of each resource only grows, so a task
// is kept with one resource that it lacks, and moves on to the next when there
// is enough of that: at most once for each that it asks for.
type short struct {
	lacks []byNeed // by resource: 0 is memory, 1+i is Scheduler.custom[i]
	have  []int64  // of each, what is or may become free
}

func (s *Scheduler) newShort() *short {
	h := &short{lacks: make([]byNeed, 1+len(s.custom)), have: make([]int64, 1+len(s.custom))}
	h.have[0] = s.free.Memory
	for _, r := range s.gangs.rooms { // a group may be removed by whoever has a handle
		h.have[0] += r.capacity.Memory
	}
	for i := range s.custom {
		h.have[1+i] = int64(s.custom[i].free)
		h.lacks[1+i].resource = 1 + i
	}
	for _, r := range s.gangs.rooms {
		for _, c := range r.custom {
			h.have[1+c.resource] += int64(c.capacity)
		}
	}
	return h
}

// gather reports whether there may be enough for t, and keeps it when not.
// init must follow before next.
func (h *short) gather(t *task) bool {
	i := h.lackOf(t)
	if i >= 0 {
		h.lacks[i].tasks = append(h.lacks[i].tasks, t)
	}
	return i < 0
}

func (h *short) init() {
	for i := range h.lacks {
		heap.Init(&h.lacks[i])
	}
}

// add tells that what t holds may become free.
func (h *short) add(t *task) {
	if t.room != nil {
		return // it holds its room's
	}
	h.have[0] += t.state.holds(t.res).Memory
	if t.claim != nil && t.state.local() {
		for _, w := range t.claim.wants {
			h.have[1+w.resource] += int64(w.amount)
		}
	}
}

// next takes out a task for which there may be enough now, or nil.
func (h *short) next() *task {
	for i := range h.lacks {
		for l := &h.lacks[i]; len(l.tasks) > 0 && l.need(l.tasks[0]) <= h.have[i]; {
			t := heap.Pop(l).(*task)
			other := h.lackOf(t)
			if other < 0 {
				return t
			}
			heap.Push(&h.lacks[other], t)
		}
	}
	return nil
}

// lackOf returns a resource of which t wants more than there may be, or -1.
func (h *short) lackOf(t *task) int {
	if t.res.Memory > h.have[0] {
		return 0
	}
	if t.claim != nil {
		for _, w := range t.claim.wants {
			if i := 1 + w.resource; int64(w.amount) > h.have[i] {
				return i
			}
		}
	}
	return -1
}

// byNeed is a heap of tasks that want some of a resource, who wants least first.
type byNeed struct {
	resource int // position in short.lacks
	tasks    []*task
}

func (h *byNeed) need(t *task) int64 {
	if h.resource == 0 {
		return t.res.Memory
	}
	return int64(t.claim.of(h.resource - 1))
}

func (h *byNeed) Len() int           { return len(h.tasks) }
func (h *byNeed) Less(i, k int) bool { return h.need(h.tasks[i]) < h.need(h.tasks[k]) }
func (h *byNeed) Swap(i, k int)      { h.tasks[i], h.tasks[k] = h.tasks[k], h.tasks[i] }

// Push is for container/heap.
func (h *byNeed) Push(x any) { h.tasks = append(h.tasks, x.(*task)) }

// Pop is for container/heap.
func (h *byNeed) Pop() any {
	last := len(h.tasks) - 1
	t := h.tasks[last]
	h.tasks = h.tasks[:last]
	return t
}
