package jail

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A filter is a list of allowed system calls, each with the arguments it may
// have. It is assembled into a classic BPF program (seccomp(2)).
//
// The program is written here, with each call's checks in a block that ends in
// a verdict: the assembler of elastic/go-seccomp-bpf v1.6.0 falls from failed
// argument checks of one call into the next call's comparison with an argument
// still in the accumulator, where clone(10, …) passes as mprotect.
type rule struct {
	nr uintptr
	// any is the list of alternatives: the call is allowed if every check of
	// one of them holds. An empty list allows the call with any arguments.
	any [][]check
	// errno, if not zero, refuses the call with it in place of EPERM.
	errno unix.Errno
}

// check is a condition on one argument. Arguments are compared in their low 32
// bits, and the high ones must be zero unless wide: what the kernel takes as an
// int, it cuts off itself.
type check struct {
	arg   int
	mask  uint32 // applied before the comparison
	equal uint32
	wide  bool // ignore the high half, of an argument that the kernel takes as an int
}

func allow(nr uintptr, any ...[]check) rule { return rule{nr: nr, any: any} }

// Offsets in struct seccomp_data (linux/seccomp.h).
const (
	dataNr   = 0
	dataArch = 4
	dataArgs = 16
)

// verdict values of a seccomp filter (linux/seccomp.h).
const (
	retAllow = unix.SECCOMP_RET_ALLOW
	retErrno = unix.SECCOMP_RET_ERRNO
)

// x32Bit marks calls of amd64's x32 ABI, which have other numbers.
const x32Bit = 0x40000000

var auditArch = map[string]uint32{
	"amd64": unix.AUDIT_ARCH_X86_64,
	"arm64": unix.AUDIT_ARCH_AARCH64,
}

// assemble returns the program for rules: whatever they do not allow fails with
// EPERM.
func assemble(rules []rule) ([]bpf.RawInstruction, error) {
	arch, ok := auditArch[runtime.GOARCH]
	if !ok {
		return nil, fmt.Errorf("no system call filter for %s: %w", runtime.GOARCH, errors.ErrUnsupported)
	}
	refuse := bpf.RetConstant{Val: retErrno | uint32(unix.EPERM)}
	prog := []bpf.Instruction{
		bpf.LoadAbsolute{Off: dataArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: arch, SkipTrue: 1},
		// A call of another architecture's ABI has other numbers.
		bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS},
		bpf.LoadAbsolute{Off: dataNr, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: x32Bit, SkipFalse: 1},
		refuse,
	}
	var seen []uintptr
	for _, r := range rules {
		if slices.Contains(seen, r.nr) {
			return nil, fmt.Errorf("BUG: system call %d twice in the filter", r.nr)
		}
		seen = append(seen, r.nr)
		block := []bpf.Instruction{bpf.RetConstant{Val: retAllow}}
		switch {
		case r.errno != 0:
			block[0] = bpf.RetConstant{Val: retErrno | uint32(r.errno)}
		case len(r.any) > 0:
			block = nil
			for _, all := range r.any {
				block = append(block, alternative(all)...)
			}
			block = append(block, refuse)
		}
		if len(block) > 255 {
			return nil, fmt.Errorf("BUG: too many checks for system call %d", r.nr)
		}
		// The number is still in the accumulator: no block is ever left but by
		// its verdict.
		prog = append(prog, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(r.nr), SkipFalse: uint8(len(block))})
		prog = append(prog, block...)
	}
	prog = append(prog, refuse)
	return bpf.Assemble(prog)
}

// alternative returns code that allows the call if all checks hold, and falls
// through otherwise.
func alternative(all []check) []bpf.Instruction {
	// Backwards, so that the distance to the end is known.
	code := []bpf.Instruction{bpf.RetConstant{Val: retAllow}}
	prepend := func(is ...bpf.Instruction) { code = append(is, code...) }
	for _, c := range slices.Backward(all) {
		low := uint32(dataArgs + 8*c.arg) // both architectures are little-endian
		prepend(bpf.JumpIf{Cond: bpf.JumpEqual, Val: c.equal, SkipFalse: uint8(len(code))})
		if c.mask != ^uint32(0) {
			prepend(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: c.mask})
		}
		prepend(bpf.LoadAbsolute{Off: low, Size: 4})
		if !c.wide {
			prepend(bpf.LoadAbsolute{Off: low + 4, Size: 4},
				bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipFalse: uint8(len(code))})
		}
	}
	return code
}

// install puts the filter on every thread of the process, for ever.
// no_new_privs must be set.
func install(rules []rule) error {
	raw, err := assemble(rules)
	if err != nil {
		return err
	}
	prog := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		prog[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	r, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fprog)))
	switch {
	case errno != 0:
		return fmt.Errorf("seccomp: %w", errno)
	case r != 0:
		return fmt.Errorf("seccomp: thread %d could not take the filter", r)
	}
	return nil
}
