//go:build !linux

package audit

import "os"

// allocate cannot be done on this system: a full disk is found by who writes.
func allocate(*os.File, int64, int64) error { return nil }
