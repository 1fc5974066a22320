package rewrite

// admitProposal is an extension of WebAssembly that wray does not run.
type admitProposal struct{ name, why, hint string }

var (
	noThreads = admitProposal{"threads (shared memory or atomics)",
		"sandboxes share no memory, and shared memory is a precise clock",
		"build without threads (clang: no -pthread; Rust: no +atomics)"}
	noExceptions = admitProposal{"exception handling",
		"the engine's exception references can be used after they are freed",
		"build without WebAssembly exceptions (clang: -fno-exceptions; Rust: panic=abort)"}
	noMemory64 = admitProposal{"64-bit memories or tables (memory64)", "the engine has 32-bit ones only",
		"build for wasm32"}
	noMultiMemory = admitProposal{"more than one memory (multi-memory)", "the engine has one memory in a module",
		"build without multi-memory"}
	noGC = admitProposal{"garbage-collected types (GC)", "the engine does not have them",
		"build for a target without WasmGC"}
	noTypedRefs = admitProposal{"typed function references", "the engine has funcref and externref only",
		"build without the function-references feature"}
	noRelaxedSIMD = admitProposal{"relaxed SIMD", "its results differ between machines",
		"build with +simd128 and without +relaxed-simd"}
	noExtendedConst = admitProposal{"arithmetic in a constant expression (extended-const)", "the engine does not have it",
		"build without the extended-const feature"}
	noWideArithmetic = admitProposal{"wide arithmetic or another new prefix of instructions", "the engine does not have it",
		"build for the features of WebAssembly 2.0"}
)
