package sandbox

// A Script has a sandbox's calls see the same each time they are run: what they
// see of time and chance, and what ends their waits, is the script's. All methods
// are called on the sandbox's goroutine.
type Script interface {
	// Clock returns what the guest's clocks show, both in nanoseconds, without
	// taking a step finer than clocks do.
	Clock() (wall, mono int64)
	Random(p []byte)
	// Step is called when the guest is about to wait, and again whenever it is
	// signalled meanwhile, without a turn of the gate. What it gives the guest
	// ends the wait. timeUp: a timer of the guest's ends it.
	Step() (timeUp bool)
	// TimeUp tells that a timer which is over at deadline, by Clock's mono, has
	// ended the wait.
	TimeUp(deadline int64)
}

// SetScript has the next calls follow s; nil: the world.
func (sb *Sandbox) SetScript(s Script) { sb.script = s }

// Monotonic returns what the guest's clock would show without a script.
func (sb *Sandbox) Monotonic() int64 { return sb.monotonic() }

// Advance puts the guest's clock forward, unless it is there already.
func (sb *Sandbox) Advance(mono int64) {
	if d := mono - sb.monotonic(); d > 0 {
		sb.monoBase += d
	}
}

func (sb *Sandbox) wallNow() int64 {
	if sb.script != nil {
		wall, _ := sb.script.Clock()
		return wall
	}
	return wallClock()
}

func (sb *Sandbox) monoNow() int64 {
	if sb.script != nil {
		_, mono := sb.script.Clock()
		return mono
	}
	return sb.monotonic()
}

func (sb *Sandbox) random(p []byte) {
	if sb.script != nil {
		sb.script.Random(p)
		return
	}
	randomBytes(p)
}

func (sb *Sandbox) cpuNow() int64 {
	if sb.script != nil {
		return sb.monoNow()
	}
	return sb.cpuClock()
}

// Random fills p with bytes that no guest can predict.
func Random(p []byte) { randomBytes(p) }

// Await waits, while no call is in flight, until ready, which is asked after each
// signal.
func (sb *Sandbox) Await(ready func() bool) {
	for !ready() {
		<-sb.wake
	}
}
