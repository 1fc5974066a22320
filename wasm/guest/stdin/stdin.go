// Package stdin makes standard input one that goroutines can wait for. Package
// os looks at the descriptor once, while it is initialised: where it is in
// non-blocking mode a goroutine that reads it is parked, and without that the
// whole program stops until input comes.
//
// Packages are initialised in the order of their paths, each after those it
// imports (https://go.dev/ref/spec#Package_initialization). This one imports
// nothing, so it comes before os.
package stdin
