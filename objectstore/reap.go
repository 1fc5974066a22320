package objectstore

// Bounds of the work one Release does, in objects and references: a chain of a
// million objects must not hold up the guest's call that dropped its head.
const (
	reapInline = 1 << 12
	reapBatch  = 1 << 16 // of the goroutine that does the rest, between grants
)

// reap frees o, whose last reference is gone, and all that goes with it.
func (s *Store) reap(o *Object) {
	rest := s.reapSome(o, reapInline)
	if rest != nil && !s.start(func() { s.reapAll(rest) }) {
		s.reapAll(rest) // the store is closing and starts nothing
	}
	s.grant()
}

func (s *Store) reapAll(list *Object) {
	for list != nil {
		list = s.reapSome(list, reapBatch)
		s.grant()
	}
}

// reapSome frees objects of the list, and those that have no reference left
// because of it, until it has done budget steps. It returns what is left to
// do. The list is linked through the objects themselves, so depth costs
// neither stack nor memory; nobody else has a reference to any of them.
func (s *Store) reapSome(list *Object, budget int) *Object {
	for ; list != nil && budget > 0; budget-- {
		o := list
		if n := len(o.table); n > 0 {
			r := o.table[n-1]
			o.table[n-1] = nil
			o.table = o.table[:n-1]
			switch left := r.refs.Add(-1); {
			case left == 0:
				r.dying, list = list, r
			case left < 0:
				panic("BUG: objectstore: reference to a released object " + r.id.String())
			}
			continue
		}
		list, o.dying = o.dying, nil
		s.index.remove(o)
		if a := o.attached; a != nil {
			o.attached = nil
			a.Unreferenced()
		}
		if o.residence != nil {
			s.leave(o)
		}
		b := body{payload: o.payload, segment: o.segment, charge: o.charge}
		o.payload, o.segment, o.table = nil, nil, nil
		s.giveBackBody(b)
		if r := o.residence; r != nil && r.source != nil {
			r.source.Drop() // last, for who hears of it may count what is left
		}
	}
	return list
}
