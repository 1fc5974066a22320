//go:build !race

package codecache

// slowness is how much longer a compiler takes in this build than in others.
const slowness = 1
