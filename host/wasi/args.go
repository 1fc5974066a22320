package wasi

// stringsSize returns how many bytes list takes with its zero bytes. Reset has
// checked that it is at most MaxArgs.
func stringsSize(list []string) uint64 {
	n := uint64(0)
	for _, s := range list {
		n += uint64(len(s)) + 1
	}
	return n
}

func (s *System) putSizes(mem memory, list []string, count, size uint32) Errno {
	if !mem.has(count, sizePtr) || !mem.has(size, sizePtr) {
		return EFAULT
	}
	mem.put32(count, uint32(len(list)))
	mem.put32(size, uint32(stringsSize(list)))
	return Success
}

func (s *System) putStrings(mem memory, list []string, ptrs, buf uint32) Errno {
	size := stringsSize(list)
	if !mem.has(ptrs, uint64(len(list))*sizePtr) || !mem.has(buf, size) {
		return EFAULT
	}
	for i, str := range list {
		mem.put32(ptrs+uint32(i)*sizePtr, buf)
		copy(mem[buf:], str)
		mem[buf+uint32(len(str))] = 0
		buf += uint32(len(str)) + 1
	}
	s.moved += size
	return Success
}

func argsSizesGet(s *System, mem memory, a []uint64) Errno {
	return s.putSizes(mem, s.cfg.Args, uint32(a[0]), uint32(a[1]))
}

func argsGet(s *System, mem memory, a []uint64) Errno {
	return s.putStrings(mem, s.cfg.Args, uint32(a[0]), uint32(a[1]))
}

func environSizesGet(s *System, mem memory, a []uint64) Errno {
	return s.putSizes(mem, s.cfg.Env, uint32(a[0]), uint32(a[1]))
}

func environGet(s *System, mem memory, a []uint64) Errno {
	return s.putStrings(mem, s.cfg.Env, uint32(a[0]), uint32(a[1]))
}
