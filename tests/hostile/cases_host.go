package hostile

import (
	"strings"

	"github.com/wray-project/wray"
)

// hostCallCases abuse the host's functions by calling them rightly, too often
// or with too much. Time that passes in a host call is not the guest's, so a
// host that counts instructions alone lets them go on for ever.
func hostCallCases() []Case {
	spin := func(name, doc string, build func() []byte) Case {
		return Case{Name: "host-" + name, Wasm: build, Want: wray.CodeTimeout, Or: []wray.Code{wray.CodeLimitExceeded}, Doc: doc}
	}
	harmless := func(name, doc string, build func() []byte) Case {
		return Case{Name: "host-" + name, Wasm: build, Want: wray.CodeOK, Doc: doc}
	}
	l := manyLocals(2)
	// flood writes n bytes to fd for ever.
	flood := func(fd, n int32, text string) func() []byte {
		return start(nil, func(b *builder) []byte {
			write := b.wasi("fd_write", "iiii")
			if text != "" {
				b.data(64, text)
			}
			return cat(dropped(i32c(1023), memGrow()),
				i32c(0), i32c(64), i32store(0), i32c(4), i32c(n), i32store(0),
				forever(dropped(i32c(fd), i32c(0), i32c(1), i32c(16), call(write))))
		})
	}
	// subscribe writes a subscription to the relative clock id at address 0.
	subscribe := func(id int32, ns int64) []byte {
		return cat(i32c(0), i64c(0), 0x37, 3, 8, i32c(16), i32c(id), i32store(0), i32c(24), i64c(ns), 0x37, 3, 0, i32c(40), i32c(0), i32store(0))
	}
	return []Case{
		spin("clock", "clock_time_get for ever: each call is short", start(nil, func(b *builder) []byte {
			return forever(dropped(i32c(1), i64c(1), i32c(0), call(b.wasi("clock_time_get", "iIi"))))
		})),
		spin("clock-unlooped", "clock_time_get at the bottom of a tree of calls", start(nil, func(b *builder) []byte {
			clock := b.wasi("clock_time_get", "iIi")
			for n := range uint32(60) {
				b.proc(nil, call(clock+n+2), call(clock+n+2))
			}
			b.proc(nil, dropped(i32c(1), i64c(1), i32c(0), call(clock)))
			return call(clock + 1)
		})),
		spin("yield", "sched_yield for ever", start(nil, func(b *builder) []byte {
			return forever(dropped(call(b.wasi("sched_yield", ""))))
		})),
		spin("random", "random_get of 64 MiB for ever: 150 ms of the host's time a call", start(nil, func(b *builder) []byte {
			random := b.wasi("random_get", "ii")
			return cat(dropped(i32c(1023), memGrow()), forever(dropped(i32c(0), i32c(64<<20), call(random))))
		})),
		spin("random-small", "random_get of 1 byte for ever", start(nil, func(b *builder) []byte {
			return forever(dropped(i32c(0), i32c(1), call(b.wasi("random_get", "ii"))))
		})),
		spin("args", "args_sizes_get for ever", start(nil, func(b *builder) []byte {
			return forever(dropped(i32c(0), i32c(8), call(b.wasi("args_sizes_get", "ii"))))
		})),
		spin("stdout", "64 KiB lines on stdout for ever", flood(1, 64<<10, strings.Repeat("flood\n", 1000))),
		spin("stderr", "64 KiB on stderr for ever", flood(2, 64<<10, "")),
		spin("stdout-line", "one line on stdout that never ends, 32 MiB at a time", flood(1, 32<<20, "")),
		spin("stdout-bytes", "single bytes on stdout for ever", flood(1, 1, "x")),
		spin("stdout-escapes", "escape sequences that rewrite a terminal", flood(1, 24, "\x1b]0;root\a\x1b[2J\x1b[31mok\r\n")),
		spin("stdout-vectors", "fd_write with a million vectors of the same 64 KiB for ever", start(l, func(b *builder) []byte {
			write := b.wasi("fd_write", "iiii")
			return cat(dropped(i32c(255), memGrow()),
				loop(get(0), i32c(0), i32store(0), get(0), i32c(65_536), i32store(4), get(0), i32c(8), opI32Add, 0x22, 0, i32c(8_000_000), opI32LtS, brIf(0)),
				forever(dropped(i32c(1), i32c(0), i32c(1_000_000), i32c(8_000_008), call(write))))
		})),
		spin("sleep", "poll_oneoff for an hour", start(nil, func(b *builder) []byte {
			return cat(subscribe(1, 3_600_000_000_000), dropped(i32c(0), i32c(1024), i32c(1), i32c(2048), call(b.wasi("poll_oneoff", "iiii"))))
		})),
		spin("sleep-wall", "poll_oneoff on the wall clock for 292 years", start(nil, func(b *builder) []byte {
			return cat(subscribe(0, 1<<63-1), dropped(i32c(0), i32c(1024), i32c(1), i32c(2048), call(b.wasi("poll_oneoff", "iiii"))))
		})),
		spin("sleep-none", "poll_oneoff of no time for ever", start(nil, func(b *builder) []byte {
			poll := b.wasi("poll_oneoff", "iiii")
			return cat(subscribe(1, 0), forever(dropped(i32c(0), i32c(1024), i32c(1), i32c(2048), call(poll))))
		})),
		harmless("poll-overflow", "poll_oneoff of 0x05555556 subscriptions: times 48 bytes is 32 in 32 bits, and a host that multiplies so reads far beyond", start(nil, func(b *builder) []byte {
			poll, exit := b.wasi("poll_oneoff", "iiii"), b.wasi("proc_exit", "i")
			return cat(i32c(0), i32c(1024), i32c(0x05555556), i32c(2048), call(poll), opI32Eqz, cond(i32c(Escaped), call(exit)))
		})),
		harmless("poll-overflow-events", "poll_oneoff of 0x08000001 subscriptions: times 32 bytes of events wraps too", start(nil, func(b *builder) []byte {
			poll, exit := b.wasi("poll_oneoff", "iiii"), b.wasi("proc_exit", "i")
			return cat(i32c(0), i32c(1024), i32c(0x08000001), i32c(2048), call(poll), opI32Eqz, cond(i32c(Escaped), call(exit)))
		})),
		harmless("poll-none", "poll_oneoff of nothing, which would wait for ever", start(nil, func(b *builder) []byte {
			poll, exit := b.wasi("poll_oneoff", "iiii"), b.wasi("proc_exit", "i")
			return cat(i32c(0), i32c(1024), i32c(0), i32c(2048), call(poll), opI32Eqz, cond(i32c(Escaped), call(exit)))
		})),
		spin("poll-many", "poll_oneoff with 300,000 timers of an hour", start(l, func(b *builder) []byte {
			poll := b.wasi("poll_oneoff", "iiii")
			return cat(dropped(i32c(511), memGrow()),
				loop(get(0), i32c(1), i32store(16), get(0), i64c(3_600_000_000_000), 0x37, 3, 24,
					get(0), i32c(48), opI32Add, 0x22, 0, i32c(300_000*48), opI32LtS, brIf(0)),
				forever(dropped(i32c(0), i32c(16<<20), i32c(300_000), i32c(8), call(poll))))
		})),
		harmless("clock-fine", "an unknown clock: there must be none finer than granted", start(nil, func(b *builder) []byte {
			clock, exit := b.wasi("clock_time_get", "iIi"), b.wasi("proc_exit", "i")
			return cat(i32c(9), i64c(1), i32c(0), call(clock), opI32Eqz, cond(i32c(Escaped), call(exit)))
		})),
		harmless("raise", "SIGKILL to itself, which must not reach the host's process", start(nil, func(b *builder) []byte {
			return dropped(i32c(9), call(b.wasi("proc_raise", "i")))
		})).or(wray.CodeTrap, wray.CodeExit),
		spin("files", "path_open for ever: 20,000 descriptors in 130 ms where nobody counts", start(l, func(b *builder) []byte {
			open := b.wasi("path_open", "iiiiiIIii")
			b.data(64, ".")
			return forever(dropped(i32c(3), i32c(0), i32c(64), i32c(1), i32c(0), i64c(0), i64c(0), i32c(0), i32c(128), call(open)))
		})),
		spin("tasks", "tasks that submit themselves for ever and keep every handle", start(l, func(b *builder) []byte {
			function := b.imp("wray_v1", "function", rep(5, i32), []byte{i32})
			submit := b.imp("wray_v1", "submit", rep(3, i32), []byte{i32})
			b.data(64, "_start")
			return cat(dropped(i32c(0), i32c(0), i32c(64), i32c(6), i32c(128), call(function)),
				i32c(144), i32c(256), i32store(0), i32c(148), i32c(3), i32store(0),
				forever(dropped(i32c(128), i32c(1), i32c(512), call(submit))))
		})),
		spin("objects", "objects put for ever and kept", start(l, func(b *builder) []byte {
			put := b.imp("wray_v1", "object_put", rep(2, i32), []byte{i32})
			return cat(dropped(i32c(15), memGrow()), i32c(0), i32c(1), i32store(0), i32c(12), i32c(1<<20), i32store(0),
				forever(dropped(i32c(0), i32c(64), call(put))))
		})).or(wray.CodeStoreFull),
		spin("object-puts", "objects of 128 MiB put and dropped for ever", start(l, func(b *builder) []byte {
			put, drop := b.imp("wray_v1", "object_put", rep(2, i32), []byte{i32}), b.imp("wray_v1", "handle_drop", rep(2, i32), []byte{i32})
			return cat(dropped(i32c(2048), memGrow()), i32c(0), i32c(1), i32store(0), i32c(12), i32c(128<<20), i32store(0),
				forever(cat(dropped(i32c(0), i32c(64), call(put)), dropped(i32c(64), i32c(1), call(drop)))))
		})).or(wray.CodeStoreFull),
		spin("object-gets", "an object of 100 MiB copied out for ever: 10 ms of the host's time a call", start(l, func(b *builder) []byte {
			put, get := b.imp("wray_v1", "object_put", rep(2, i32), []byte{i32}), b.imp("wray_v1", "object_get", rep(5, i32), []byte{i32})
			return cat(dropped(i32c(2048), memGrow()), i32c(0), i32c(1), i32store(0), i32c(12), i32c(100<<20), i32store(0),
				dropped(i32c(0), i32c(64), call(put)),
				forever(dropped(i32c(64), 0x28, 2, 0, i32c(1024), i32c(101<<20), i32c(128), i32c(0), call(get))))
		})).or(wray.CodeStoreFull),
		spin("drops", "handle_drop of 16 million handles that are none, for ever", start(l, func(b *builder) []byte {
			drop := b.imp("wray_v1", "handle_drop", rep(2, i32), []byte{i32})
			return cat(dropped(i32c(1023), memGrow()), forever(dropped(i32c(0), i32c(16<<20), call(drop))))
		})),
		spin("watches", "object_watch of the same pending result for ever, a thousand times a call", start(l, func(b *builder) []byte {
			function := b.imp("wray_v1", "function", rep(5, i32), []byte{i32})
			submit := b.imp("wray_v1", "submit", rep(3, i32), []byte{i32})
			watch := b.imp("wray_v1", "object_watch", rep(2, i32), []byte{i32})
			b.data(64, "_start")
			return cat(dropped(i32c(0), i32c(0), i32c(64), i32c(6), i32c(128), call(function)),
				i32c(144), i32c(256), i32store(0), i32c(148), i32c(1), i32store(0), // one result, its handle at 256
				dropped(i32c(128), i32c(1), i32c(512), call(submit)),
				loop(i32c(1024), get(0), opI32Add, i32c(256), 0x28, 2, 0, i32store(0), get(0), i32c(4), opI32Add, 0x22, 0, i32c(4000), opI32LtS, brIf(0)),
				forever(dropped(i32c(1024), i32c(1000), call(watch))))
		})),
		spin("submits", "4,096 tasks a call, each with a megabyte of an argument, for ever", start(l, func(b *builder) []byte {
			function := b.imp("wray_v1", "function", rep(5, i32), []byte{i32})
			submit := b.imp("wray_v1", "submit", rep(3, i32), []byte{i32})
			b.data(64, "_start")
			const specs, size, n = 1 << 16, 128, 4096 // zeros but for function, arguments and their number
			return cat(dropped(i32c(63), memGrow()), dropped(i32c(0), i32c(0), i32c(64), i32c(6), i32c(128), call(function)),
				i32c(208), i32c(1), i32store(0), i32c(220), i32c(1<<20), i32store(0), // an arg of kind value at 200
				loop(get(0), i32c(128), 0x28, 2, 0, i32store(specs), get(0), i32c(200), i32store(specs+8), get(0), i32c(1), i32store(specs+12),
					get(0), i32c(size), opI32Add, 0x22, 0, i32c(n*size), opI32LtS, brIf(0)),
				forever(dropped(i32c(specs), i32c(n), i32c(512), call(submit))))
		})).or(wray.CodeStoreFull),
		spin("random-all", "random_get of 4 GiB less one, of a buffer that is not there, for ever", start(nil, func(b *builder) []byte {
			return forever(dropped(i32c(0), i32c(-1), call(b.wasi("random_get", "ii"))))
		})),
	}
}

