//go:build race

package codecache

const raceDetector = true
