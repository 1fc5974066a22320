package worker

import (
	"cmp"
	"slices"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// Bounds of a listing.
const (
	defaultListed = 1000
	maxListed     = 5000
	maxHolders    = 16 // listed of one object
)

// holders is who holds objects, as far as a walk over everything that can has
// found. Nothing notes a holder as it takes a reference, so that costs nothing;
// the price is that the walk sees a moment for each table, and no moment for
// all: what changes meanwhile may be counted once too often or not at all.
type holders struct {
	w    *Worker
	now  uint32
	of   map[wray.ID][]clientwire.Holder
	task map[uint64]string // names of the tasks that have not ended, by their ID
}

func (h *holders) add(o wray.ID, kind, name string, job uint32, since uint32) {
	age := int64(-1)
	if since != noTime {
		age = int64(h.now - min(since, h.now))
	}
	list := h.of[o]
	for i := range list {
		if l := &list[i]; l.Kind == kind && l.Name == name && l.Job == job {
			l.Count++
			l.Age = max(l.Age, age)
			return
		}
	}
	h.of[o] = append(list, clientwire.Holder{Kind: kind, Name: name, Job: job, Count: 1, Age: age})
}

const noTime = 1<<32 - 1

// jobNumber is what listings call a job.
func jobNumber(seq uint64) uint32 { return uint32(seq / idStep) }

func (j *job) number() uint32 { return jobNumber(j.id.Seq) }

// Memory lists live objects and who holds them.
func (w *Worker) Memory(q clientwire.MemoryBody) clientwire.Memory {
	w.now()
	h := &holders{w: w, now: w.store.Clock().Now(), of: map[wray.ID][]clientwire.Holder{}, task: map[uint64]string{}}
	jobs := h.walk()
	entries := w.store.Census()
	for i := range entries {
		e := &entries[i]
		for _, n := range e.Nested {
			h.add(n, clientwire.HolderValue, e.ID.String(), jobNumber(e.Origin), e.Born)
		}
	}
	live := h.reachable(entries)
	st := w.store.Stats()
	m := clientwire.Memory{Capacity: st.Capacity, Used: st.Used, Pooled: st.Pooled, Undrained: w.undrained.Load()}
	m.Kept, m.KeptOnDisk = w.stash.figures()
	for _, j := range jobs {
		m.Jobs = append(m.Jobs, clientwire.Job{Number: j.number(), Name: j.spec.Name})
	}
	for i := range entries {
		e := &entries[i]
		o := clientwire.Object{ID: e.ID.String(), State: e.State.String(), Encoding: encodingName(e.Encoding), Bytes: e.Len,
			Refs: e.Refs, Age: int64(h.now - min(e.Born, h.now)), Job: jobNumber(e.Origin), Holders: h.of[e.ID]}
		if e.Away {
			o.State += ", on disk"
		}
		if maker := makerOf(e.ID); !maker.IsZero() {
			o.Task = h.task[maker.Seq]
		}
		if e.Windows > 0 {
			o.Holders = append(o.Holders, clientwire.Holder{Kind: clientwire.HolderWindow, Count: int64(e.Windows), Age: -1})
		}
		known := int64(0)
		for _, l := range o.Holders {
			if l.Kind != clientwire.HolderWindow {
				known += l.Count
			}
		}
		if known < e.Refs {
			o.Holders = append(o.Holders, clientwire.Holder{Kind: clientwire.HolderOther, Count: e.Refs - known, Age: -1})
		}
		o.Leak = leak(e, live, jobs, o.Holders)
		if q.Job != 0 && o.Job != q.Job {
			continue
		}
		if o.Leak != "" {
			m.Leaked++
		} else if q.Leaks {
			continue
		}
		m.Count++
		m.Bytes += o.Bytes
		m.Objects = append(m.Objects, o)
	}
	slices.SortFunc(m.Objects, func(a, b clientwire.Object) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.ID, b.ID))
	})
	most := q.Most
	if most <= 0 {
		most = defaultListed
	}
	most = min(most, maxListed)
	m.Resources = w.listResources()
	w.listActors(&m, q, most)
	if len(m.Objects) > most {
		m.Objects = m.Objects[:most:most]
	}
	for i := range m.Objects {
		o := &m.Objects[i]
		slices.SortFunc(o.Holders, func(a, b clientwire.Holder) int {
			return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
		})
		if n := len(o.Holders); n > maxHolders {
			o.More = int64(n - maxHolders)
			o.Holders = o.Holders[:maxHolders:maxHolders]
		}
	}
	return m
}

