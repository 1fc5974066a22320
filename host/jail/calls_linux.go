package jail

import "golang.org/x/sys/unix"

const all32 = ^uint32(0)

// is holds when an int argument has one value.
func is(arg int, value uint32) check { return check{arg: arg, mask: all32, equal: value, wide: true} }

// word holds when a whole argument has one value.
func word(arg int, value uint32) check { return check{arg: arg, mask: all32, equal: value} }

// unset holds when none of bits is set in an int argument.
func unset(arg int, bits uint32) check { return check{arg: arg, mask: bits, wide: true} }

// Flags of the threads that Go makes (runtime/os_linux.go; on amd64 with
// CLONE_SETTLS, sys_linux_amd64.s) and that glibc makes in builds with cgo
// (nptl/pthread_create.c). All have CLONE_THREAD, so none makes a process.
const (
	cloneGo = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND |
		unix.CLONE_SYSVSEM | unix.CLONE_THREAD
	cloneGoTLS = cloneGo | unix.CLONE_SETTLS
	cloneC     = cloneGoTLS | unix.CLONE_PARENT_SETTID | unix.CLONE_CHILD_CLEARTID
)

// writeFlags are the open flags that make or change a file.
const writeFlags = unix.O_WRONLY | unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC | unix.O_APPEND | (unix.O_TMPFILE &^ unix.O_DIRECTORY)

// memfdFlags leaves out huge pages, which are scarce and shared by all.
const memfdFlags uint32 = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING | unix.MFD_NOEXEC_SEAL | unix.MFD_EXEC

// workerCalls is the allow-list of a worker: what a Go runtime needs with its
// netpoller, what wazero needs to load compiled code, and shared memory.
// There is no socket, connect, accept, execve, fork, kill, ptrace, mount, bpf,
// io_uring, perf, keyctl, userfaultfd, process_vm_*, prctl, chdir, chmod, any
// ioctl but one,
// unlink, link, rename, mkdir.
func workerCalls(pid int) []rule {
	rules := []rule{
		// Threads and signals of this process.
		allow(unix.SYS_CLONE, []check{word(0, cloneGo)}, []check{word(0, cloneGoTLS)}, []check{word(0, cloneC)}),
		{nr: unix.SYS_CLONE3, errno: unix.ENOSYS}, // its flags lie in memory; glibc falls back to clone
		allow(unix.SYS_EXIT), allow(unix.SYS_EXIT_GROUP),
		allow(unix.SYS_TGKILL, []check{is(0, uint32(pid))}),
		allow(unix.SYS_RT_SIGACTION), allow(unix.SYS_RT_SIGPROCMASK), allow(unix.SYS_RT_SIGRETURN),
		allow(unix.SYS_SIGALTSTACK), allow(unix.SYS_RESTART_SYSCALL),
		allow(unix.SYS_FUTEX), allow(unix.SYS_SCHED_YIELD), allow(unix.SYS_SCHED_GETAFFINITY),
		allow(unix.SYS_GETPID), allow(unix.SYS_GETTID), allow(unix.SYS_GETRUSAGE),
		// Time and randomness.
		allow(unix.SYS_NANOSLEEP), allow(unix.SYS_CLOCK_NANOSLEEP), allow(unix.SYS_CLOCK_GETTIME),
		allow(unix.SYS_CLOCK_GETRES), allow(unix.SYS_GETTIMEOFDAY), allow(unix.SYS_GETRANDOM),
		// Memory. Nothing is writable and executable at once; wazero writes code
		// and then makes it read and execute.
		allow(unix.SYS_MMAP, []check{unset(2, unix.PROT_EXEC)}),
		allow(unix.SYS_MPROTECT, []check{unset(2, unix.PROT_EXEC)}, []check{is(2, unix.PROT_READ|unix.PROT_EXEC)}),
		allow(unix.SYS_MUNMAP), allow(unix.SYS_MADVISE),
		allow(unix.SYS_MEMFD_CREATE, []check{unset(1, ^memfdFlags)}), allow(unix.SYS_FTRUNCATE), allow(unix.SYS_FALLOCATE),
		// Descriptors it has, and files it may read (landlock says which).
		allow(unix.SYS_READ), allow(unix.SYS_WRITE), allow(unix.SYS_READV), allow(unix.SYS_WRITEV),
		allow(unix.SYS_PREAD64), allow(unix.SYS_PWRITE64), allow(unix.SYS_LSEEK), allow(unix.SYS_FSYNC), allow(unix.SYS_FDATASYNC),
		allow(unix.SYS_CLOSE), allow(unix.SYS_FSTAT), allow(sysNewfstatat), allow(unix.SYS_GETDENTS64),
		allow(unix.SYS_OPENAT, []check{unset(2, writeFlags)}),
		allow(unix.SYS_FCNTL, fcntlCommands()...),
		// Advice about pages of files that it has open. What sets their times is not
		// here: it needs no descriptor that may write.
		allow(unix.SYS_FADVISE64),
		// What a sandbox has written to, from the page map that the process opened
		// before. It says nothing but that.
		allow(unix.SYS_IOCTL, []check{is(1, pagemapScan)}),
		allow(unix.SYS_RECVMSG), allow(unix.SYS_SENDMSG),
		// The netpoller.
		allow(unix.SYS_EPOLL_CREATE1), allow(unix.SYS_EPOLL_CTL), allow(unix.SYS_EPOLL_PWAIT), allow(unix.SYS_EVENTFD2),
	}
	return append(rules, cgoCalls()...)
}

// pagemapScan is PAGEMAP_SCAN, _IOWR('f', 16, struct pm_scan_arg).
const pagemapScan = 0xc0606610

// fcntlCommands leaves out F_SETOWN and F_SETSIG, which aim signals at other
// processes, and leases and locks.
func fcntlCommands() (any [][]check) {
	for _, cmd := range []uint32{
		unix.F_DUPFD_CLOEXEC, unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL,
		unix.F_ADD_SEALS, unix.F_GET_SEALS,
	} {
		any = append(any, []check{is(1, cmd)})
	}
	return any
}

// compilerCalls is the allow-list of a compiler: a worker's, and what writing a
// directory needs. Landlock says which directory.
func compilerCalls(pid int) []rule {
	rules := workerCalls(pid)
	for i := range rules {
		if rules[i].nr == unix.SYS_OPENAT {
			rules[i].any = nil
		}
	}
	return append(rules,
		allow(unix.SYS_RENAMEAT), allow(unix.SYS_UNLINKAT), allow(unix.SYS_MKDIRAT))
}
