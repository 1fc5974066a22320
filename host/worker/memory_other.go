//go:build !linux

package worker

func defaultMemory() int64 { return fallbackMemory }