// or adds codes that are as good as Want.
func (c Case) or(codes ...wray.Code) Case {
	c.Or = append(c.Or, codes...)
	return c
}

// wasiFunctions are all of preview 1 but proc_exit, with their parameters.
var wasiFunctions = []struct{ name, params string }{
	{"args_get", "ii"}, {"args_sizes_get", "ii"}, {"environ_get", "ii"}, {"environ_sizes_get", "ii"},
	{"clock_res_get", "ii"}, {"clock_time_get", "iIi"},
	{"fd_advise", "iIIi"}, {"fd_allocate", "iII"}, {"fd_close", "i"}, {"fd_datasync", "i"},
	{"fd_fdstat_get", "ii"}, {"fd_fdstat_set_flags", "ii"}, {"fd_fdstat_set_rights", "iII"},
	{"fd_filestat_get", "ii"}, {"fd_filestat_set_size", "iI"}, {"fd_filestat_set_times", "iIIi"},
	{"fd_pread", "iiiIi"}, {"fd_prestat_get", "ii"}, {"fd_prestat_dir_name", "iii"}, {"fd_pwrite", "iiiIi"},
	{"fd_read", "iiii"}, {"fd_readdir", "iiiIi"}, {"fd_renumber", "ii"}, {"fd_seek", "iIii"},
	{"fd_sync", "i"}, {"fd_tell", "ii"}, {"fd_write", "iiii"},
	{"path_create_directory", "iii"}, {"path_filestat_get", "iiiii"}, {"path_filestat_set_times", "iiiiIIi"},
	{"path_link", "iiiiiii"}, {"path_open", "iiiiiIIii"}, {"path_readlink", "iiiiii"},
	{"path_remove_directory", "iii"}, {"path_rename", "iiiiii"}, {"path_symlink", "iiiii"}, {"path_unlink_file", "iii"},
	{"poll_oneoff", "iiii"}, {"proc_raise", "i"}, {"random_get", "ii"}, {"sched_yield", ""},
	{"sock_accept", "iii"}, {"sock_recv", "iiiiii"}, {"sock_send", "iiiii"}, {"sock_shutdown", "ii"},
}

