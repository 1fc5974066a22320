package wasi

// Clock numbers.
const (
	clockRealtime = iota
	clockMonotonic
	clockProcessCPU
	clockThreadCPU
)

// coarse rounds t down to the clocks' resolution.
func (s *System) coarse(t int64) int64 {
	t -= t % s.cfg.Resolution
	return max(t, 0)
}

// mono returns the guest's monotonic time. It never goes back, whatever the
// host's clock does.
func (s *System) mono() int64 {
	s.monoLast = max(s.monoLast, s.coarse(s.cfg.MonoClock()))
	return s.monoLast
}

// ClockRead reports whether the guest has read its monotonic clock since it was
// last asked, or Reset: without that it can have set no timer.
func (s *System) ClockRead() bool {
	was := s.clockRead
	s.clockRead = false
	return was
}

func (s *System) wall() int64 { return s.coarse(s.cfg.WallClock()) }

func (s *System) cpu() int64 {
	if s.cfg.CPUClock != nil {
		return s.coarse(s.cfg.CPUClock())
	}
	return s.coarse(s.cfg.MonoClock() - s.monoStart)
}

func clockResGet(s *System, mem memory, a []uint64) Errno {
	id, out := uint32(a[0]), uint32(a[1])
	if id > clockThreadCPU {
		return EINVAL
	}
	if !mem.has(out, sizeTime) {
		return EFAULT
	}
	mem.put64(out, uint64(s.cfg.Resolution))
	return Success
}

func clockTimeGet(s *System, mem memory, a []uint64) Errno {
	id, out := uint32(a[0]), uint32(a[2])
	if !mem.has(out, sizeTime) {
		return EFAULT
	}
	var t int64
	switch id {
	case clockRealtime:
		t = s.wall()
	case clockMonotonic:
		t = s.mono()
		s.clockRead = true
	case clockProcessCPU, clockThreadCPU:
		t = s.cpu()
	default:
		return EINVAL
	}
	mem.put64(out, uint64(t))
	return Success
}
