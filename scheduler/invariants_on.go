//go:build invariants

package scheduler

const invariants = true
