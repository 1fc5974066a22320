// Package kernels lists the programs that the cost of metering is measured on,
// for the test of the pass and for the benchmark of the engine. Their source
// is wasm/rewrite/testdata/kernels.
package kernels

// Package is the import path of the command that holds the kernels. Its
// arguments are a kernel's name and how often to run it.
const Package = "github.com/wray-project/wray/wasm/rewrite/testdata/kernels"

// Kernel is one of them.
type Kernel struct {
	Name  string
	Times int  // to run it for some 40 ms
	Extra bool // not one of the eight that the target is set for
}

// All returns every kernel, the eight of the target first.
func All() []Kernel {
	return []Kernel{
		{"sha256", 10, false}, {"json", 10, false}, {"sort", 3, false}, {"matmul", 20, false},
		{"regexp", 15, false}, {"compress", 15, false}, {"map", 15, false}, {"spin", 12, false},
		{"fib", 10, true}, {"iface", 15, true}, {"sieve", 15, true}, {"strings", 40, true},
	}
}
