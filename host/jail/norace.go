//go:build !race

package jail

const raceDetector = false