// wrayFunctions are the functions of wray_v1, with their parameters.
var wrayFunctions = []struct{ name, params string }{
	{"declare", "iiii"}, {"function", "iiiii"}, {"submit", "iii"}, {"cancel", "i"}, {"task_input", "iii"},
	{"call_select", "I"}, {"call_end", ""}, {"task_return", "ii"}, {"task_fail", "i"}, {"task_yield", "i"},
	{"object_put", "ii"}, {"object_get", "iiiii"}, {"object_refs", "iii"}, {"object_watch", "ii"}, {"object_wait", "iiiIi"}, {"object_map", "iiiI"},
	{"object_unmap", "ii"}, {"handle_dup", "ii"}, {"handle_drop", "ii"}, {"stream_next", "iii"}, {"event_open", "i"},
	{"refusal", "iii"}, {"actor", "iii"}, {"kill", "ii"},
	{"task_next", "iiii"}, {"object_take", "iiiiii"},
	{"object_read", "iIiii"}, {"object_free", "i"}, {"object_stat", "iiii"}, {"buffer_open", "Ii"}, {"buffer_seal", "iiiIi"},
}

// garbageCases call each function of the host with addresses and lengths that
// make no sense. Each call must return, with an errno or without; none may
// trap, and none may reach memory that is not the guest's.
func garbageCases() []Case {
	garbage := func(module, name, params string, values []int64) Case {
		return Case{
			Name: "garbage-" + name,
			Want: wray.CodeOK,
			Doc:  "calls of " + module + "." + name + " with arguments that make no sense",
			Wasm: func() []byte {
				b := &builder{}
				var types []byte
				for _, c := range params {
					types = append(types, map[rune]byte{'i': i32, 'I': i64}[c])
				}
				f := b.imp(module, name, types, []byte{i32})
				b.mem(1)
				var body []byte
				for _, v := range values {
					for _, first := range []int64{v, 0, 1, 3} {
						for n, c := range params {
							x := v
							if n == 0 {
								x = first
							}
							if c == 'I' {
								body = append(body, i64c(x)...)
							} else {
								body = append(body, i32c(int32(x))...)
							}
						}
						body = append(body, dropped(call(f))...)
					}
				}
				b.export("_start", b.proc(nil, body))
				return b.bytes()
			},
		}
	}
	all := []int64{-1, -1 << 31, 1<<31 - 1, 65_530, 65_536, 0, 1}
	var cases []Case
	for _, f := range wasiFunctions {
		c := garbage("wasi_snapshot_preview1", f.name, f.params, all)
		if f.name == "proc_raise" {
			c.Or = []wray.Code{wray.CodeTrap, wray.CodeExit}
		}
		cases = append(cases, c)
	}
	for _, f := range wrayFunctions {
		values := all
		if f.name == "submit" {
			values = all[:5] // no specs of zeros: they may be valid
		}
		cases = append(cases, garbage("wray_v1", f.name, f.params, values))
	}
	return cases
}

