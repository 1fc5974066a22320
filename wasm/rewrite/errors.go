package rewrite

import (
	"fmt"

	"github.com/wray-project/wray"
)

// invalid returns the error for bytes that are not valid WebAssembly. off is
// the offset in the module at which the reader stood.
func invalid(off int, format string, args ...any) *wray.Error {
	return &wray.Error{
		Code:    wray.CodeInvalidModule,
		Message: fmt.Sprintf("at byte %d: %s", off, fmt.Sprintf(format, args...)),
		Hint:    "the file is damaged or no WebAssembly module; build it again",
	}
}

// refused returns the error for a module that may be valid WebAssembly but
// uses something that wray does not run. why says what it would break.
func refused(off int, feature, why, hint string) *wray.Error {
	return &wray.Error{
		Code:    wray.CodeInvalidModule,
		Message: fmt.Sprintf("at byte %d: the module uses %s, which is refused: %s", off, feature, why),
		Hint:    hint,
	}
}

// tooMany returns the error for a module that passes one of the hard limits in
// limits.go.
func tooMany(off int, what string, n, limit uint64) *wray.Error {
	return &wray.Error{
		Code:    wray.CodeInvalidModule,
		Message: fmt.Sprintf("at byte %d: too many %s: %d", off, what, n),
		Limit:   &wray.Limit{Name: what, Value: int64(limit)},
		Hint:    "no engine takes such a module; split it",
	}
}

// The features that are refused, each with its reason and the way round it.
func refuseThreads(off int) *wray.Error {
	return refused(off, "threads (shared memory or atomics)",
		"sandboxes share no memory, and shared memory gives guests a precise timer",
		"build without threads, such as without -pthread or +atomics")
}

func refuseExceptions(off int) *wray.Error {
	return refused(off, "exception handling",
		"the engine's exception references can be used after they are freed",
		"build without wasm exceptions, such as with -fno-exceptions or panic=abort")
}

func refuseMemory64(off int) *wray.Error {
	return refused(off, "64-bit memories or tables (memory64)", "the engine has 32-bit ones only",
		"build for wasm32")
}

func refuseMultiMemory(off int) *wray.Error {
	return refused(off, "more than one memory (multi-memory)", "the engine has one memory per module",
		"build without multi-memory")
}

func refuseGC(off int) *wray.Error {
	return refused(off, "garbage-collected types (GC)", "the engine does not have them",
		"build for a target without WasmGC")
}

func refuseTypedRefs(off int) *wray.Error {
	return refused(off, "typed function references", "the engine has funcref and externref only",
		"build without the function-references feature")
}

func refuseTailCalls(off int) *wray.Error {
	return refused(off, "tail calls", "they are not enabled", "enable tail calls or build without +tail-call")
}

func refuseRelaxedSIMD(off int) *wray.Error {
	return refused(off, "relaxed SIMD", "its results differ between machines and the engine does not have it",
		"build with +simd128 but without +relaxed-simd")
}

func refuseExtendedConst(off int) *wray.Error {
	return refused(off, "arithmetic in a constant expression (extended-const)", "the engine does not have it enabled",
		"build without the extended-const feature")
}
