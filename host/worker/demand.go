package worker

import (
	"fmt"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/scheduler"
)

// KindDemand asks a worker what waits there for room, by shape, and what it has
// free; and tells it which nodes there can be more of.
const KindDemand link.Kind = 19 // node: request DemandBody, reply DemandsBody

// DemandBody asks for demands.
type DemandBody struct {
	Most int `cbor:"1,keyasint"` // shapes
	// Set has Promises take the place of those before.
	Set      bool          `cbor:"2,keyasint,omitempty"`
	Promises []PromiseBody `cbor:"3,keyasint,omitempty"`
}

// PromiseBody is a kind of nodes of which there can be more.
type PromiseBody struct {
	Name   string       `cbor:"1,keyasint"`
	CPU    int64        `cbor:"2,keyasint"` // wray.CPU
	Memory int64        `cbor:"3,keyasint"`
	Custom []CustomBody `cbor:"4,keyasint,omitempty"`
	Labels []LabelBody  `cbor:"5,keyasint,omitempty"`
}

// DemandsBody is what waits on a worker, the shapes with the most tasks first,
// and what it has free.
type DemandsBody struct {
	Shapes []ShapeBody  `cbor:"1,keyasint,omitempty"`
	CPU    int64        `cbor:"2,keyasint"` // wray.CPU
	Memory int64        `cbor:"3,keyasint"`
	Custom []CustomBody `cbor:"4,keyasint,omitempty"`
	Tasks  int64        `cbor:"5,keyasint"` // that run or are blocked here, and actors
}

// ShapeBody is tasks of one shape that wait.
type ShapeBody struct {
	CPU    int64        `cbor:"1,keyasint"` // wray.CPU
	Memory int64        `cbor:"2,keyasint"`
	Custom []CustomBody `cbor:"3,keyasint,omitempty"`
	Place  string       `cbor:"4,keyasint,omitempty"` // as wray.Placement.Append writes it
	Count  int64        `cbor:"5,keyasint"`
}

// maxShapes bounds the shapes of an answer.
const maxShapes = 256

// Demand says what waits for room, and what is free.
func (w *Worker) Demand(q DemandBody) (DemandsBody, error) {
	var b DemandsBody
	if q.Set {
		list := make([]scheduler.Promise, 0, len(q.Promises))
		for _, p := range q.Promises {
			list = append(list, scheduler.Promise{Node: scheduler.Node{Name: p.Name, Capacity: wray.Resources{CPU: wray.CPU(p.CPU), Memory: p.Memory},
				Custom: customOf(p.Custom), Labels: labelsOf(p.Labels)}})
		}
		var err error
		w.step(nil, func(s *scheduler.Scheduler) { err = s.Promised(w.now(), list) })
		if err != nil {
			return b, fmt.Errorf("take promises: %w", err)
		}
	}
	w.mu.Lock()
	demands := w.sched.Demands(min(max(q.Most, 1), maxShapes))
	free, custom, tasks := w.sched.Room()
	w.mu.Unlock()
	b.CPU, b.Memory, b.Custom, b.Tasks = int64(free.CPU), free.Memory, CustomBodies(custom), int64(tasks)
	for _, d := range demands {
		place := wray.Placement{Where: d.Strategy.Where}
		switch d.Strategy.Kind {
		case scheduler.Spread:
			place.Spread = true
		case scheduler.OnNode:
			place.Node, place.Soft = d.Strategy.Node, d.Strategy.Soft
		}
		b.Shapes = append(b.Shapes, ShapeBody{CPU: int64(d.Resources.CPU), Memory: d.Resources.Memory, Custom: CustomBodies(d.Custom),
			Place: string(place.Append(nil)), Count: int64(d.Count)})
	}
	return b, nil
}

func (s *server) demand(m link.Message) (link.Message, error) {
	m.CloseFiles()
	var b DemandBody
	if err := link.Unmarshal(m.Body, &b); err != nil {
		return link.Message{}, err
	}
	w, err := s.started()
	if err != nil {
		return link.Message{}, err
	}
	d, err := w.Demand(b)
	if err != nil {
		return link.Message{}, err
	}
	return reply(d)
}
