package stdin

//go:wasmimport wasi_snapshot_preview1 fd_fdstat_set_flags
func setFlags(fd, flags uint32) uint32

const nonblock = 4 // fdflags

func init() { setFlags(0, nonblock) }
