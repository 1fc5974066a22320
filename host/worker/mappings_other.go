//go:build !linux

package worker

func maxMappings() int { return defaultMappings }
