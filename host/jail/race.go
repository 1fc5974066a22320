//go:build race

package jail

// raceDetector reports a build with the race detector, which reserves terabytes
// of address space for its shadow memory.
const raceDetector = true
