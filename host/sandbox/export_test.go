package sandbox

// Turns returns how many sandboxes of the module's engine have a turn, and how
// many wait for one.
func (m *Module) Turns() (have, wait int) {
	g := m.engine.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.running, int(g.waiting.Load())
}

// Told is what says that the guest knows that it waits for nothing.
func (sb *Sandbox) Told() *bool { return &sb.told }

// Globals are the guest's globals that a state has.
func Globals(sb *Sandbox) []uint64 {
	list := make([]uint64, len(sb.globals))
	for i, g := range sb.globals {
		list[i] = g.Get()
	}
	return list
}

// SetGlobal sets one of them.
func SetGlobal(sb *Sandbox, i int, v uint64) { sb.globals[i].Set(v) }
