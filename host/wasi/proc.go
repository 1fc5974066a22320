package wasi

// procExit is the one function without a result.
func procExit(s *System, _ []byte, stack []uint64) {
	if !s.live {
		panic("BUG: wasi: proc_exit in a System that is closed")
	}
	s.exit(uint32(stack[0]))
}

func (s *System) exit(code uint32) {
	s.cfg.Exit(code)
	panic("BUG: wasi: Config.Exit returned")
}

// Signal numbers that do not end a process, and the last one.
const (
	sigNone  = 0
	sigPipe  = 13
	sigChld  = 16
	sigCont  = 17
	sigStop  = 18
	sigTstp  = 19
	sigTtin  = 20
	sigTtou  = 21
	sigUrg   = 22
	sigWinch = 27
	sigLast  = 30
)

// procRaise does what the signal does by default, as the specification lists
// it. A guest cannot stop itself; one that ends itself exits as a shell would
// report it, with 128 and the signal's number.
func procRaise(s *System, _ memory, a []uint64) Errno {
	switch sig := uint32(a[0]); {
	case sig > sigLast:
		return EINVAL
	case sig == sigNone || sig == sigPipe || sig == sigChld || sig == sigCont || sig == sigUrg || sig == sigWinch:
		return Success
	case sig >= sigStop && sig <= sigTtou:
		return ENOTSUP
	default:
		s.exit(128 + sig)
		return Success
	}
}

func schedYield(s *System, _ memory, _ []uint64) Errno {
	s.yield()
	return Success
}

func (s *System) yield() {
	if s.cfg.Yield != nil {
		s.cfg.Yield()
	}
}

// randomChunk is how much is drawn between two yields: about a millisecond.
const randomChunk = 1 << 20

func randomGet(s *System, mem memory, a []uint64) Errno {
	n := uint32(a[1])
	if uint64(n) > uint64(s.cfg.Limits.MaxRandom) {
		return EINVAL
	}
	b, ok := mem.slice(uint32(a[0]), uint64(n))
	if !ok {
		return EFAULT
	}
	s.moved += uint64(n)
	for len(b) > randomChunk {
		s.cfg.Random(b[:randomChunk])
		b = b[randomChunk:]
		s.yield()
	}
	s.cfg.Random(b)
	return Success
}

// sockFails answers the functions on sockets, which no descriptor is.
func sockFails(s *System, _ memory, a []uint64) Errno {
	if _, e := s.get(a[0]); e != Success {
		return e
	}
	return ENOTSOCK
}