// fileCases try to reach a file outside of the directories that were granted,
// from each descriptor that may be such a directory. They end well where
// nothing is granted, too.
func fileCases() []Case {
	// tries calls f(fd) for the first descriptors and exits with Escaped when
	// one call succeeds.
	tries := func(b *builder, exit uint32, f func(fd int32) []byte) []byte {
		var body []byte
		for fd := int32(3); fd < 8; fd++ {
			body = append(body, cat(f(fd), opI32Eqz, cond(i32c(Escaped), call(exit)))...)
		}
		return body
	}
	open := func(name, path, doc string) Case {
		return Case{Name: "path-" + name, Want: wray.CodeOK, Doc: doc, Wasm: start(nil, func(b *builder) []byte {
			f, exit := b.wasi("path_open", "iiiiiIIii"), b.wasi("proc_exit", "i")
			b.data(1024, path)
			return tries(b, exit, func(fd int32) []byte {
				return cat(i32c(fd), i32c(1), i32c(1024), i32c(int32(len(path))), i32c(0), i64c(2), i64c(2), i32c(0), i32c(0), call(f))
			})
		})}
	}
	// one calls a function of a directory and a path.
	one := func(name, fn, path, doc string) Case {
		return Case{Name: "path-" + name, Want: wray.CodeOK, Doc: doc, Wasm: start(nil, func(b *builder) []byte {
			f, exit := b.wasi(fn, "iii"), b.wasi("proc_exit", "i")
			b.data(1024, path)
			return tries(b, exit, func(fd int32) []byte {
				return cat(i32c(fd), i32c(1024), i32c(int32(len(path))), call(f))
			})
		})}
	}
	// through makes a symbolic link to target and then opens path behind it.
	through := func(name, target, path, doc string) Case {
		return Case{Name: "path-" + name, Want: wray.CodeOK, Doc: doc, Wasm: start(nil, func(b *builder) []byte {
			f, link, exit := b.wasi("path_open", "iiiiiIIii"), b.wasi("path_symlink", "iiiii"), b.wasi("proc_exit", "i")
			b.data(512, target)
			b.data(1024, "hostile-link")
			b.data(2048, path)
			return tries(b, exit, func(fd int32) []byte {
				return cat(
					dropped(i32c(512), i32c(int32(len(target))), i32c(fd), i32c(1024), i32c(12), call(link)),
					i32c(fd), i32c(1), i32c(2048), i32c(int32(len(path))), i32c(0), i64c(2), i64c(2), i32c(0), i32c(0), call(f))
			})
		})}
	}
	// move gives a file another name, by rename or by link.
	move := func(name, fn, params, from, to, doc string) Case {
		return Case{Name: "path-" + name, Want: wray.CodeOK, Doc: doc, Wasm: start(nil, func(b *builder) []byte {
			f, exit := b.wasi(fn, params), b.wasi("proc_exit", "i")
			b.data(512, from)
			b.data(1024, to)
			return tries(b, exit, func(fd int32) []byte {
				var flags []byte
				if fn == "path_link" {
					flags = i32c(1)
				}
				return cat(i32c(fd), flags, i32c(512), i32c(int32(len(from))), i32c(fd), i32c(1024), i32c(int32(len(to))), call(f))
			})
		})}
	}
	return []Case{
		open("dotdot", "..", "the directory above the granted one"),
		open("dotdot-file", "../../../../../../../../etc/passwd", "a file far above"),
		open("dotdot-inside", "a/../../b", "a path that leaves half way"),
		open("dotdot-slash", "../", "the directory above, with a slash behind it"),
		open("dotdot-dots", "./.././../.", "the directory above, with dots in between"),
		open("absolute", "/etc/passwd", "an absolute path"),
		open("absolute-root", "/", "the root"),
		open("absolute-slashes", "//etc//passwd", "an absolute path with more slashes"),
		open("proc", "/proc/self/root/etc/passwd", "the root through /proc"),
		open("nul", "..\x00/inside", "a path with a zero byte, at which the system stops reading"),
		open("backslash", "..\\..\\windows\\win.ini", "a path of another system"),
		open("device", "NUL", "a name that is a device on another system"),
		open("long", strings.Repeat("../", 15_000)+"etc/passwd", "a path of 45,000 bytes"),
		through("symlink", "../../../../../../../../etc/passwd", "hostile-link", "a link to a file above"),
		through("symlink-absolute", "/etc/passwd", "hostile-link", "a link to an absolute path"),
		through("symlink-directory", "/etc", "hostile-link/passwd", "a file behind a link to a directory"),
		through("symlink-slash", "..", "hostile-link/", "a link with a slash behind it, which os.Root followed before Go 1.26.5"),
		through("symlink-proc", "/proc/self/root", "hostile-link/etc/passwd", "the root through a link to /proc"),
		one("mkdir", "path_create_directory", "../hostile-directory", "a directory made above"),
		one("rmdir", "path_remove_directory", "../hostile-directory", "a directory removed above"),
		one("unlink", "path_unlink_file", "/etc/passwd", "a file of the host removed"),
		move("rename-out", "path_rename", "iiiiii", "hostile-link", "../hostile-file", "a file moved out"),
		move("rename-in", "path_rename", "iiiiii", "../../../../../../etc/passwd", "hostile-file", "a file moved in"),
		move("hardlink", "path_link", "iiiiiii", "../../../../../../etc/passwd", "hostile-file", "a second name for a file outside"),
	}
}
