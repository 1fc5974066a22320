//go:build linux && !cgo

package jail

func cgoCalls() []rule { return nil }

// withCgo says that the program has a C library.
const withCgo = false
