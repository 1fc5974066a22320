package rewrite

// Hard limits on what the reader takes. They are those that the engines of
// browsers agreed on (wasmparser's limits.rs, the JavaScript interface's
// "implementation-defined limits"); they bound what the reader allocates, and
// real modules stay far below them. Stricter limits for tenants are Admit's.
const (
	maxModule    = 1 << 30   // bytes
	maxTypes     = 1_000_000 // also functions, imports, exports and globals
	maxSegments  = 100_000   // Go's linker emits exactly this many
	maxBody      = 7_654_321 // bytes of one function
	maxLocals    = 50_000    // of one function, parameters included
	maxParams    = 1_000     // also results
	maxTables    = 100
	maxTableSize = 10_000_000
	maxName      = 100_000 // bytes
	maxPages     = 65_536
)
