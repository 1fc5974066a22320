//go:build race

package codecache

// slowness is how much longer a compiler takes in builds with the race
// detector, which are for tests.
const slowness = 10
