package rewrite

import "strings"

// Subsections of the name section that are looked at.
const (
	namesModule    = 0
	namesFunctions = 1
	namesLocals    = 2
	namesLabels    = 3
	namesData      = 9
)

// indexName is a name that a pass gives to a function of its own.
type indexName struct {
	index uint32
	name  string
}

// renumbering says how the passes move indexes.
type renumbering struct {
	// Functions from firstMoved on move up by moved.
	firstMoved, moved uint32
	added             []indexName // functions that the passes added, ascending, new indexes
	// dataDropped says that data segments were taken out; their names go too.
	dataDropped bool
}

func (n *renumbering) function(i uint32) uint32 {
	if i >= n.firstMoved {
		return i + n.moved
	}
	return i
}

// customSections brings custom sections in line with the passes. codeMoved says
// that bodies changed; sections that hold offsets into them are dropped and
// returned. They would otherwise lead debuggers and stack traces astray.
func (m *module) customSections(n *renumbering, codeMoved bool) (dropped []string) {
	kept := m.customs[:0]
	for _, c := range m.customs {
		switch {
		case codeMoved && speaksOfCode(c.name):
			dropped = append(dropped, c.name)
			continue
		case c.name == "name":
			data, ok := n.names(c.data)
			if !ok {
				dropped = append(dropped, c.name)
				continue
			}
			c.data = data
		}
		kept = append(kept, c)
	}
	m.customs = kept
	return dropped
}

// speaksOfCode reports whether the custom section holds offsets in code.
func speaksOfCode(name string) bool {
	switch name {
	case "linking", "sourceMappingURL", "external_debug_info":
		return true
	}
	for _, prefix := range []string{".debug_", "reloc.", "metadata.code."} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// names rewrites a name section. ok is false for one that does not decode: it
// has no meaning then, but the engine would refuse the module for it.
func (n *renumbering) names(b []byte) (out []byte, ok bool) {
	r := &reader{b: b}
	out = make([]byte, 0, len(b)+len(b)/8+64)
	e := &encoder{out: out}
	for r.left() > 0 {
		id := r.byte()
		sub := &reader{b: r.bytes(r.u32())}
		if r.err != nil {
			return nil, false
		}
		switch id {
		case namesData:
			if n.dataDropped {
				continue
			}
		case namesFunctions, namesLocals, namesLabels:
			e.out = append(e.out, id)
			e.sized(func() { n.assoc(e, sub, id == namesFunctions) })
			if sub.err != nil || sub.left() > 0 {
				return nil, false
			}
			continue
		case namesModule:
			if sub.name("module name"); sub.err != nil || sub.left() > 0 {
				return nil, false
			}
		}
		e.out = append(e.out, id)
		e.bytes(sub.b)
	}
	return e.out, r.err == nil
}

// assoc rewrites a vector of (function, something): a name, or a vector of
// indexes and names, which stay.
func (n *renumbering) assoc(e *encoder, r *reader, names bool) {
	count := r.count("names", 2, maxTypes)
	added := n.added
	if !names {
		added = nil
	}
	e.u32(uint32(count + len(added)))
	put := func(below uint64) {
		for len(added) > 0 && uint64(added[0].index) < below {
			e.u32(added[0].index)
			e.out = appendName(e.out, added[0].name)
			added = added[1:]
		}
	}
	for i := 0; i < count && r.err == nil; i++ {
		f := n.function(r.u32())
		put(uint64(f))
		e.u32(f)
		if names {
			e.out = appendName(e.out, r.name("name"))
			continue
		}
		inner := r.count("names", 2, maxTypes)
		e.u32(uint32(inner))
		for j := 0; j < inner && r.err == nil; j++ {
			e.u32(r.u32())
			e.out = appendName(e.out, r.name("name"))
		}
	}
	put(1 << 32)
}
