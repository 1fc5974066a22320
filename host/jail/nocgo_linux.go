//go:build linux && !cgo

package jail

const usesCgo = false

func cgoCalls() []rule { return nil }

// withCgo says that the program has a C library.
const withCgo = false
