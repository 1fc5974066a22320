package wasi

import "math"

// Sizes of what functions move, for MaxPayload.
const (
	sizePtr      = 4
	sizeTime     = 8
	sizeFdstat   = 24
	sizeFilestat = 64
	sizePrestat  = 8
)

// Functions returns the table of all functions, in alphabetical order. The
// caller owns the slice.
func Functions() []Func {
	rows := make([]Func, 0, 46)
	add := func(name, params string, c Capability, payload int64, cost Cost, b Blocking, f call) {
		rows = append(rows, Func{
			Name: name, Params: params, Result: true, Call: bind(len(params), f),
			Capability: c, MaxPayload: payload, Cost: cost, Blocks: b,
		})
	}
	// Costs: a table lookup and a few stores; a copy at a few GiB/s; a system
	// call on an open file; a path resolved element by element.
	var (
		cheap   = Cost{Base: 50}
		copying = Cost{Base: 100, PerKiB: 250}
		disk    = Cost{Base: 1_000}
		diskIO  = Cost{Base: 1_000, PerKiB: 250}
		lookup  = Cost{Base: 20_000}
		random  = Cost{Base: 500, PerKiB: 1_000}
		poll    = Cost{Base: 200, PerKiB: 2_000}
	)
	const rw = DefaultMaxReadWrite
	const path2 = 2 * MaxPath

	add("args_get", "ii", CapArgs, MaxArgs, copying, NeverBlocks, argsGet)
	add("args_sizes_get", "ii", CapArgs, 2*sizePtr, cheap, NeverBlocks, argsSizesGet)
	add("clock_res_get", "ii", CapClock, sizeTime, cheap, NeverBlocks, clockResGet)
	add("clock_time_get", "iIi", CapClock, sizeTime, cheap, NeverBlocks, clockTimeGet)
	add("environ_get", "ii", CapArgs, MaxArgs, copying, NeverBlocks, environGet)
	add("environ_sizes_get", "ii", CapArgs, 2*sizePtr, cheap, NeverBlocks, environSizesGet)
	add("fd_advise", "iIIi", CapFiles, NoPayload, disk, BlocksOnDisk, fdAdvise)
	add("fd_allocate", "iII", CapFiles, NoPayload, disk, BlocksOnDisk, fdAllocate)
	add("fd_close", "i", CapFiles, NoPayload, disk, BlocksOnDisk, fdClose)
	add("fd_datasync", "i", CapFiles, NoPayload, disk, BlocksOnDisk, fdDatasync)
	add("fd_fdstat_get", "ii", CapFiles, sizeFdstat, cheap, NeverBlocks, fdFdstatGet)
	add("fd_fdstat_set_flags", "ii", CapFiles, NoPayload, cheap, NeverBlocks, fdFdstatSetFlags)
	add("fd_fdstat_set_rights", "iII", CapFiles, NoPayload, cheap, NeverBlocks, fdFdstatSetRights)
	add("fd_filestat_get", "ii", CapFiles, sizeFilestat, disk, BlocksOnDisk, fdFilestatGet)
	add("fd_filestat_set_size", "iI", CapFiles, NoPayload, disk, BlocksOnDisk, fdFilestatSetSize)
	add("fd_filestat_set_times", "iIIi", CapFiles, NoPayload, disk, BlocksOnDisk, fdFilestatSetTimes)
	add("fd_pread", "iiiIi", CapFiles, rw, diskIO, BlocksOnDisk, fdPread)
	add("fd_prestat_dir_name", "iii", CapDirs, MaxPath, copying, NeverBlocks, fdPrestatDirName)
	add("fd_prestat_get", "ii", CapDirs, sizePrestat, cheap, NeverBlocks, fdPrestatGet)
	add("fd_pwrite", "iiiIi", CapFiles, rw, diskIO, BlocksOnDisk, fdPwrite)
	add("fd_read", "iiii", CapFiles, rw, diskIO, BlocksInPoll, fdRead)
	// A readdir cannot be cut short: less than the buffer means the end.
	add("fd_readdir", "iiiIi", CapFiles, math.MaxUint32, diskIO, BlocksOnDisk, fdReaddir)
	add("fd_renumber", "ii", CapFiles, NoPayload, disk, BlocksOnDisk, fdRenumber)
	add("fd_seek", "iIii", CapFiles, sizeTime, disk, NeverBlocks, fdSeek)
	add("fd_sync", "i", CapFiles, NoPayload, disk, BlocksOnDisk, fdSync)
	add("fd_tell", "ii", CapFiles, sizeTime, disk, NeverBlocks, fdTell)
	add("fd_write", "iiii", CapFiles, rw, diskIO, BlocksInPoll, fdWrite)
	add("path_create_directory", "iii", CapDirs, MaxPath, lookup, BlocksOnDisk, pathCreateDirectory)
	add("path_filestat_get", "iiiii", CapDirs, MaxPath+sizeFilestat, lookup, BlocksOnDisk, pathFilestatGet)
	add("path_filestat_set_times", "iiiiIIi", CapDirs, MaxPath, lookup, BlocksOnDisk, pathFilestatSetTimes)
	add("path_link", "iiiiiii", CapDirs, path2, lookup, BlocksOnDisk, pathLink)
	add("path_open", "iiiiiIIii", CapDirs, MaxPath, lookup, BlocksOnDisk, pathOpen)
	add("path_readlink", "iiiiii", CapDirs, path2, lookup, BlocksOnDisk, pathReadlink)
	add("path_remove_directory", "iii", CapDirs, MaxPath, lookup, BlocksOnDisk, pathRemoveDirectory)
	add("path_rename", "iiiiii", CapDirs, path2, lookup, BlocksOnDisk, pathRename)
	add("path_symlink", "iiiii", CapDirs, path2, lookup, BlocksOnDisk, pathSymlink)
	add("path_unlink_file", "iii", CapDirs, MaxPath, lookup, BlocksOnDisk, pathUnlinkFile)
	add("poll_oneoff", "iiii", CapPoll, DefaultMaxSubscriptions*(sizeSubscription+sizeEvent), poll, BlocksInPoll, pollOneoff)
	rows = append(rows, Func{ // the only one without a result
		Name: "proc_exit", Params: "i", Call: procExit,
		Capability: CapExit, MaxPayload: NoPayload, Cost: cheap, Blocks: NeverBlocks,
	})
	add("proc_raise", "i", CapExit, NoPayload, cheap, NeverBlocks, procRaise)
	add("random_get", "ii", CapRandom, DefaultMaxRandom, random, NeverBlocks, randomGet)
	add("sched_yield", "", CapYield, NoPayload, cheap, NeverBlocks, schedYield)
	add("sock_accept", "iii", CapNone, NoPayload, cheap, NeverBlocks, sockFails)
	add("sock_recv", "iiiiii", CapNone, NoPayload, cheap, NeverBlocks, sockFails)
	add("sock_send", "iiiii", CapNone, NoPayload, cheap, NeverBlocks, sockFails)
	add("sock_shutdown", "ii", CapNone, NoPayload, cheap, NeverBlocks, sockFails)
	return rows
}
