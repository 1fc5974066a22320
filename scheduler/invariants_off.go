//go:build !invariants

package scheduler

// invariants makes every Ready check the whole machine. Set by the build tag
// of the same name.
const invariants = false
