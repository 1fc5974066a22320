package worker

import (
	"os"
	"strconv"
	"strings"
)

func maxMappings() int {
	b, err := os.ReadFile("/proc/sys/vm/max_map_count")
	if err != nil {
		return defaultMappings
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || n <= 0 {
		return defaultMappings
	}
	return n
}
