package worker

import (
	"fmt"
	"os"

	"github.com/wray-project/wray/internal/fd"
)

// dupFile returns f under a descriptor of its own.
func dupFile(f *os.File) (*os.File, error) {
	own, err := fd.Duplicate(f)
	if err != nil {
		return nil, fmt.Errorf("duplicate a descriptor: %w", err)
	}
	return os.NewFile(uintptr(own), "client-value"), nil
}
