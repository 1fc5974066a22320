//go:build !race

package worker

// raceDetector says that the test runs under the race detector.
const raceDetector = false