// walk visits everything of the worker that holds references.
func (h *holders) walk() (jobs []*job) {
	w := h.w
	runs := map[*guest]*task{}
	w.mu.Lock()
	for _, j := range w.jobs {
		jobs = append(jobs, j)
	}
	var streams []*objectstore.Stream
	for t := range w.tasks.all {
		h.ofTask(t)
		if t.stream != nil {
			streams = append(streams, t.stream)
		}
		if t.runner != nil {
			runs[t.runner] = t
		}
	}
	w.mu.Unlock()
	w.calls.mu.Lock()
	for _, t := range w.calls.m {
		h.ofTask(t)
		if t.stream != nil {
			streams = append(streams, t.stream)
		}
	}
	w.calls.mu.Unlock()
	seen := map[*objectstore.Stream]bool{}
	ofStream := func(st *objectstore.Stream) {
		if !seen[st] {
			seen[st] = true
			st.Unread(func(o *objectstore.Object) {
				h.add(o.ID(), clientwire.HolderStream, h.task[st.Task().Seq], jobNumber(o.Origin()), noTime)
			})
		}
	}
	for _, st := range streams {
		ofStream(st)
	}
	slices.SortFunc(jobs, func(a, b *job) int { return cmp.Compare(a.id.Seq, b.id.Seq) })
	for _, j := range jobs {
		driver := j.driver.Load()
		j.guestsMu.Lock()
		guests := make([]*guest, 0, len(j.guests))
		for g := range j.guests {
			guests = append(guests, g)
		}
		j.guestsMu.Unlock()
		for _, g := range guests {
			kind, name := clientwire.HolderSandbox, ""
			switch t := runs[g]; {
			case g.client != nil:
				kind = clientwire.HolderClient
				h.ofClient(g.client, j)
			case g == driver:
				kind = clientwire.HolderDriver
			case t != nil && t.makes != nil:
				kind, name = clientwire.HolderActor, t.name
			case t != nil:
				kind, name = clientwire.HolderTask, t.name
			default:
				if f := g.last.Load(); f != nil {
					name = f.name // which left what is held
				}
			}
			var mine []*objectstore.Stream
			g.handles.Walk(func(_ uint32, r objectstore.Ref, since uint32) {
				switch r := r.(type) {
				case *objectstore.Object:
					h.add(r.ID(), kind, name, j.number(), since)
				case *objectstore.Stream:
					mine = append(mine, r)
				}
			})
			for _, st := range mine {
				ofStream(st)
			}
		}
	}
	return jobs
}

// ofTask notes what a task holds that has not ended.
func (h *holders) ofTask(t *task) {
	h.task[t.id.Seq] = t.name
	if t.group != nil {
		h.add(t.group.ID(), clientwire.HolderArgument, t.name, t.job.number(), noTime)
	}
	for i := range t.args {
		if o := t.args[i].object; o != nil {
			h.add(o.ID(), clientwire.HolderArgument, t.name, t.job.number(), noTime)
		}
	}
	for _, o := range t.results {
		h.add(o.ID(), clientwire.HolderResult, t.name, t.job.number(), noTime)
	}
}

// ofClient notes what a client waits for.
func (h *holders) ofClient(c *client, j *job) {
	c.mu.Lock()
	for _, w := range c.watches {
		if o := w.answer.object; o != nil && !w.done.Load() {
			h.add(o.ID(), clientwire.HolderClient, "reads", j.number(), noTime)
		}
	}
	c.mu.Unlock()
	c.out.Lock()
	defer c.out.Unlock()
	for p := range c.out.later {
		h.add(p.object.ID(), clientwire.HolderClient, "puts", j.number(), noTime)
	}
}

// reachable returns the objects that somebody can get at: those that something
// other than a value holds, and what their values name.
func (h *holders) reachable(entries []objectstore.Entry) map[wray.ID]bool {
	byID := make(map[wray.ID]*objectstore.Entry, len(entries))
	live := map[wray.ID]bool{}
	var todo []wray.ID
	for i := range entries {
		e := &entries[i]
		byID[e.ID] = e
		nested := int64(0)
		for _, l := range h.of[e.ID] {
			if l.Kind == clientwire.HolderValue {
				nested += l.Count
			}
		}
		if e.Refs > nested || e.Windows > 0 {
			live[e.ID] = true
			todo = append(todo, e.ID)
		}
	}
	for len(todo) > 0 {
		e := byID[todo[len(todo)-1]]
		todo = todo[:len(todo)-1]
		if e == nil {
			continue
		}
		for _, n := range e.Nested {
			if !live[n] {
				live[n] = true
				todo = append(todo, n)
			}
		}
	}
	return live
}

// leak says why nobody will use an object again, or nothing.
func leak(e *objectstore.Entry, live map[wray.ID]bool, jobs []*job, held []clientwire.Holder) string {
	if !live[e.ID] {
		return "only values that nobody can reach name it"
	}
	running := func(number uint32) bool {
		return slices.ContainsFunc(jobs, func(j *job) bool { return j.number() == number })
	}
	if e.Origin == 0 || running(jobNumber(e.Origin)) {
		return ""
	}
	for _, l := range held {
		if l.Kind == clientwire.HolderWindow || l.Job != 0 && running(l.Job) {
			return ""
		}
	}
	return "its job has ended"
}

func encodingName(e abi.Encoding) string {
	switch e {
	case abi.EncodingRaw:
		return "raw"
	case abi.EncodingCBOR:
		return "cbor"
	case abi.EncodingNumeric:
		return "numeric"
	case abi.EncodingArrow:
		return "arrow"
	case abi.EncodingError:
		return "error"
	}
	return ""
}
